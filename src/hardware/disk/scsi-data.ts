import { type DiskHealth, type SelfTest, untoldHealth } from "./health.ts";
import { asciiOf, clampedCount, viewOf } from "./octets.ts";

/**
 * What a SCSI disk tells, as bytes, all of them big-endian: SPC-4 (INQUIRY, LOG SENSE), SBC-3
 * (defect lists, solid state media), SAT-3 (what an ATA disk behind SCSI returns). Pure.
 */

export interface ScsiIdentity {
  readonly vendor: string | null;
  readonly model: string | null;
  readonly revision: string | null;
  /** 0: a disk. */
  readonly kind: number;
}

export function decodeInquiry(bytes: Uint8Array): ScsiIdentity | undefined {
  if (bytes.length < 36 || bytes.every((byte) => byte === 0)) return undefined;
  return {
    kind: (bytes[0] ?? 0) & 0x1f,
    vendor: asciiOf(bytes, 8, 8),
    model: asciiOf(bytes, 16, 16),
    revision: asciiOf(bytes, 32, 4),
  };
}

/** The vital product data page 80h. */
export function decodeSerialPage(bytes: Uint8Array): string | null {
  if (bytes.length < 4 || bytes[1] !== 0x80) return null;
  return asciiOf(bytes, 4, viewOf(bytes).getUint16(2));
}

/** The page 00h: which pages there are. */
export function decodePageList(bytes: Uint8Array): readonly number[] {
  if (bytes.length < 4 || bytes[1] !== 0) return [];
  return [...bytes.subarray(4, 4 + viewOf(bytes).getUint16(2))];
}

