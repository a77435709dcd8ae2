import { type DiskHealth, type FailingAttribute, type SelfTest, untoldHealth } from "./health.ts";
import { swappedAsciiOf, viewOf } from "./octets.ts";

/**
 * What an ATA disk tells, as sectors of 512 bytes: ATA/ATAPI Command Set 3 (IDENTIFY DEVICE 7.12,
 * logs 9), SFF-8035i for the attributes, whose names and raw values are their makers'. Pure.
 */

const SECTOR = 512;
const ATTRIBUTES = 30;

/** The bytes of a sector whose last one makes their sum zero. */
function isSummed(bytes: Uint8Array): boolean {
  let sum = 0;
  for (let index = 0; index < SECTOR; index++) sum = (sum + (bytes[index] ?? 0)) & 0xff;
  return bytes.length >= SECTOR && sum === 0;
}

export interface AtaIdentity {
  readonly serial: string | null;
  readonly model: string | null;
  readonly firmware: string | null;
  readonly hasSmart: boolean;
  readonly smartEnabled: boolean;
  readonly hasSelfTest: boolean;
  /** READ LOG EXT: where device statistics are. */
  readonly hasLogs: boolean;
}

export function decodeAtaIdentity(bytes: Uint8Array): AtaIdentity | undefined {
  if (bytes.length < SECTOR || bytes.every((byte) => byte === 0)) return undefined;
  const word = (index: number): number =>
    ((bytes[index * 2 + 1] ?? 0) << 8) | (bytes[index * 2] ?? 0);
  // Words 82 to 87 count where bits 15:14 of word 83 are 01, those of 84 to 87 likewise.
  const told = (index: number, bit: number, witness: number): boolean =>
    word(witness) >> 14 === 1 && ((word(index) >> bit) & 1) === 1;
  return {
    serial: swappedAsciiOf(bytes, 20, 20),
    firmware: swappedAsciiOf(bytes, 46, 8),
    model: swappedAsciiOf(bytes, 54, 40),
    hasSmart: told(82, 0, 83),
    smartEnabled: told(85, 0, 87),
    hasSelfTest: told(84, 1, 84),
    hasLogs: told(84, 5, 84),
  };
}

export interface AtaAttribute {
  readonly id: number;
  readonly value: number;
  readonly raw: readonly number[];
  readonly failureExpected: boolean;
}

export interface AtaSmartData {
  readonly attributes: readonly AtaAttribute[];
  /** The self-test that runs, or ran last: its status, and tens of percent that are left. */
  readonly selfTestStatus: number;
  readonly selfTestLeft: number;
  readonly shortMinutes: number;
  readonly extendedMinutes: number;
}

/** SMART READ DATA. @returns undefined where the checksum is wrong */
export function decodeAtaSmartData(bytes: Uint8Array): AtaSmartData | undefined {
  if (!isSummed(bytes)) return undefined;
  const view = viewOf(bytes);
  const attributes: AtaAttribute[] = [];
  for (let index = 0; index < ATTRIBUTES; index++) {
    const at = 2 + index * 12;
    const id = view.getUint8(at);
    if (id === 0) continue;
    attributes.push({
      id,
      failureExpected: (view.getUint16(at + 1, true) & 1) === 1,
      value: view.getUint8(at + 3),
      raw: [...bytes.subarray(at + 5, at + 11)],
    });
  }
  const extended = view.getUint8(373);
  return {
    attributes,
    selfTestStatus: view.getUint8(363) >> 4,
    selfTestLeft: view.getUint8(363) & 0xf,
    shortMinutes: view.getUint8(372),
    extendedMinutes: extended === 0xff ? view.getUint16(375, true) : extended,
  };
}

/** SMART READ THRESHOLDS: by attribute. */
export function decodeAtaThresholds(bytes: Uint8Array): ReadonlyMap<number, number> | undefined {
  if (!isSummed(bytes)) return undefined;
  const thresholds = new Map<number, number>();
  for (let index = 0; index < ATTRIBUTES; index++) {
    const id = bytes[2 + index * 12] ?? 0;
    if (id !== 0) thresholds.set(id, bytes[3 + index * 12] ?? 0);
  }
  return thresholds;
}

/** What the attributes that count are called; the others go by their number. */
const attributeNames: Readonly<Record<number, string>> = {
  1: "Raw_Read_Error_Rate",
  3: "Spin_Up_Time",
  5: "Reallocated_Sector_Ct",
  7: "Seek_Error_Rate",
  9: "Power_On_Hours",
  10: "Spin_Retry_Count",
  184: "End-to-End_Error",
  187: "Reported_Uncorrect",
  188: "Command_Timeout",
  190: "Airflow_Temperature_Cel",
  194: "Temperature_Celsius",
  196: "Reallocated_Event_Count",
  197: "Current_Pending_Sector",
  198: "Offline_Uncorrectable",
  199: "UDMA_CRC_Error_Count",
  231: "SSD_Life_Left",
  233: "Media_Wearout_Indicator",
};

/** At or below its threshold, which is 1 to 253: 0 never fails, 254 and 255 are no limits. */
export function failingAttributes(
  attributes: readonly AtaAttribute[],
  thresholds: ReadonlyMap<number, number>,
): FailingAttribute[] {
  return attributes.flatMap(({ id, value, failureExpected }) => {
    const threshold = thresholds.get(id) ?? 0;
    if (threshold === 0 || threshold > 253 || value > threshold) return [];
    const name = attributeNames[id] ?? `Attribute_${id}`;
    return [{ id, name, value, threshold, failure_expected: failureExpected }];
  });
}

