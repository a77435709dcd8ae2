import * as v from "valibot";
import { greater } from "./ata-data.ts";
import {
  type DiskHealth,
  type DiskProtocol,
  type FailingAttribute,
  healthLimits,
  type SelfTest,
  untoldHealth,
} from "./health.ts";

/**
 * What `smartctl --json=c -x` prints, of smartmontools 7.3: docs of its JSON are its source, so
 * that each part is taken for what it is or, where it is something else, not at all. Pure.
 */

/** Bytes of its output that are read; some SAS disks tell long. */
export const SMARTCTL_BYTES = 4 * 1024 ** 2;

/** Bits of its exit status: smartctl(8). */
export const smartctlStatus = {
  /** The command line, or the device did not open: it has no answer. */
  noAnswer: 0b11,
  /** A command failed, or a checksum is wrong: there is less than all of it. */
  incomplete: 1 << 2,
  failing: 1 << 3,
  prefailNow: 1 << 4,
  past: 1 << 5,
  loggedErrors: 1 << 6,
  selfTestErrors: 1 << 7,
} as const;

export type SmartctlAnswer =
  | { readonly kind: "health"; readonly health: DiskHealth; readonly version: string | null }
  /** It could not ask this disk; its own words. */
  | { readonly kind: "no-answer"; readonly reason: string };

const anything = v.record(v.string(), v.unknown());
type Json = Readonly<Record<string, unknown>>;