/** Parameters of a log page by their code, each its own bytes. undefined: it is another page. */
export function decodeLogPage(
  bytes: Uint8Array,
  page: number,
): ReadonlyMap<number, Uint8Array> | undefined {
  if (bytes.length < 4 || ((bytes[0] ?? 0) & 0x3f) !== page) return undefined;
  const view = viewOf(bytes);
  const end = Math.min(bytes.length, 4 + view.getUint16(2));
  const parameters = new Map<number, Uint8Array>();
  for (let at = 4; at + 4 <= end; ) {
    const length = view.getUint8(at + 3);
    if (at + 4 + length > end) break;
    parameters.set(view.getUint16(at), bytes.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return parameters;
}

type Parameters = ReadonlyMap<number, Uint8Array> | undefined;

/** At most 8 bytes as a count. */
function countOf(bytes: Uint8Array | undefined): number | null {
  if (bytes === undefined || bytes.length === 0 || bytes.length > 8) return null;
  return clampedCount(bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n));
}

export interface ScsiAnswers {
  readonly identity: ScsiIdentity;
  readonly serial: string | null;
  /** Log pages: 02h, 03h, 05h error counters; 0Dh; 10h; 11h; 15h/01h pending; 2Fh. */
  readonly write: Parameters;
  readonly read: Parameters;
  readonly verify: Parameters;
  readonly temperature: Parameters;
  readonly selfTests: Parameters;
  readonly solidState: Parameters;
  readonly pendingDefects: Parameters;
  readonly exceptions: Parameters;
  /** Entries of the grown defect list. */
  readonly grownDefects: number | null;
}

/** Additional sense codes of informational exceptions that say the disk is well. */
const HEALTHY = 0x00;
/** A warning: of temperature (0Bh/01h), for one. */
const WARNING = 0x0b;
/** A threshold was passed: the disk expects to fail. */
const FAILURE_PREDICTED = 0x5d;

export function scsiHealth(answers: ScsiAnswers): DiskHealth {
  const { identity } = answers;
  const exception = answers.exceptions?.get(0);
  const code = exception === undefined || exception.length < 2 ? null : (exception[0] ?? 0);
  const temperature = answers.temperature?.get(0)?.[1] ?? exception?.[2] ?? 0xff;
  const counters = [answers.read, answers.write, answers.verify];
  const uncorrected = counters.flatMap((page) => countOf(page?.get(6)) ?? []);
  const used = answers.solidState?.get(1);
  return {
    ...untoldHealth("scsi"),
    model: [identity.vendor, identity.model].filter((word) => word !== null).join(" ") || null,
    serial: answers.serial,
    firmware: identity.revision,
    healthy: code === null ? null : isHealthy(code),
    media_errors: uncorrected.length === 0 ? null : uncorrected.reduce((sum, one) => sum + one, 0),
    used_percent: used === undefined || used.length < 4 ? null : (used[3] ?? 0),
    pending_sectors: countOf(answers.pendingDefects?.get(0)),
    reallocated_sectors: answers.grownDefects,
    temperature_c: temperature === 0xff ? null : temperature,
    self_test: newestSelfTest(answers.selfTests),
  };
}

/** Codes other than these are of events that have nothing to do with the disk's health. */
function isHealthy(code: number): boolean {
  return code === HEALTHY || (code !== WARNING && code !== FAILURE_PREDICTED);
}

const selfTestKinds: Readonly<Record<number, SelfTest["kind"]>> = {
  1: "short",
  2: "extended",
  5: "short",
  6: "extended",
};
const selfTestFailures: Readonly<Record<number, string>> = {
  3: "an unknown error: it could not complete",
  4: "failed, in a segment that is not known",
  5: "failed, in its first segment",
  6: "failed, in its second segment",
  7: "failed, in another segment",
};

/** The newest of the page 10h; null: it has none. */
export const newestSelfTest = (page: Parameters): SelfTest | null => selfTestOf(page?.get(1));

/** A parameter of the page 10h, which has 16 bytes. */
function selfTestOf(bytes: Uint8Array | undefined): SelfTest | null {
  if (bytes === undefined || bytes.length < 16) return null;
  const status = bytes[0] ?? 0;
  const result = status & 0xf;
  const hours = viewOf(bytes).getUint16(2);
  // An entry that was never written is all zero.
  if (status === 0 && hours === 0) return null;
  const base = { kind: selfTestKinds[status >> 5] ?? "other", power_on_hours: hours } as const;
  if (result === 0) return { ...base, result: "passed", detail: "completed without error" };
  if (result === 0xf) return { ...base, result: "running", detail: "in progress" };
  const failure = selfTestFailures[result];
  if (failure !== undefined) return { ...base, result: "failed", detail: failure };
  return { ...base, result: "aborted", detail: result === 1 ? "aborted" : `result ${result}` };
}

/** READ DEFECT DATA (12): how many there are. null: the answer is none. */
export function decodeDefectCount(bytes: Uint8Array): number | null {
  if (bytes.length < 8) return null;
  const format = (bytes[1] ?? 0) & 7;
  const sizes: Readonly<Record<number, number>> = { 0: 4, 3: 8, 4: 8, 5: 8 };
  const size = sizes[format];
  return size === undefined ? null : Math.floor(viewOf(bytes).getUint32(4) / size);
}

export interface Sense {
  readonly key: number;
  readonly code: number;
  readonly qualifier: number;
  /** What an ATA command left in its registers, where SAT tells it. */
  readonly ata: { readonly status: number; readonly middle: number; readonly high: number } | null;
}

/** Sense data: fixed (70h, 71h) or with descriptors (72h, 73h). */
export function decodeSense(bytes: Uint8Array): Sense | undefined {
  const format = (bytes[0] ?? 0) & 0x7f;
  const at = (index: number): number => bytes[index] ?? 0;
  if (format === 0x72 || format === 0x73) {
    const sense = { key: at(1) & 0xf, code: at(2), qualifier: at(3) };
    const end = Math.min(bytes.length, 8 + at(7));
    for (let index = 8; index + 2 <= end; index += 2 + at(index + 1)) {
      if (at(index) !== 0x09 || index + 14 > bytes.length) continue;
      const ata = { status: at(index + 13), middle: at(index + 9), high: at(index + 11) };
      return { ...sense, ata };
    }
    return { ...sense, ata: null };
  }
  if (format !== 0x70 && format !== 0x71) return undefined;
  const sense = { key: at(2) & 0xf, code: at(12), qualifier: at(13) };
  // SAT: recovered error, "ATA pass-through information available".
  const isAta = sense.code === 0 && sense.qualifier === 0x1d;
  return { ...sense, ata: isAta ? { status: at(4), middle: at(10), high: at(11) } : null };
}

/** What SMART RETURN STATUS left behind: C2h and 4Fh are well, 2Ch and F4h failing. */
export function failingOf(sense: Sense | undefined): boolean | null {
  const ata = sense?.ata;
  if (ata === undefined || ata === null) return null;
  if (ata.middle === 0x4f && ata.high === 0xc2) return false;
  return ata.middle === 0xf4 && ata.high === 0x2c ? true : null;
}