/** The lowest `length` bytes of an attribute's raw value. */
function rawOf(data: AtaSmartData, id: number, length: number): number | null {
  const found = data.attributes.find((attribute) => attribute.id === id);
  if (found === undefined) return null;
  return found.raw.slice(0, length).reduceRight((sum, byte) => sum * 256 + byte, 0);
}

/** Of device statistics, log 04h. `null`: not supported, or not valid now. */
export interface AtaStatistics {
  readonly power_on_hours: number | null;
  readonly reallocated: number | null;
  readonly pending: number | null;
  readonly reported_uncorrectable: number | null;
  readonly temperature: number | null;
  readonly link_errors: number | null;
  readonly used_percent: number | null;
}

export const noStatistics: AtaStatistics = {
  power_on_hours: null,
  reallocated: null,
  pending: null,
  reported_uncorrectable: null,
  temperature: null,
  link_errors: null,
  used_percent: null,
};

/** The pages of log 04h that are asked for. */
export const statisticsPages = [1, 3, 4, 5, 6, 7] as const;

/** @param pages those that could be read, by their number; one that names another is left out */
export function decodeAtaStatistics(pages: ReadonlyMap<number, Uint8Array>): AtaStatistics {
  const value = (page: number, offset: number, size: number): number | null => {
    const bytes = pages.get(page);
    if (bytes === undefined || bytes.length < SECTOR || bytes[2] !== page) return null;
    // Bit 7: supported; bit 6: valid.
    if (((bytes[offset + 7] ?? 0) & 0xc0) !== 0xc0) return null;
    let sum = 0;
    for (let index = size - 1; index >= 0; index--) sum = sum * 256 + (bytes[offset + index] ?? 0);
    return sum;
  };
  const temperature = value(5, 8, 1);
  return {
    power_on_hours: value(1, 16, 4),
    reallocated: value(3, 32, 4),
    pending: value(3, 56, 4),
    reported_uncorrectable: value(4, 8, 4),
    temperature: temperature === null ? null : (temperature << 24) >> 24,
    link_errors: value(6, 24, 4),
    used_percent: value(7, 8, 1),
  };
}

const selfTestKinds: Readonly<Record<number, SelfTest["kind"]>> = { 1: "short", 2: "extended" };
const selfTestFailures: Readonly<Record<number, string>> = {
  3: "a fatal error, or it could not be run",
  4: "failed, in a part that is not known",
  5: "failed: electrical",
  6: "failed: servo",
  7: "failed: read",
  8: "failed: handling damage",
};

/** SMART self-test log, 06h: the newest entry; null: it is empty. undefined: not readable. */
export function decodeAtaSelfTest(bytes: Uint8Array): SelfTest | null | undefined {
  if (!isSummed(bytes)) return undefined;
  const newest = bytes[508] ?? 0;
  if (newest === 0) return null;
  if (newest > 21) return undefined;
  const at = 2 + (newest - 1) * 24;
  const view = viewOf(bytes);
  // Bit 7: it was run while nothing else was.
  const number = view.getUint8(at) & 0x7f;
  const status = view.getUint8(at + 1) >> 4;
  return {
    kind: selfTestKinds[number] ?? "other",
    power_on_hours: view.getUint16(at + 2, true),
    ...selfTestResult(status),
  };
}

function selfTestResult(status: number): Pick<SelfTest, "result" | "detail"> {
  if (status === 0) return { result: "passed", detail: "completed without error" };
  if (status === 0xf) return { result: "running", detail: "in progress" };
  const failure = selfTestFailures[status];
  if (failure !== undefined) return { result: "failed", detail: failure };
  return { result: "aborted", detail: status === 1 ? "aborted by a command" : "interrupted" };
}

export interface AtaAnswers {
  readonly identity: AtaIdentity;
  /** SMART RETURN STATUS: whether a threshold was passed; null: no answer. */
  readonly failing: boolean | null;
  readonly data: AtaSmartData | undefined;
  readonly thresholds: ReadonlyMap<number, number> | undefined;
  readonly selfTest: SelfTest | null | undefined;
  readonly statistics: AtaStatistics;
}

/** What an ATA disk answered, as the health of a disk. */
export function ataHealth(answers: AtaAnswers): DiskHealth {
  const { data, statistics, identity } = answers;
  const raw = (id: number, length: number) => (data === undefined ? null : rawOf(data, id, length));
  const failing =
    data === undefined ? [] : failingAttributes(data.attributes, answers.thresholds ?? new Map());
  const celsius = raw(194, 1) ?? raw(190, 1);
  return {
    ...untoldHealth("ata"),
    model: identity.model,
    serial: identity.serial,
    firmware: identity.firmware,
    healthy: answers.failing === null ? null : !answers.failing,
    // How much of the raw value is a count is what smartctl takes where it knows no better.
    media_errors: greater(statistics.reported_uncorrectable, raw(187, 6)),
    used_percent: statistics.used_percent,
    pending_sectors: greater(statistics.pending, raw(197, 6)),
    uncorrectable_sectors: raw(198, 6),
    reallocated_sectors: greater(statistics.reallocated, raw(5, 2)),
    link_errors: greater(statistics.link_errors, raw(199, 6)),
    temperature_c: statistics.temperature ?? celsius,
    power_on_hours: statistics.power_on_hours ?? raw(9, 3),
    self_test: answers.selfTest ?? null,
    failing_attributes: failing.slice(0, ATTRIBUTES),
  };
}

/** The worse of two counts of one thing, either of which may not be told. */
export function greater(one: number | null, other: number | null): number | null {
  if (one === null || other === null) return one ?? other;
  return Math.max(one, other);
}
