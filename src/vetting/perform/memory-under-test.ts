import { type MappedMemory, mapMemory } from "../../../ffi/mapped-memory.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import { nextTurn } from "../../store/files.ts";
import { randomWords } from "../random-words.ts";
import {
  type MemoryMiscompare,
  type MemoryPattern,
  memoryLimits,
  memoryPatterns,
} from "../tasks/memory.ts";

/**
 * Memory that is filled with a pattern and compared with it. What touches it are the C library's
 * memcpy and memcmp, a block at a time, so that it goes at the memory's own speed; the pattern
 * stands in a source that stays in the caches.
 */

/** Bytes. Small enough that the source stays near the processor, large enough to hide the call. */
export const BLOCK = 256 * 1024;
const PAGE = 4096;
/** Windows into the random words begin this far apart: two blocks are equal after 1,024 others. */
const STRIDE = 256;
/** What goes through the caches before a wrong word is read once more. */
const FLUSHED = 64 * 1024 ** 2;
/** A turn for others after so long. Milliseconds. */
const SLICE = 100;

export interface MemoryHooks {
  readonly signal: AbortSignal;
  /** Bytes gone over, of all that will be. */
  onProgress(done: number, total: number): void;
  /** Between a fill and its check; the hook of fault tests. */
  afterFill?(pattern: MemoryPattern, regions: readonly MappedMemory[]): void;
}

export interface MemoryPass {
  readonly pattern: MemoryPattern;
  readonly bytes: number;
  readonly fill_s: number;
  readonly verify_s: number;
}

/** What a region holds, and where: physical addresses are the kernel's to tell. */
export interface MemoryUnderTestOptions {
  /** Each a multiple of BLOCK. */
  readonly regions: readonly MappedMemory[];
  readonly seed: number;
  readonly physicalAddress: (address: number) => bigint | undefined;
}

export class MemoryUnderTest implements Disposable {
  readonly passes: MemoryPass[] = [];
  readonly miscompares: MemoryMiscompare[] = [];
  /** Words, all of them. */
  miscompared = 0;
  readonly #regions: readonly MappedMemory[];
  readonly #physicalAddress: MemoryUnderTestOptions["physicalAddress"];
  readonly #seed: number;
  /** The pattern, and one block more, so that a window into it may begin anywhere. */
  readonly #source = mapMemory(2 * BLOCK);
  readonly #scratch = mapMemory(BLOCK);

  constructor({ regions, seed, physicalAddress }: MemoryUnderTestOptions) {
    this.#regions = regions;
    this.#seed = seed;
    this.#physicalAddress = physicalAddress;
  }

  get bytes(): number {
    return this.#regions.reduce((sum, { size }) => sum + size, 0);
  }

  /** Bytes that every pattern was over, whether they came back or not. */
  get verifiedBytes(): number {
    return this.passes.length === memoryPatterns.length ? this.bytes : 0;
  }

  /** Every pattern over all of it; none that would end after `most` milliseconds. */
  async run(most: number, hooks: MemoryHooks): Promise<void> {
    const begin = monotonicNow();
    let longest = 0;
    for (const pattern of memoryPatterns) {
      const passed = monotonicNow() - begin;
      if (hooks.signal.aborted || passed + longest > most) return;
      await this.#pass(pattern, hooks);
      longest = Math.max(longest, monotonicNow() - begin - passed);
    }
  }