/** @param status the exit status, which the JSON has as well: the two must not contradict */
export function decodeSmartctl(output: string, status: number): SmartctlAnswer {
  const root = v.safeParse(anything, parseJson(output));
  if (!root.success) return { kind: "no-answer", reason: "its output is no JSON object" };
  const json = root.output;
  const own = numberAt(json, "smartctl", "exit_status");
  const bits = own === null ? status : status | own;
  if ((bits & smartctlStatus.noAnswer) !== 0) {
    return { kind: "no-answer", reason: saidBy(json) ?? `exit status ${status}` };
  }
  const protocol = protocolOf(json);
  if (protocol === "none") {
    return { kind: "no-answer", reason: saidBy(json) ?? "it tells no protocol" };
  }
  const base = { ...untoldHealth(protocol), ...commonOf(json, bits) };
  const health = { ...base, ...partsOf[protocol](json) };
  return { kind: "health", health, version: versionOf(json) };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function protocolOf(json: Json): DiskProtocol {
  switch (textAt(json, "device", "protocol")) {
    case "NVMe":
      return "nvme";
    case "ATA":
      return "ata";
    case "SCSI":
      return "scsi";
    default:
      return "none";
  }
}

/** The first message that it calls an error. */
function saidBy(json: Json): string | null {
  const messages = listAt(json, "smartctl", "messages");
  const error = messages.find((message) => textAt(message, "severity") === "error") ?? messages[0];
  return error === undefined ? null : textAt(error, "string");
}

function versionOf(json: Json): string | null {
  const parts = valueAt(json, "smartctl", "version");
  if (!Array.isArray(parts) || !parts.every((part) => typeof part === "number")) return null;
  return parts.join(".").slice(0, 32);
}

function commonOf(json: Json, bits: number) {
  const passed = valueAt(json, "smart_status", "passed");
  const said = typeof passed === "boolean" ? passed : null;
  return {
    model: textAt(json, "model_name") ?? textAt(json, "scsi_model_name"),
    serial: textAt(json, "serial_number"),
    firmware: textAt(json, "firmware_version") ?? textAt(json, "scsi_revision"),
    healthy: (bits & smartctlStatus.failing) !== 0 ? false : said,
    temperature_c: signedAt(json, "temperature", "current"),
    power_on_hours: countAt(json, "power_on_time", "hours"),
  };
}

const partsOf: Readonly<
  Record<Exclude<DiskProtocol, "none">, (json: Json) => Partial<DiskHealth>>
> = { nvme: nvmePart, ata: ataPart, scsi: scsiPart };

function nvmePart(json: Json): Partial<DiskHealth> {
  const log = (name: string) => countAt(json, "nvme_smart_health_information_log", name);
  const critical = log("critical_warning");
  const said = valueAt(json, "smart_status", "passed");
  // Before 7.2 the verdict is not in the JSON of every disk; the warning is what it is made of.
  const healthy = critical === null ? {} : { healthy: critical === 0 && said !== false };
  const tests = listAt(json, "nvme_self_test_log", "table");
  return {
    ...healthy,
    critical_warning: critical,
    media_errors: log("media_errors"),
    spare_percent: log("available_spare"),
    spare_least_percent: log("available_spare_threshold"),
    used_percent: log("percentage_used"),
    logged_errors: log("num_err_log_entries"),
    self_test: nvmeSelfTest(tests[0]),
  };
}

function nvmeSelfTest(entry: Json | undefined): SelfTest | null {
  if (entry === undefined) return null;
  const result = numberAt(entry, "self_test_result", "value");
  if (result === null) return null;
  return {
    kind: kindOf(numberAt(entry, "self_test_code", "value"), 1, 2),
    result: nvmeResult(result),
    detail: textAt(entry, "self_test_result", "string") ?? `result ${result}`,
    power_on_hours: countAt(entry, "power_on_hours"),
  };
}

function nvmeResult(code: number): SelfTest["result"] {
  if (code === 0) return "passed";
  return code >= 5 && code <= 7 ? "failed" : "aborted";
}

function ataPart(json: Json): Partial<DiskHealth> {
  const table = listAt(json, "ata_smart_attributes", "table");
  const raw = (id: number) => rawOf(table.find((row) => numberAt(row, "id") === id));
  const statistic = statisticsOf(json);
  return {
    media_errors: greater(statistic(4, 8), raw(187)),
    used_percent: statistic(7, 8),
    pending_sectors: greater(
      greater(statistic(3, 56), raw(197)),
      countAt(json, "ata_pending_defects_log", "count"),
    ),
    uncorrectable_sectors: raw(198),
    reallocated_sectors: greater(statistic(3, 32), raw(5)),
    link_errors: greater(statistic(6, 24), raw(199)),
    logged_errors:
      countAt(json, "ata_smart_error_log", "extended", "count") ??
      countAt(json, "ata_smart_error_log", "summary", "count"),
    self_test: ataSelfTest(json),
    failing_attributes: table.flatMap(failingRow).slice(0, healthLimits.attributes),
  };
}

/**
 * The count that smartctl prints, which knows the disk's model: its raw value as a number may have
 * other counts in its upper bytes. "0 (Min/Max 0/3)" is 0; "12h+30m" is 12.
 */
function rawOf(row: Json | undefined): number | null {
  if (row === undefined) return null;
  const printed = /^\d{1,15}/.exec(textAt(row, "raw", "string") ?? "");
  return printed === null ? countAt(row, "raw", "value") : Number(printed[0]);
}

function failingRow(row: Json): FailingAttribute[] {
  if (textAt(row, "when_failed") !== "now") return [];
  const id = countAt(row, "id");
  if (id === null) return [];
  return [
    {
      id,
      name: textAt(row, "name") ?? `Attribute_${id}`,
      value: countAt(row, "value") ?? 0,
      threshold: countAt(row, "thresh") ?? 0,
      failure_expected: valueAt(row, "flags", "prefailure") === true,
    },
  ];
}

/** A value of device statistics by page and offset; one that is not valid is none. */
function statisticsOf(json: Json): (page: number, offset: number) => number | null {
  const pages = listAt(json, "ata_device_statistics", "pages");
  return (page, offset) => {
    const rows = pages
      .filter((found) => numberAt(found, "number") === page)
      .flatMap((found) => listAt(found, "table"));
    const row = rows.find((found) => numberAt(found, "offset") === offset);
    if (row === undefined || valueAt(row, "flags", "valid") !== true) return null;
    return countAt(row, "value");
  };
}

function ataSelfTest(json: Json): SelfTest | null {
  const newest =
    listAt(json, "ata_smart_self_test_log", "extended", "table")[0] ??
    listAt(json, "ata_smart_self_test_log", "standard", "table")[0];
  if (newest === undefined) return null;
  const status = numberAt(newest, "status", "value");
  if (status === null) return null;
  const passed = valueAt(newest, "status", "passed");
  const code = status >> 4;
  return {
    kind: kindOf(numberAt(newest, "type", "value"), 1, 2),
    result: ataResult(code, passed),
    detail: textAt(newest, "status", "string") ?? `status ${status}`,
    power_on_hours: countAt(newest, "lifetime_hours"),
  };
}

function ataResult(code: number, passed: unknown): SelfTest["result"] {
  if (code === 0xf) return "running";
  if (code === 0) return "passed";
  // 1 and 2 are interruptions; what smartctl itself calls no pass is none.
  return code >= 3 || passed === false ? "failed" : "aborted";
}

function scsiPart(json: Json): Partial<DiskHealth> {
  const counters = ["read", "write", "verify"].flatMap(
    (way) => countAt(json, "scsi_error_counter_log", way, "total_uncorrected_errors") ?? [],
  );
  return {
    media_errors: counters.length === 0 ? null : counters.reduce((sum, one) => sum + one, 0),
    used_percent: countAt(json, "scsi_percentage_used_endurance_indicator"),
    reallocated_sectors: countAt(json, "scsi_grown_defect_list"),
    pending_sectors: countAt(json, "scsi_pending_defects", "count"),
    self_test: scsiSelfTest(json),
  };
}

function scsiSelfTest(json: Json): SelfTest | null {
  const newest = objectAt(json, "scsi_self_test_0");
  const result = newest === undefined ? null : numberAt(newest, "result", "value");
  if (newest === undefined || result === null) return null;
  const detail = textAt(newest, "result", "string") ?? `result ${result}`;
  const base = {
    kind: scsiKind(textAt(newest, "code", "string") ?? ""),
    detail,
    power_on_hours: countAt(newest, "power_on_time", "hours"),
  };
  if (result === 0) return { ...base, result: "passed" };
  if (result === 0xf) return { ...base, result: "running" };
  return { ...base, result: result >= 3 && result <= 7 ? "failed" : "aborted" };
}

function scsiKind(word: string): SelfTest["kind"] {
  if (/short/i.test(word)) return "short";
  return /long|extended/i.test(word) ? "extended" : "other";
}

function kindOf(code: number | null, short: number, extended: number): SelfTest["kind"] {
  const plain = code === null ? null : code & 0x7f;
  if (plain === short) return "short";
  return plain === extended ? "extended" : "other";
}

function valueAt(json: Json, ...path: readonly string[]): unknown {
  let value: unknown = json;
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Json)[key];
  }
  return value;
}

