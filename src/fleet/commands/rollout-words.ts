import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import * as v from "valibot";
import { UsageError } from "../../command-line/usage-error.ts";
import { NamedFileRefused, withNamedFile } from "../../journal/file-refused.ts";
import { parseBytes } from "../../units/bytes.ts";
import { type Milliseconds, parseDuration } from "../../units/units.ts";
import {
  FASTEST_HEARTBEAT,
  fleetLimits,
  HEARTBEAT_EVERY,
  releaseVersionSchema,
} from "../protocol.ts";
import {
  type Amount,
  amountSchema,
  fallingWave,
  labelsSchema,
  type MaintenanceWindow,
  operatorLimits,
  type RolloutSpec,
  rolloutBuildSchema,
} from "../protocol-operator.ts";

/** What a rollout is, as it is typed. */

export interface ManifestFlags {
  readonly manifest: string;
  readonly source: readonly string[];
  readonly rate: string | undefined;
  readonly name: string | undefined;
  readonly heartbeat: string;
}

export interface RolloutFlags extends ManifestFlags {
  readonly canaries: string | undefined;
  readonly wave: readonly string[];
  readonly soak: string;
  readonly "max-unavailable": string;
  readonly failures: string;
  readonly label: readonly string[];
  readonly device: readonly string[];
  readonly window: readonly string[];
}

/** Milliseconds; the device counts them by itself. */
const limits = { staging_ms: 1_800_000, commit_ms: 600_000, canonical_ms: 300_000 } as const;

/** @throws UsageError, NamedFileRefused, FileRefused */
export function readRollout(flags: RolloutFlags): {
  readonly name: string;
  readonly spec: RolloutSpec;
} {
  const { canaries, wave, device } = flags;
  const twice = device.find((name, index) => device.indexOf(name) !== index);
  if (twice !== undefined) {
    throw new UsageError(`Expected each device once after --device, received ${twice} twice`);
  }
  const first = canaries === undefined ? [] : [readCount(canaries, "--canaries")];
  const { version, builds, text } = readManifest(flags.manifest);
  const heartbeat = readHeartbeat(flags.heartbeat);
  const waves = [...first, ...wave.map((text) => readAmount(text, "--wave"))];
  const fallen = fallingWave(waves);
  if (fallen !== undefined) {
    throw new UsageError(
      "Expected waves that rise, because each says how many devices in all, and after the last " +
        `all follow; received ${fallen}`,
    );
  }
  return {
    name: flags.name ?? version.toLowerCase(),
    spec: {
      ...{ version, builds, manifest: text },
      // A device of before this word would refuse it: it is said where it says something.
      limits: heartbeat === HEARTBEAT_EVERY ? limits : { ...limits, heartbeat_ms: heartbeat },
      sources: readSources(flags.source),
      rate: flags.rate === undefined ? null : readRate(flags.rate),
      select: {
        devices: device.length === 0 ? null : [...device],
        labels: readLabels(flags.label),
      },
      waves,
      soak_ms: readSoak(flags.soak),
      max_unavailable: readAmount(flags["max-unavailable"], "--max-unavailable"),
      failures_percent: readPercent(flags.failures, "--failures"),
      windows: flags.window.map(readWindow),
    },
  };
}

/** The signed text is read for what devices it is for; they check the signature themselves. */
const envelopeSchema = v.object({ signed: v.string() });
const manifestSchema = v.object({
  version: releaseVersionSchema,
  builds: v.pipe(v.array(v.object(rolloutBuildSchema.entries)), v.minLength(1), v.maxLength(4)),
});

/** @throws NamedFileRefused, FileRefused */
export function readManifest(given: string): {
  readonly version: string;
  readonly builds: RolloutSpec["builds"];
  readonly text: string;
} {
  const path = resolve(given);
  const file = { what: "read the manifest", path, otherwise: "give another file" };
  const text = withNamedFile(file, () => {
    const { size } = statSync(path);
    if (size > fleetLimits.manifestBytes) {
      throw refusedManifest(path, `at most ${fleetLimits.manifestBytes} bytes`, `${size}`);
    }
    return readFileSync(path, "utf8");
  });
  const envelope = v.safeParse(v.pipe(v.string(), v.parseJson(), envelopeSchema), text);
  const signed = envelope.success ? envelope.output.signed : "";
  const manifest = v.safeParse(v.pipe(v.string(), v.parseJson(), manifestSchema), signed);
  if (!manifest.success) {
    throw refusedManifest(path, "a signed manifest with a version and builds", "something else");
  }
  const { version, builds } = manifest.output;
  return { version, builds, text };
}

function refusedManifest(path: string, expected: string, received: string): NamedFileRefused {
  return new NamedFileRefused(
    `Cannot read the manifest ${path}: expected ${expected}, received ${received}. Give the ` +
      "manifest that was signed.",
  );
}

function readSources(given: readonly string[]): string[] {
  if (given.length === 0 || given.length > fleetLimits.sources) {
    throw new UsageError(
      `Expected 1 to ${fleetLimits.sources} times --source, received ${given.length}`,
    );
  }
  for (const source of given) checkSource(source);
  return [...given];
}