  async #pass(pattern: MemoryPattern, hooks: MemoryHooks): Promise<void> {
    this.#prepare(pattern);
    const total = memoryPatterns.length * 2 * this.bytes;
    const before = this.passes.length * 2 * this.bytes;
    const fill_s = await this.#eachBlock(hooks, (region, offset, index) => {
      region.copyFrom(this.#window(pattern, region, offset, index), { offset, size: BLOCK });
      if (offset === 0) hooks.onProgress(before + index * BLOCK, total);
    });
    if (hooks.signal.aborted) return;
    hooks.afterFill?.(pattern, this.#regions);
    const verify_s = await this.#eachBlock(hooks, (region, offset, index) => {
      const source = this.#window(pattern, region, offset, index);
      if (!region.equals(source, { offset, size: BLOCK })) {
        this.#miscompared(pattern, { region, offset, source: source - this.#source.address });
      }
      if (offset === 0) hooks.onProgress(before + this.bytes + index * BLOCK, total);
    });
    if (hooks.signal.aborted) return;
    this.passes.push({ pattern, bytes: this.bytes, fill_s, verify_s });
  }

  /** @returns the seconds that it took, without the turns of others */
  async #eachBlock(
    { signal }: MemoryHooks,
    work: (region: MappedMemory, offset: number, index: number) => void,
  ): Promise<number> {
    let index = 0;
    let spent = 0;
    let begin = monotonicNow();
    for (const region of this.#regions) {
      for (let offset = 0; offset < region.size; offset += BLOCK) {
        work(region, offset, index);
        index += 1;
        if (index % 16 !== 0 || monotonicNow() - begin < SLICE) continue;
        spent += monotonicNow() - begin;
        await nextTurn();
        if (signal.aborted) return spent / 1_000;
        begin = monotonicNow();
      }
    }
    return (spent + monotonicNow() - begin) / 1_000;
  }

  /** Where in the source the words of this block begin. */
  #window(pattern: MemoryPattern, region: MappedMemory, offset: number, index: number) {
    if (pattern === "random") return this.#source.at((index * STRIDE) % BLOCK);
    if (pattern === "address") this.#stamp(region.address + offset);
    return this.#source.address;
  }

  /** Each page of the block at this address begins with its own address. */
  #stamp(address: number): void {
    const words = this.#source.words();
    for (let at = 0; at < BLOCK; at += PAGE) {
      const page = address + at;
      words[at / 4] = page >>> 0;
      words[at / 4 + 1] = Math.floor(page / 0x1_0000_0000);
    }
  }

  #prepare(pattern: MemoryPattern): void {
    const words = this.#source.words();
    const random = randomWords(this.#seed);
    const pairOf: Record<MemoryPattern, (word: number) => readonly [number, number]> = {
      random: () => [random(), random()],
      address: (word) => [(word * 8) % BLOCK, 0],
      zeros: () => [0, 0],
      ones: () => [0xffff_ffff, 0xffff_ffff],
      checkerboard: (word) => (word % 2 === 0 ? [CHECKS, CHECKS] : [~CHECKS, ~CHECKS]),
      "inverse-checkerboard": (word) => (word % 2 === 1 ? [CHECKS, CHECKS] : [~CHECKS, ~CHECKS]),
      "walking-ones": (word) => oneBit(word % 64),
      "walking-zeros": (word) => {
        const [low, high] = oneBit(word % 64);
        return [~low, ~high];
      },
    };
    const pair = pairOf[pattern];
    for (let word = 0; word < words.length / 2; word += 1) {
      const [low, high] = pair(word);
      words[word * 2] = low;
      words[word * 2 + 1] = high;
    }
  }

  /** Finds the wrong words of a block, reads each once more, and tells as many as there is room. */
  #miscompared(
    pattern: MemoryPattern,
    block: { region: MappedMemory; offset: number; source: number },
  ): void {
    const { region, offset, source } = block;
    const found = region.words();
    const expected = this.#source.words();
    const wrong: { readonly at: number; readonly found: bigint }[] = [];
    let count = 0;
    for (let word = 0; word < BLOCK / 4; word += 2) {
      const [here, there] = [offset / 4 + word, source / 4 + word];
      if (found[here] === expected[there] && found[here + 1] === expected[there + 1]) continue;
      count += 1;
      const at = word * 4;
      if (this.miscompares.length + wrong.length >= memoryLimits.miscompares) continue;
      wrong.push({ at, found: region.wordAt(offset + at) });
    }
    // memcmp saw a difference that is not there any more: the first word stands for the block.
    if (count === 0) wrong.push({ at: 0, found: region.wordAt(offset) });
    this.miscompared += Math.max(1, count);
    if (wrong.length > 0) this.#flush(region, offset);
    for (const one of wrong) {
      if (this.miscompares.length >= memoryLimits.miscompares) return;
      this.miscompares.push(this.#describe(pattern, { ...block, ...one }));
    }
  }

  #describe(
    pattern: MemoryPattern,
    word: { region: MappedMemory; offset: number; source: number; at: number; found: bigint },
  ): MemoryMiscompare {
    const address = word.region.address + word.offset + word.at;
    const expected = this.#source.wordAt(word.source + word.at);
    const again = word.region.wordAt(word.offset + word.at);
    const physical = this.#physicalAddress(address);
    return {
      pattern,
      address: hexadecimal(BigInt(address)),
      page: hexadecimal(BigInt(address - (address % PAGE))),
      physical: physical === undefined ? null : hexadecimal(physical),
      expected: hexadecimal(expected),
      found: hexadecimal(word.found),
      xor: hexadecimal(expected ^ word.found),
      again: hexadecimal(again),
      kind: again === expected ? "transient" : "sticky",
    };
  }

  /** Has other memory go through the caches, so that the next read is one of the memory's. */
  #flush(besides: MappedMemory, offset: number): void {
    let left = FLUSHED;
    for (const region of this.#regions) {
      for (let at = 0; at < region.size && left > 0; at += BLOCK, left -= BLOCK) {
        if (region === besides && at === offset) continue;
        region.copyTo(this.#scratch.address, { offset: at, size: BLOCK });
      }
    }
  }

  /** Gives all of it back. */
  [Symbol.dispose](): void {
    for (const region of this.#regions) region[Symbol.dispose]();
    this.#source[Symbol.dispose]();
    this.#scratch[Symbol.dispose]();
  }
}

const CHECKS = 0x5555_5555;

/** A word with one bit set, as its low and its high half. */
function oneBit(bit: number): readonly [number, number] {
  return bit < 32 ? [1 << bit, 0] : [0, 1 << (bit - 32)];
}

const hexadecimal = (value: bigint) => `0x${value.toString(16).padStart(16, "0")}`;
