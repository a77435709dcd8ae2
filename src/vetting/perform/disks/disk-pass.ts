import type { Completion, Transfer } from "../../../../ffi/direct-queue.ts";
import { Errno, errnoName } from "../../../../ffi/system-call-error.ts";
import { nextTurn } from "../../../store/files.ts";
import type { MonotonicTime } from "../../../units/units.ts";
import type { Region } from "../../stages/regions.ts";
import type { FailedRange, Pass } from "../../tasks/disk.ts";
import { FailedRanges } from "./failed-ranges.ts";
import { Latencies } from "./latencies.ts";

/** What a pass needs of a DirectQueue: in tests a disk that fails where it is told to. */
export interface BlockQueue {
  readonly depth: number;
  memory(slot: number): Uint8Array;
  submit(slot: number, transfer: Transfer): number;
  take(atMost: number): Completion[];
}

export interface PassOptions {
  /** One slot more than transfers that are to be under way: it looks closer at what failed. */
  readonly queue: BlockQueue;
  readonly regions: readonly Region[];
  readonly blockBytes: number;
  readonly logicalBlock: number;
  readonly way: Transfer["way"];
  /** Before a write: fills the memory for these bytes of the disk. */
  readonly fill?: (memory: Uint8Array, offset: number) => void;
  /** After a read: what of it is not as it should be. */
  readonly examine?: (memory: Uint8Array, offset: number) => readonly FailedRange[];
  readonly now: () => MonotonicTime;
  readonly signal: AbortSignal;
  /** When it ends by itself, so that what it found is told. */
  readonly until: MonotonicTime;
  /** Bytes that came through whole. */
  readonly onProgress: (bytes: number) => void;
}

export const passLimits = {
  /** Transfers of smaller parts, for one block that failed and for all of them. */
  closerLooks: 64,
  closerLooksInAll: 4_096,
  /** Blocks one after the other that failed whole, after which the disk is given up. */
  failedInRow: 256,
} as const;

/** Milliseconds: how long a wait may keep the end of the input from being read. */
const WAIT = 100;
const PROGRESS_EVERY = 500;

/** The disk is not there any more: nothing else of it will be. */
const GONE: readonly number[] = [Errno.ENODEV, Errno.ENXIO];

interface Chunk {
  readonly offset: number;
  readonly length: number;
  readonly since: MonotonicTime;
}

/** Goes over regions of a disk, several transfers at a time, and bounds what fails. */
export class DiskPass {
  /** Ranges that `examine` found. */
  miscompared = 0;
  /** Where the first block begins that nobody asked for, in the order of the regions. */
  reached = 0;
  readonly #options: PassOptions;
  readonly #failed = new FailedRanges();
  readonly #latencies = new Latencies();
  readonly #underWay = new Map<number, Chunk>();
  /** Of a closer look, while which others came back. */
  readonly #waiting: Completion[] = [];
  readonly #chunks: Generator<{ offset: number; length: number }>;
  readonly #closerSlot: number;
  #planned = 0;
  #over = 0;
  #closerLooks = 0;
  #failedInRow = 0;
  #isGivenUp = false;

  constructor(options: PassOptions) {
    this.#options = options;
    this.#closerSlot = options.queue.depth - 1;
    this.#chunks = chunksOf(options.regions, options.blockBytes);
    for (const { length } of options.regions) this.#planned += length;
  }

  /** Ends early where it is to, or the disk is gone; what is under way is waited for. */
  async run(): Promise<Pass> {
    const { now, signal, until, onProgress } = this.#options;
    const begun = now();
    let told = begun;
    let turned = begun;
    this.#isGivenUp = signal.aborted;
    for (let slot = 0; slot < this.#closerSlot; slot++) this.#next(slot);
    while (this.#underWay.size > 0) {
      for (const completion of this.#take()) this.#complete(completion);
      const at = now();
      if (at - told >= PROGRESS_EVERY) {
        onProgress(this.#over - this.#failed.bytes);
        told = at;
      }
      if (at >= until) this.#isGivenUp = true;
      if (at - turned < WAIT) continue;
      await nextTurn();
      turned = now();
      if (signal.aborted) this.#isGivenUp = true;
    }
    onProgress(this.#over - this.#failed.bytes);
    return this.#report(now() - begun);
  }

  #report(duration: number): Pass {
    const failed = this.#failed.list();
    return {
      planned_bytes: this.#planned,
      done_bytes: this.#over - failed.bytes,
      duration_ms: duration,
      slowest_ms: this.#latencies.slowest,
      slowest_offset: this.#latencies.slowestOffset,
      latency_ms: this.#latencies.percentiles(),
      failed,
    };
  }

  #take(): Completion[] {
    const waiting = this.#waiting.splice(0);
    return waiting.length > 0 ? waiting : this.#options.queue.take(WAIT);
  }

  #next(slot: number): void {
    const { queue, way, fill, now } = this.#options;
    while (!this.#isGivenUp) {
      const { value: chunk, done } = this.#chunks.next();
      if (done === true) return;
      const { offset, length } = chunk;
      this.reached = offset + length;
      fill?.(queue.memory(slot).subarray(0, length), offset);
      const since = now();
      const refused = queue.submit(slot, { way, offset, length });
      if (refused === 0) {
        this.#underWay.set(slot, { offset, length, since });
        return;
      }
      this.#fail({ offset, length, since }, refused);
    }
  }

  #complete({ slot, result }: Completion): void {
    const chunk = this.#underWay.get(slot);
    if (chunk === undefined) throw new Error(`Bug: nobody waits for slot ${slot}`);
    this.#underWay.delete(slot);
    const { queue, now } = this.#options;
    if (result === chunk.length) {
      this.#latencies.add(now() - chunk.since, chunk.offset);
      this.#succeed(queue.memory(slot).subarray(0, chunk.length), chunk.offset);
      this.#failedInRow = 0;
    } else {
      this.#fail(chunk, result);
    }
    this.#next(slot);
  }

