import type { NvmeAnswer, NvmeCommand } from "../../../ffi/disk-commands.ts";
import { errnoName } from "../../../ffi/system-call-error.ts";
import type { AskedDisk, SelfTestState } from "./asked-disk.ts";
import { type DiskHealth, untoldHealth, withUnseen } from "./health.ts";
import {
  decodeNvmeController,
  decodeNvmeErrors,
  decodeNvmeHealth,
  decodeNvmeSelfTests,
  type NvmeController,
  type NvmeSelfTests,
  nvmeSizes,
} from "./nvme-logs.ts";

/** Sends a command to a controller and waits for its answer: `nvmeAdmin`, or a test. */
export type NvmeAsk = (command: NvmeCommand) => NvmeAnswer;

const opcodes = { logPage: 0x02, identify: 0x06, selfTest: 0x14 } as const;
const ALL_NAMESPACES = 0xffff_ffff;
const logs = { errors: 0x01, health: 0x02, selfTest: 0x06 } as const;

/** An NVMe disk, asked by itself: Identify Controller and three logs. */
export class NvmeDisk implements AskedDisk {
  readonly #ask: NvmeAsk;

  constructor(ask: NvmeAsk) {
    this.#ask = ask;
  }

  health(): DiskHealth {
    const controller = this.#controller();
    const page = this.#log(logs.health, nvmeSizes.health);
    const told = typeof page === "string" ? undefined : decodeNvmeHealth(page);
    const refusal = typeof page === "string" ? page : "its health page is no answer";
    const known = typeof controller === "string" ? undefined : controller;
    const tests = this.#selfTests(known);
    const health: DiskHealth = {
      ...(told ?? untoldHealth("nvme")),
      model: known?.model ?? null,
      serial: known?.serial ?? null,
      firmware: known?.firmware ?? null,
      self_test: typeof tests === "string" ? null : tests.last,
      unseen: [{ property: "disk.self-test", reason: selfTestReason(tests) }],
    };
    return withUnseen(health, told === undefined ? refusal : "the disk does not tell it");
  }

  /** The newest errors of its own log, for people. */
  errors(): readonly string[] {
    const controller = this.#controller();
    if (typeof controller === "string") return [];
    const entries = Math.min(controller.errorEntries, 64);
    const page = this.#log(logs.errors, entries * nvmeSizes.errorEntry);
    if (typeof page === "string") return [];
    return decodeNvmeErrors(page).map(
      ({ number, status, block }) => `error ${number}: status 0x${status.toString(16)}, ${block}`,
    );
  }

  start(kind: "short" | "extended"): string | undefined {
    const controller = this.#controller();
    if (typeof controller === "string") return controller;
    if (!controller.hasSelfTest) return "the controller has no self-test";
    const dword10 = kind === "short" ? 1 : 2;
    const command = { opcode: opcodes.selfTest, namespace: ALL_NAMESPACES, dword10, answer: 0 };
    const answer = this.#ask(command);
    return answer.kind === "answer" ? undefined : refusalOf(answer);
  }

  state(): SelfTestState {
    const tests = this.#selfTests(undefined);
    if (typeof tests === "string") return { kind: "unknown", reason: tests };
    return tests.running === null ? { kind: "ended" } : { kind: "running", percent: tests.running };
  }

  #controller(): NvmeController | string {
    const answer = this.#ask({
      opcode: opcodes.identify,
      namespace: 0,
      dword10: 1,
      answer: nvmeSizes.identify,
    });
    if (answer.kind !== "answer") return refusalOf(answer);
    return decodeNvmeController(answer.bytes) ?? "its identity is no answer";
  }

  #selfTests(controller: NvmeController | undefined): NvmeSelfTests | string {
    if (controller !== undefined && !controller.hasSelfTest) {
      return "the controller has no self-test";
    }
    const page = this.#log(logs.selfTest, nvmeSizes.selfTestLog);
    if (typeof page === "string") return page;
    return decodeNvmeSelfTests(page) ?? "its self-test log is no answer";
  }

  /** @returns why there is no page */
  #log(page: number, size: number): Uint8Array | string {
    const answer = this.#ask({
      opcode: opcodes.logPage,
      namespace: ALL_NAMESPACES,
      // The lower half of how many words of 32 bits, less one.
      dword10: ((((size / 4 - 1) & 0xffff) << 16) | page) >>> 0,
      answer: size,
    });
    return answer.kind === "answer" ? answer.bytes : refusalOf(answer);
  }
}

function selfTestReason(tests: NvmeSelfTests | string): string {
  return typeof tests === "string" ? tests : "no self-test was run";
}

function refusalOf(answer: Exclude<NvmeAnswer, { readonly kind: "answer" }>): string {
  if (answer.kind === "status") return `the controller answers 0x${answer.status.toString(16)}`;
  return `the kernel refuses the command: ${errnoName(answer.errno)}`;
}
