import type { ScsiAnswer } from "../../../ffi/disk-commands.ts";
import type { AskedDisk, ScsiAsk, SelfTestState } from "./asked-disk.ts";
import {
  type AtaSmartData,
  ataHealth,
  decodeAtaIdentity,
  decodeAtaSelfTest,
  decodeAtaSmartData,
  decodeAtaStatistics,
  decodeAtaThresholds,
  noStatistics,
  statisticsPages,
} from "./ata-data.ts";
import { type DiskHealth, untoldHealth, withUnseen } from "./health.ts";
import { decodeSense, failingOf } from "./scsi-data.ts";

const SECTOR = 512;
const commands = { identify: 0xec, smart: 0xb0, readLogExtended: 0x2f } as const;
const features = {
  data: 0xd0,
  thresholds: 0xd1,
  execute: 0xd4,
  log: 0xd5,
  status: 0xda,
} as const;
const SELF_TEST_LOG = 0x06;
const STATISTICS_LOG = 0x04;

interface Registers {
  readonly command: number;
  readonly feature?: number;
  readonly count?: number;
  /** Bits 0 to 7 and 8 to 15 of the block's number; SMART has its key in those above. */
  readonly low?: number;
  readonly middle?: number;
  readonly high?: number;
  readonly answer: "sector" | "registers";
  readonly extended?: boolean;
}

/** ATA PASS-THROUGH (16), of SAT-3. */
function passThrough(registers: Registers): number[] {
  const NON_DATA = 3;
  const PIO_IN = 4;
  const isSector = registers.answer === "sector";
  const protocol = isSector ? PIO_IN : NON_DATA;
  // The answer's length stands in the count, in blocks, from the disk; or: the registers return.
  const transfer = isSector ? 0x0e : 0x20;
  const { feature = 0, count = 0, low = 0, middle = 0, high = 0 } = registers;
  return [
    0x85,
    (protocol << 1) | (registers.extended === true ? 1 : 0),
    transfer,
    0,
    feature,
    0,
    count,
    0,
    low,
    0,
    middle,
    0,
    high,
    0,
    registers.command,
    0,
  ];
}

const smart = (feature: number, more: Partial<Registers> = {}): Registers => ({
  command: commands.smart,
  feature,
  count: 1,
  middle: 0x4f,
  high: 0xc2,
  answer: "sector",
  ...more,
});

/** An ATA disk, through SCSI's pass-through. */
export class AtaDisk implements AskedDisk {
  readonly #ask: ScsiAsk;

  constructor(ask: ScsiAsk) {
    this.#ask = ask;
  }

  health(): DiskHealth {
    const sector = this.#sector({ command: commands.identify, count: 1, answer: "sector" });
    const identity = sector === undefined ? undefined : decodeAtaIdentity(sector);
    if (identity === undefined) {
      return withUnseen(untoldHealth("ata"), "it does not say what it is: no IDENTIFY DEVICE");
    }
    const base = { ...untoldHealth("ata"), model: identity.model, serial: identity.serial };
    if (!identity.hasSmart) return withUnseen(base, "the disk has no SMART");
    if (!identity.smartEnabled) return withUnseen(base, "SMART is switched off in the disk");
    const log = identity.hasSelfTest ? this.#selfTestLog() : undefined;
    const health = ataHealth({
      identity,
      failing: this.#failing(),
      data: this.#data(),
      thresholds: decoded(this.#sector(smart(features.thresholds)), decodeAtaThresholds),
      selfTest: log,
      statistics: identity.hasLogs ? this.#statistics() : noStatistics,
    });
    const reason = log === null ? "no self-test was run" : "the disk has no log of them";
    const unseen = [{ property: "disk.self-test" as const, reason }];
    return withUnseen({ ...health, unseen }, "the disk does not tell it");
  }

  start(kind: "short" | "extended"): string | undefined {
    const low = kind === "short" ? 1 : 2;
    const order = smart(features.execute, { low, count: 0, answer: "registers" });
    const answer = this.#ask({ block: passThrough(order), answer: 0 });
    if (answer.kind !== "answer") return "the command does not come to the disk";
    const sense = decodeSense(answer.sense);
    // The disk's status has its lowest bit set where it refused.
    const isRefused = answer.status !== 0 && (sense?.ata === null || sense === undefined);
    return isRefused || ((sense?.ata?.status ?? 0) & 1) === 1 ? "the disk refuses it" : undefined;
  }

  state(): SelfTestState {
    const data = this.#data();
    if (data === undefined) return { kind: "unknown", reason: "it does not tell its SMART data" };
    if (data.selfTestStatus !== 0xf) return { kind: "ended" };
    return { kind: "running", percent: 100 - data.selfTestLeft * 10 };
  }

  #data(): AtaSmartData | undefined {
    return decoded(this.#sector(smart(features.data)), decodeAtaSmartData);
  }

  #failing(): boolean | null {
    const order = smart(features.status, { count: 0, answer: "registers" });
    const answer = this.#ask({ block: passThrough(order), answer: 0 });
    return answer.kind === "answer" ? failingOf(decodeSense(answer.sense)) : null;
  }

  #selfTestLog() {
    return decoded(this.#sector(smart(features.log, { low: SELF_TEST_LOG })), decodeAtaSelfTest);
  }

  #statistics() {
    const pages = new Map<number, Uint8Array>();
    for (const page of statisticsPages) {
      const sector = this.#sector({
        command: commands.readLogExtended,
        count: 1,
        low: STATISTICS_LOG,
        middle: page,
        answer: "sector",
        extended: true,
      });
      if (sector !== undefined) pages.set(page, sector);
    }
    return decodeAtaStatistics(pages);
  }

  /** undefined where it is none: a command that a disk does not have, a bridge that drops it. */
  #sector(registers: Registers): Uint8Array | undefined {
    const answer: ScsiAnswer = this.#ask({ block: passThrough(registers), answer: SECTOR });
    if (answer.kind !== "answer" || answer.bytes.length < SECTOR) return undefined;
    const sense = decodeSense(answer.sense);
    if (answer.status !== 0 && ((sense?.ata?.status ?? 1) & 1) === 1) return undefined;
    return answer.bytes;
  }
}

function decoded<Value>(
  sector: Uint8Array | undefined,
  decode: (bytes: Uint8Array) => Value | undefined,
): Value | undefined {
  return sector === undefined ? undefined : decode(sector);
}