/** Devices would refuse it, each by itself, and whoever looks at the rollout sees it. */
function checkSource(source: string): void {
  const expected = (what: string, received = source) =>
    new UsageError(`Expected ${what} after --source, received ${received}`);
  if (!/^(https?|file):\/\/./.test(source)) throw expected("https:, http: or file:");
  const place = URL.parse(source);
  if (place === null) throw expected("an address");
  if (place.username !== "" || place.password !== "") {
    const why = "an address without a user and password, which every viewer would see,";
    throw expected(why, `one with them, on ${place.host}`);
  }
  if (/[?#]/.test(source)) throw expected("the address of a folder, without ? and #");
}

function readRate(text: string): number {
  const bytes = parseBytes(text);
  if (bytes !== undefined && bytes >= 1_024) return bytes;
  throw new UsageError(`Expected at least 1KiB after --rate, received ${text}`);
}

/** @throws UsageError */
export function readLabels(given: readonly string[]): Record<string, string> {
  const pairs = given.map((text): [string, string] => {
    const [, key = "", value = ""] = /^([^=]+)=(.*)$/.exec(text) ?? [];
    if (key === "") throw new UsageError(`Expected key=value after --label, received ${text}`);
    return [key, value];
  });
  const labels = Object.fromEntries(pairs);
  if (Object.keys(labels).length < pairs.length) {
    throw new UsageError("Expected each label once, received one twice");
  }
  const parsed = v.safeParse(labelsSchema, labels);
  if (parsed.success) return labels;
  throw new UsageError(`Expected ${parsed.issues[0].message}, after --label`);
}

function readCount(text: string, flag: string): Amount {
  const amount = readAmount(text, flag);
  if (amount.by === "count") return amount;
  throw new UsageError(`Expected a number of devices after ${flag}, received ${text}`);
}

/** "5" devices, or "10%" of them. @throws UsageError */
export function readAmount(text: string, flag: string): Amount {
  const [, number = "", sign] = /^(\d{1,6}(?:\.\d{1,3})?)(%?)$/.exec(text) ?? [];
  const amount =
    sign === "%"
      ? { by: "percent", percent: Number(number) }
      : { by: "count", count: Number(number) };
  const parsed = v.safeParse(amountSchema, amount);
  if (number !== "" && parsed.success) return parsed.output;
  throw new UsageError(`Expected such as 5 or 10% after ${flag}, received ${text}`);
}

function readPercent(text: string, flag: string): number {
  const [, number] = /^(\d{1,3}(?:\.\d{1,3})?)%$/.exec(text) ?? [];
  if (number !== undefined && Number(number) <= 100) return Number(number);
  throw new UsageError(`Expected 0% to 100% after ${flag}, received ${text}`);
}

function readSoak(text: string): number {
  const duration = parseDuration(text);
  const isWhole = duration !== undefined && Number.isSafeInteger(duration);
  if (isWhole && duration <= operatorLimits.soak) return duration;
  const most = operatorLimits.soak / 3_600_000;
  throw new UsageError(
    `Expected such as 30min or 2h, at most ${most}h, after --soak, received ${text}`,
  );
}

/** Milliseconds. @throws UsageError */
export function readHeartbeat(text: string): Milliseconds {
  const duration = parseDuration(text);
  const isWithin = (time: number) => time >= FASTEST_HEARTBEAT && time <= HEARTBEAT_EVERY;
  if (duration !== undefined && Number.isSafeInteger(duration) && isWithin(duration)) {
    return duration;
  }
  throw new UsageError(`Expected 1s to 10s after --heartbeat, received ${text}`);
}

const dayNames = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] as const;

/** "sat,sun 22:00-04:00", "mon-fri 01:00-05:00", "daily 01:00-05:00". @throws UsageError */
export function readWindow(text: string): MaintenanceWindow {
  const [, words = "", from = "", to = ""] =
    /^([a-z,-]+) (\d\d:\d\d)-(\d\d:\d\d)$/.exec(text) ?? [];
  const days = words === "daily" ? [0, 1, 2, 3, 4, 5, 6] : words.split(",").flatMap(readDays);
  const [begin, end] = [readTime(from), readTime(to)];
  const isRight = days.length > 0 && !days.includes(-1);
  const isEmpty = begin !== undefined && end !== undefined && (end - begin) % DAY_MINUTES === 0;
  if (isRight && isEmpty && begin >= end) {
    throw new UsageError(
      `Expected an end that is not the begin after --window, received ${text}; a whole day is ` +
        `"${words} 00:00-24:00", and at any time is no --window at all`,
    );
  }
  if (isRight && begin !== undefined && end !== undefined) {
    return { days: [...new Set(days)].sort(), from: begin, to: end };
  }
  throw new UsageError(
    `Expected "sat,sun 22:00-04:00" or "daily 01:00-05:00" after --window, received ${text}`,
  );
}

const DAY_MINUTES = 1_440;

/** @returns -1 among them for a word that is no day */
function readDays(word: string): number[] {
  const [first = "", last = first] = word.split("-");
  const [from, to] = [first, last].map((name) => (dayNames as readonly string[]).indexOf(name));
  if (from === undefined || to === undefined || from < 0 || to < 0) return [-1];
  const length = ((to - from + 7) % 7) + 1;
  return Array.from({ length }, (_value, index) => (from + index) % 7);
}

function readTime(text: string): number | undefined {
  const [hours = Number.NaN, minutes = Number.NaN] = text.split(":").map(Number);
  if (!(hours <= 24 && minutes < 60)) return undefined;
  const time = 60 * hours + minutes;
  return time <= 1_440 ? time : undefined;
}