function objectAt(json: Json, ...path: readonly string[]): Json | undefined {
  const found = v.safeParse(anything, valueAt(json, ...path));
  return found.success ? found.output : undefined;
}

function listAt(json: Json, ...path: readonly string[]): readonly Json[] {
  const found = valueAt(json, ...path);
  if (!Array.isArray(found)) return [];
  return found.flatMap((entry) => {
    const object = v.safeParse(anything, entry);
    return object.success ? [object.output] : [];
  });
}

function textAt(json: Json, ...path: readonly string[]): string | null {
  const found = valueAt(json, ...path);
  if (typeof found !== "string") return null;
  const trimmed = found.trim().slice(0, healthLimits.text);
  return trimmed === "" ? null : trimmed;
}

function numberAt(json: Json, ...path: readonly string[]): number | null {
  const found = valueAt(json, ...path);
  return typeof found === "number" && Number.isFinite(found) ? found : null;
}

function signedAt(json: Json, ...path: readonly string[]): number | null {
  const found = numberAt(json, ...path);
  return found !== null && Number.isSafeInteger(found) ? found : null;
}

/** A count; what is beyond a safe integer is the greatest of them, what is negative is none. */
function countAt(json: Json, ...path: readonly string[]): number | null {
  const found = numberAt(json, ...path);
  if (found === null || found < 0) return null;
  return Math.min(Math.floor(found), Number.MAX_SAFE_INTEGER);
}
