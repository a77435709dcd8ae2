import { type DiskHealth, type SelfTest, untoldHealth } from "./health.ts";
import { asciiOf, clampedCount, viewOf } from "./octets.ts";

/**
 * What an NVMe controller tells, as bytes: NVM Express Base Specification 1.4, figures 93 (error
 * log), 94 (SMART / health), 99 (device self-test) and 247 (Identify Controller). Pure.
 */

/** Bytes of what is asked for. */
export const nvmeSizes = {
  identify: 4_096,
  health: 512,
  errorEntry: 64,
  selfTestLog: 564,
} as const;

/** Bits of the critical warning, from bit 0. */
export const nvmeWarnings = [
  "spare-below-threshold",
  "temperature",
  "reliability-degraded",
  "read-only",
  "volatile-backup-failed",
  "persistent-memory-unreliable",
] as const;

export function nameWarnings(criticalWarning: number): string {
  const names = nvmeWarnings.filter((_, bit) => (criticalWarning >> bit) & 1);
  const rest = criticalWarning & ~((1 << nvmeWarnings.length) - 1);
  return [...names, ...(rest === 0 ? [] : [`bits 0x${rest.toString(16)}`])].join(", ");
}

export interface NvmeController {
  readonly serial: string | null;
  readonly model: string | null;
  readonly firmware: string | null;
  /** Entries of the error log that it keeps. */
  readonly errorEntries: number;
  readonly hasSelfTest: boolean;
  /** Minutes that the extended self-test takes; 0: it does not say. */
  readonly extendedMinutes: number;
}

/** @returns undefined where the bytes are too few, or all zero: a controller has a vendor */
export function decodeNvmeController(bytes: Uint8Array): NvmeController | undefined {
  if (bytes.length < nvmeSizes.identify) return undefined;
  const view = viewOf(bytes);
  const serial = asciiOf(bytes, 4, 20);
  const model = asciiOf(bytes, 24, 40);
  if (view.getUint16(0, true) === 0 && serial === null && model === null) return undefined;
  return {
    serial,
    model,
    firmware: asciiOf(bytes, 64, 8),
    errorEntries: view.getUint8(262) + 1,
    hasSelfTest: (view.getUint16(256, true) & 0x10) !== 0,
    extendedMinutes: view.getUint16(316, true),
  };
}

/** Kelvin, as the log has it; 0 is "not told". */
const celsius = (kelvin: number): number | null => (kelvin === 0 ? null : kelvin - 273);

/**
 * The log page 02h. A page of nothing but ones, or nothing but zeros, is no answer: a controller
 * whose link is gone gives the former, a broken bridge the latter.
 */
export function decodeNvmeHealth(bytes: Uint8Array): DiskHealth | undefined {
  if (bytes.length < nvmeSizes.health) return undefined;
  const page = bytes.subarray(0, nvmeSizes.health);
  if (page.every((byte) => byte === 0xff) || page.every((byte) => byte === 0)) return undefined;
  const view = viewOf(page);
  const criticalWarning = view.getUint8(0);
  return {
    ...untoldHealth("nvme"),
    healthy: criticalWarning === 0,
    critical_warning: criticalWarning,
    temperature_c: celsius(view.getUint16(1, true)),
    spare_percent: view.getUint8(3),
    spare_least_percent: view.getUint8(4),
    used_percent: view.getUint8(5),
    power_on_hours: count128(view, 128),
    media_errors: count128(view, 160),
    logged_errors: count128(view, 176),
  };
}

/** 128 bits; what a number cannot hold is the greatest that it can. */
function count128(view: DataView, offset: number): number {
  const high = view.getBigUint64(offset + 8, true);
  return clampedCount((high << 64n) | view.getBigUint64(offset, true));
}

export interface NvmeError {
  /** Counts up over the controller's life; 0: the entry is empty. */
  readonly number: number;
  /** Type and code of the status, without the phase bit. */
  readonly status: number;
  readonly block: number;
  readonly namespace: number;
}

/** The log page 01h: the newest first; empty entries are left out. */
export function decodeNvmeErrors(bytes: Uint8Array): NvmeError[] {
  const errors: NvmeError[] = [];
  const view = viewOf(bytes);
  for (let at = 0; at + nvmeSizes.errorEntry <= bytes.length; at += nvmeSizes.errorEntry) {
    const number = clampedCount(view.getBigUint64(at, true));
    if (number === 0) continue;
    errors.push({
      number,
      status: view.getUint16(at + 12, true) >> 1,
      block: clampedCount(view.getBigUint64(at + 16, true)),
      namespace: view.getUint32(at + 24, true),
    });
  }
  return errors;
}

const selfTestKinds: Readonly<Record<number, SelfTest["kind"]>> = { 1: "short", 2: "extended" };

/** Results of a device self-test by their number; what is not here was aborted. */
const selfTestFailures: Readonly<Record<number, string>> = {
  5: "a fatal error",
  6: "failed, in a segment that is not known",
  7: "failed, in a segment",
};
const selfTestAborts: Readonly<Record<number, string>> = {
  1: "aborted by a command",
  2: "aborted by a reset",
  3: "aborted: the namespace went",
  4: "aborted by a format",
  8: "aborted, for an unknown reason",
  9: "aborted by a sanitize",
};

export interface NvmeSelfTests {
  /** Percent of the one that runs; null: none does. */
  readonly running: number | null;
  /** The newest that ended. */
  readonly last: SelfTest | null;
}

/** The log page 06h. */
export function decodeNvmeSelfTests(bytes: Uint8Array): NvmeSelfTests | undefined {
  if (bytes.length < 4 + 28) return undefined;
  const view = viewOf(bytes);
  const current = view.getUint8(0) & 0xf;
  const running = current === 0 ? null : view.getUint8(1) & 0x7f;
  return { running, last: selfTestAt(view, 4) };
}

function selfTestAt(view: DataView, offset: number): SelfTest | null {
  const status = view.getUint8(offset);
  const result = status & 0xf;
  if (result === 0xf || status === 0) return null;
  const failure = selfTestFailures[result];
  const segment = result === 7 ? ` ${view.getUint8(offset + 1)}` : "";
  const base = {
    kind: selfTestKinds[status >> 4] ?? "other",
    power_on_hours: clampedCount(view.getBigUint64(offset + 4, true)),
  } as const;
  if (result === 0) return { ...base, result: "passed", detail: "completed without error" };
  if (failure !== undefined) return { ...base, result: "failed", detail: `${failure}${segment}` };
  return { ...base, result: "aborted", detail: selfTestAborts[result] ?? `result ${result}` };
}
