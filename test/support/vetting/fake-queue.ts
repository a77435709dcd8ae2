/** A disk in memory: transfers fail where they are told to, and come back out of order. */
import type { Completion, Transfer } from "../../../ffi/direct-queue.ts";
import { Errno } from "../../../ffi/error-numbers.ts";
import type { BlockQueue } from "../../../src/vetting/perform/disks/disk-pass.ts";

export interface FakeDiskOptions {
  readonly size: number;
  readonly depth: number;
  readonly blockBytes: number;
  /** Bytes of the disk that cannot be had, as offset and length. */
  readonly bad?: readonly (readonly [number, number])[];
  /** From this transfer on the disk is not there any more. */
  readonly goneAfter?: number;
  /** Milliseconds on the clock that each transfer takes. */
  readonly takes?: (transfer: Transfer) => number;
}

export class FakeQueue implements BlockQueue {
  readonly depth: number;
  readonly bytes: Uint8Array;
  /** All that was asked of it. */
  readonly transfers: Transfer[] = [];
  mostUnderWay = 0;
  clock = 0;
  readonly #options: FakeDiskOptions;
  readonly #memory: readonly Uint8Array[];
  readonly #underWay = new Map<number, Transfer>();

  constructor(options: FakeDiskOptions) {
    this.#options = options;
    this.depth = options.depth + 1;
    this.bytes = new Uint8Array(options.size);
    this.#memory = Array.from({ length: this.depth }, () => new Uint8Array(options.blockBytes));
  }

  memory(slot: number): Uint8Array {
    const memory = this.#memory[slot];
    if (memory === undefined) throw new Error(`no slot ${slot}`);
    return memory;
  }

  submit(slot: number, transfer: Transfer): number {
    if (this.#underWay.has(slot)) throw new Error(`slot ${slot} is under way`);
    this.transfers.push(transfer);
    this.#underWay.set(slot, transfer);
    this.mostUnderWay = Math.max(this.mostUnderWay, this.#underWay.size);
    return 0;
  }

  /** The one that was asked for last comes first. */
  take(): Completion[] {
    const [slot, transfer] = [...this.#underWay].at(-1) ?? [];
    if (slot === undefined || transfer === undefined) throw new Error("nothing is under way");
    this.#underWay.delete(slot);
    this.clock += this.#options.takes?.(transfer) ?? 1;
    return [{ slot, result: this.#carryOut(slot, transfer) }];
  }

  #carryOut(slot: number, { way, offset, length }: Transfer): number {
    const { goneAfter = Number.POSITIVE_INFINITY, bad = [] } = this.#options;
    if (this.transfers.length > goneAfter) return -Errno.ENODEV;
    const isBad = bad.some(([start, size]) => offset < start + size && start < offset + length);
    if (isBad) return -Errno.EIO;
    const place = this.bytes.subarray(offset, offset + length);
    const memory = this.memory(slot).subarray(0, length);
    if (way === "read") memory.set(place);
    else place.set(memory);
    return length;
  }
}