  #succeed(memory: Uint8Array, offset: number): void {
    this.#over += memory.length;
    for (const range of this.#options.examine?.(memory, offset) ?? []) {
      this.#failed.add(range);
      this.miscompared += 1;
    }
  }

  /** @param result minus the error number, or fewer bytes than were asked for */
  #fail(chunk: Chunk, result: number): void {
    const { now } = this.#options;
    const before = this.#failed.bytes;
    if (GONE.includes(-result)) {
      this.#isGivenUp = true;
      this.#giveUp(chunk.offset, chunk.length, result);
    } else {
      this.#lookCloser(chunk, result);
    }
    this.#latencies.add(now() - chunk.since, chunk.offset);
    const isWhole = this.#failed.bytes - before >= chunk.length;
    this.#failedInRow = isWhole ? this.#failedInRow + 1 : 0;
    if (this.#failedInRow >= passLimits.failedInRow) this.#isGivenUp = true;
  }

  #giveUp(offset: number, length: number, result: number): void {
    this.#over += length;
    this.#failed.add({ offset, length, reason: reasonOf(result) });
  }

  /** Halves, until what fails is a logical block, or enough was tried. */
  #lookCloser(chunk: { offset: number; length: number }, result: number): void {
    const { logicalBlock } = this.#options;
    const parts = [{ ...chunk, result }];
    let looks = 0;
    for (let part = parts.pop(); part !== undefined; part = parts.pop()) {
      const { offset, length } = part;
      const isEnough =
        looks + 2 > passLimits.closerLooks ||
        this.#closerLooks + 2 > passLimits.closerLooksInAll ||
        GONE.includes(-part.result);
      if (length <= logicalBlock || isEnough) {
        this.#giveUp(offset, length, part.result);
        continue;
      }
      const half = Math.ceil(length / 2 / logicalBlock) * logicalBlock;
      const halves = [
        { offset, length: half },
        { offset: offset + half, length: length - half },
      ];
      looks += halves.length;
      // The first half is looked at first: it is popped first.
      for (const one of halves.reverse()) {
        const again = this.#tryAgain(one);
        if (again !== one.length) parts.push({ ...one, result: again });
      }
    }
    this.#closerLooks += looks;
  }

  /** @returns the bytes that came through, or minus the error number */
  #tryAgain({ offset, length }: { offset: number; length: number }): number {
    const { queue, way, fill } = this.#options;
    const slot = this.#closerSlot;
    const memory = queue.memory(slot).subarray(0, length);
    fill?.(memory, offset);
    const refused = queue.submit(slot, { way, offset, length });
    if (refused !== 0) return refused;
    for (;;) {
      const taken = queue.take(WAIT);
      this.#waiting.push(...taken.filter((completion) => completion.slot !== slot));
      const own = taken.find((completion) => completion.slot === slot);
      if (own === undefined) continue;
      if (own.result === length) this.#succeed(memory, offset);
      return own.result;
    }
  }
}

function* chunksOf(
  regions: readonly Region[],
  blockBytes: number,
): Generator<{ offset: number; length: number }> {
  for (const { offset, length } of regions) {
    for (let at = 0; at < length; at += blockBytes) {
      yield { offset: offset + at, length: Math.min(blockBytes, length - at) };
    }
  }
}

const reasonOf = (result: number): string =>
  result < 0 ? errnoName(-result) : `only ${result} bytes came`;
