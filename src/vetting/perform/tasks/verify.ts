import { fsyncSync } from "node:fs";
import { DirectQueue } from "../../../../ffi/direct-queue.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import { HostTree } from "../../../hardware/host-tree.ts";
import { hostlerVersion } from "../../../units/version.ts";
import type { Region } from "../../stages/regions.ts";
import type { Pass, TaskEngine } from "../../tasks/disk.ts";
import {
  VERIFY_TASK,
  type VerifyInput,
  type VerifyReport,
  verifyInputSchema,
  verifyReportSchema,
  WRITING_PART,
} from "../../tasks/verify.ts";
import { DiskPass, type PassOptions } from "../disks/disk-pass.ts";
import { unlock } from "../disks/interlocks.ts";
import { MarkedBlocks, NONCE_BYTES, UNIT } from "../disks/marked-blocks.ts";
import type { OpenDisk } from "../disks/planned-disk.ts";
import { FioVerification } from "../disks/verify-by-fio.ts";
import { defineTask, type TaskContext } from "../task.ts";
import { wholeBlocks } from "./scan.ts";

/** Writes over a disk and reads it back, behind every interlock. What stood on it is gone. */
export const verifyTask = defineTask({
  name: VERIFY_TASK,
  input: verifyInputSchema,
  report: verifyReportSchema,
  run: (input, context) => verifyDisk(input, context, new HostTree()),
});

export async function verifyDisk(
  input: VerifyInput,
  context: TaskContext,
  tree: HostTree,
): Promise<VerifyReport> {
  const unlocked = unlock(input, tree);
  if (unlocked.kind === "refused") return { kind: "refused", closed: [...unlocked.closed] };
  using disk = unlocked.disk;
  const { overwritten } = unlocked;
  context.tell({ kind: "log", level: "warn", text: announcement(input, overwritten) });
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  const isByTool = input.engine === "tool";
  const over = new (isByTool ? FioVerification : Verification)(disk, { input, nonce, context });
  const written = await over.write();
  const { read, miscompared } = await over.readBack();
  return {
    kind: "verified",
    engine: over.engine,
    overwritten: [...overwritten],
    written,
    read,
    miscompared,
  };
}

function announcement({ disk }: VerifyInput, overwritten: readonly string[]): string {
  const what = overwritten.length === 0 ? "nothing known" : overwritten.join(", ");
  return `Writing over the disk ${disk.serial} (${disk.name}), which held ${what}`.slice(0, 512);
}

export interface VerificationOptions {
  readonly input: Pick<VerifyInput, "block_bytes" | "depth" | "most_s">;
  readonly nonce: Uint8Array;
  readonly context: TaskContext;
}

/** Both ways over a disk that may be written. */
export class Verification {
  readonly #disk: OpenDisk;
  readonly #options: VerificationOptions;
  readonly #blockBytes: number;
  readonly #blocks: MarkedBlocks;
  readonly engine: TaskEngine = { name: "hostler", version: hostlerVersion };
  readonly #begun = monotonicNow();
  /** How far the disk was written, which is what can be read back. */
  #reached = 0;

  constructor(disk: OpenDisk, options: VerificationOptions) {
    this.#disk = disk;
    this.#options = options;
    this.#blockBytes = wholeBlocks(options.input.block_bytes);
    this.#blocks = new MarkedBlocks(options.nonce, this.#blockBytes);
  }

  async write(): Promise<Pass> {
    const { pass, transfer: written } = await this.#go({
      regions: [{ offset: 0, length: this.#disk.size }],
      way: "write",
      fill: (memory, offset) => this.#blocks.fill(memory, offset),
      until: this.#begun + this.#most * WRITING_PART,
      onProgress: (done) => this.#tell(done),
    });
    this.#reached = pass.reached;
    return this.#flush(written);
  }

  /** A disk that cannot keep what it took has taken nothing. */
  #flush(written: Pass): Pass {
    try {
      fsyncSync(this.#disk.descriptor.number);
      return written;
    } catch (error) {
      const reason = `the disk could not keep it: ${String(error)}`.slice(0, 256);
      const length = Math.max(1, this.#reached);
      const ranges = [{ offset: 0, length, reason }, ...written.failed.ranges].slice(0, 64);
      const failed = { count: written.failed.count + 1, bytes: length, ranges };
      return { ...written, done_bytes: 0, failed };
    }
  }

  async readBack(): Promise<{ read: Pass; miscompared: number }> {
    const regions: Region[] = this.#reached === 0 ? [] : [{ offset: 0, length: this.#reached }];
    const { pass, transfer: read } = await this.#go({
      regions,
      way: "read",
      examine: (memory, offset) => this.#blocks.examine(memory, offset),
      until: this.#begun + this.#most,
      onProgress: (done) => this.#tell(this.#disk.size + done),
    });
    return { read, miscompared: pass.miscompared };
  }

  get #most(): number {
    return this.#options.input.most_s * 1_000;
  }

  #tell(done: number): void {
    this.#options.context.tell({ kind: "progress", done, total: this.#disk.size * 2 });
  }

  async #go(
    part: Pick<PassOptions, "regions" | "way" | "fill" | "examine" | "until" | "onProgress">,
  ): Promise<{ pass: DiskPass; transfer: Pass }> {
    const { input, context } = this.#options;
    const blockBytes = this.#blockBytes;
    using queue = new DirectQueue(this.#disk.descriptor, { depth: input.depth + 1, blockBytes });
    const pass = new DiskPass({
      ...part,
      queue,
      blockBytes,
      // A unit is whole or it is not: nothing smaller is written.
      logicalBlock: Math.max(UNIT, this.#disk.logicalBlock),
      now: monotonicNow,
      signal: context.signal,
    });
    return { pass, transfer: await pass.run() };
  }
}
