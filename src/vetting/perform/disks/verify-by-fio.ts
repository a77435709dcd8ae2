import { monotonicNow } from "../../../event-loop/clock.ts";
import type { Region } from "../../stages/regions.ts";
import type { Pass, TaskEngine } from "../../tasks/disk.ts";
import { WRITING_PART } from "../../tasks/verify.ts";
import { wholeBlocks } from "../tasks/scan.ts";
import type { VerificationOptions } from "../tasks/verify.ts";
import type { OpenDisk } from "./planned-disk.ts";
import { type FioRun, runFio } from "./run-fio.ts";

const noPass: Pass = {
  ...{ planned_bytes: 0, done_bytes: 0, duration_ms: 0, slowest_ms: 0, slowest_offset: null },
  latency_ms: { p50: 0, p90: 0, p99: 0, p999: 0 },
  failed: { count: 0, bytes: 0, ranges: [] },
};

/**
 * Both ways over a disk that may be written, by fio: a run for each, so that fio keeps no list of
 * what it wrote. The pattern has this run's nonce in it: an earlier run's bytes are wrong.
 */
export class FioVerification {
  readonly #disk: OpenDisk;
  readonly #options: VerificationOptions;
  readonly #blockBytes: number;
  readonly #begun = monotonicNow();
  engine: TaskEngine = { name: "fio", version: null };
  /** How far the disk was written, which is what can be read back. */
  #reached = 0;

  constructor(disk: OpenDisk, options: VerificationOptions) {
    this.#disk = disk;
    this.#options = options;
    this.#blockBytes = wholeBlocks(options.input.block_bytes);
  }

  /** @throws TaskRefused as `runFio` does */
  async write(): Promise<Pass> {
    const { size } = this.#disk;
    const { pass } = await this.#go("write", { offset: 0, length: size }, WRITING_PART);
    const { done_bytes: done } = pass;
    // It writes in order: where it was to end, what it has written is the beginning of the disk.
    this.#reached = done === size ? size : done - (done % this.#blockBytes);
    this.#tell(done);
    return pass;
  }

  async readBack(): Promise<{ read: Pass; miscompared: number }> {
    if (this.#reached === 0) return { read: noPass, miscompared: 0 };
    const { pass: read, miscompared } = await this.#go(
      "read",
      { offset: 0, length: this.#reached },
      1,
    );
    this.#tell(this.#disk.size + read.done_bytes);
    return { read, miscompared };
  }

  #tell(done: number): void {
    this.#options.context.tell({ kind: "progress", done, total: this.#disk.size * 2 });
  }

  /** @param part of the time that there is for both ways, when this one has to have ended */
  async #go(way: "read" | "write", region: Region, part: number): Promise<FioRun> {
    const { input, nonce, context } = this.#options;
    const run = await runFio(
      {
        descriptor: this.#disk.descriptor,
        regions: [region],
        blockBytes: this.#blockBytes,
        depth: input.depth,
        way,
        pattern: nonce,
        until: this.#begun + input.most_s * 1_000 * part,
      },
      context,
    );
    this.engine = run.engine;
    return run;
  }
}
