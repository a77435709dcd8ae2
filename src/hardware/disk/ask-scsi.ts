import type { ScsiAnswer } from "../../../ffi/disk-commands.ts";
import { errnoName } from "../../../ffi/system-call-error.ts";
import { AtaDisk } from "./ask-ata.ts";
import type { AskedDisk, ScsiAsk, SelfTestState } from "./asked-disk.ts";
import { type DiskHealth, untoldHealth, withUnseen } from "./health.ts";
import {
  decodeDefectCount,
  decodeInquiry,
  decodeLogPage,
  decodePageList,
  decodeSense,
  decodeSerialPage,
  newestSelfTest,
  type ScsiIdentity,
  scsiHealth,
} from "./scsi-data.ts";

/** Answers of 252 bytes come from the oldest disk that there is. */
const SHORT_ANSWER = 252;
const LONG_ANSWER = 4_096;
const ATA_INFORMATION = 0x89;
/** Pages of its log. */
const SELF_TESTS = 0x10;
const EXCEPTIONS = 0x2f;

/**
 * Whatever answers to SCSI's commands: an ATA disk where it says that it is one, which bridges do
 * by their vendor or their page 89h, else a SCSI disk. ATA's commands go to no other: some bridges
 * hang by them.
 */
export function scsiOrAtaDisk(ask: ScsiAsk): AskedDisk | string {
  const inquiry = ask({ block: [0x12, 0, 0, 0, 96, 0], answer: 96 });
  if (inquiry.kind !== "answer" || inquiry.status !== 0) return refusalOf(inquiry);
  const identity = decodeInquiry(inquiry.bytes);
  if (identity === undefined) return "its INQUIRY is no answer";
  const pages = decodePageList(productPage(ask, 0));
  const isAta = identity.vendor === "ATA" || pages.includes(ATA_INFORMATION);
  return isAta ? new AtaDisk(ask) : new ScsiDisk(ask, identity);
}

function productPage(ask: ScsiAsk, page: number): Uint8Array {
  const answer = ask({ block: [0x12, 1, page, 0, SHORT_ANSWER, 0], answer: SHORT_ANSWER });
  return bytesOf(answer);
}

/** None where the disk refuses. */
function bytesOf(answer: ScsiAnswer): Uint8Array {
  return answer.kind === "answer" && answer.status === 0 ? answer.bytes : new Uint8Array(0);
}

export class ScsiDisk implements AskedDisk {
  readonly #ask: ScsiAsk;
  readonly #identity: ScsiIdentity;

  constructor(ask: ScsiAsk, identity: ScsiIdentity) {
    this.#ask = ask;
    this.#identity = identity;
  }

  health(): DiskHealth {
    const log = (page: number, part = 0) => this.#log(page, part);
    const asked = this.#logSense(EXCEPTIONS, 0);
    const exceptions = decodeLogPage(bytesOf(asked), EXCEPTIONS);
    const health = scsiHealth({
      identity: this.#identity,
      serial: decodeSerialPage(productPage(this.#ask, 0x80)),
      write: log(0x02),
      read: log(0x03),
      verify: log(0x05),
      temperature: log(0x0d),
      selfTests: log(SELF_TESTS),
      solidState: log(0x11),
      pendingDefects: log(0x15, 1),
      exceptions,
      grownDefects: this.#grownDefects(),
    });
    const reason = "the disk has no such page";
    return withUnseen(health, exceptions === undefined ? refusalOf(asked) : reason);
  }

  /** SEND DIAGNOSTIC, in the background: 1 short, 2 extended. */
  start(kind: "short" | "extended"): string | undefined {
    const code = kind === "short" ? 1 : 2;
    const answer = this.#ask({ block: [0x1d, code << 5, 0, 0, 0, 0], answer: 0 });
    return answer.kind === "answer" && answer.status === 0 ? undefined : refusalOf(answer);
  }

  state(): SelfTestState {
    const test = newestSelfTest(this.#log(SELF_TESTS, 0));
    if (test?.result === "running") return { kind: "running", percent: 0 };
    return test === null ? { kind: "unknown", reason: "it has no log of them" } : { kind: "ended" };
  }

  #logSense(page: number, part: number): ScsiAnswer {
    // Cumulative values; the parameters from the first on.
    const block = [0x4d, 0, 0x40 | page, part, 0, 0, 0, LONG_ANSWER >> 8, LONG_ANSWER & 0xff, 0];
    return this.#ask({ block, answer: LONG_ANSWER });
  }

  #log(page: number, part: number) {
    return decodeLogPage(bytesOf(this.#logSense(page, part)), page);
  }

  /** READ DEFECT DATA (12): the header of the grown list, in its long format. */
  #grownDefects(): number | null {
    const block = [0xb7, 0x08 | 0x05, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    const answer = this.#ask({ block, answer: 8 });
    return answer.kind === "answer" && answer.status === 0 ? decodeDefectCount(answer.bytes) : null;
  }
}

/** Why a command has no answer; of one that has, that it has none of use. */
export function refusalOf(answer: ScsiAnswer): string {
  if (answer.kind === "refused") return `the kernel refuses: ${errnoName(answer.errno)}`;
  if (answer.kind === "transport") {
    return `nothing came back: host 0x${answer.host.toString(16)}, driver ${answer.driver}`;
  }
  const sense = decodeSense(answer.sense);
  if (sense === undefined) return `the disk answers with status ${answer.status}`;
  const code = [sense.key, sense.code, sense.qualifier].map((part) => part.toString(16)).join("/");
  return `the disk refuses: sense ${code}`;
}

/** What is told of a disk that is asked nothing, with why. */
export function notAsked(reason: string): DiskHealth {
  return withUnseen(untoldHealth("none"), reason);
}
