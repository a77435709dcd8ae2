import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { type MappedMemory, mapMemory } from "../../../ffi/mapped-memory.ts";
import { memoryNodes, physicalAddress } from "../../../src/vetting/perform/memory-nodes.ts";
import {
  BLOCK,
  type MemoryHooks,
  MemoryUnderTest,
} from "../../../src/vetting/perform/memory-under-test.ts";
import { parseNumbers } from "../../../src/vetting/processor-list.ts";
import {
  type MemoryPattern,
  memoryLimits,
  memoryMiscompareSchema,
  memoryPatterns,
} from "../../../src/vetting/tasks/memory.ts";
import { SeededChance } from "../../support/chance.ts";

const REGION = 4 * BLOCK;

function underTest(regions = 2) {
  return new MemoryUnderTest({
    regions: Array.from({ length: regions }, () => mapMemory(REGION)),
    seed: 7,
    physicalAddress,
  });
}

const hooks = (parts: Partial<MemoryHooks> = {}): MemoryHooks => ({
  signal: new AbortController().signal,
  onProgress: () => undefined,
  ...parts,
});

/** Flips a bit, counted over the bits of all regions. */
function flip(regions: readonly MappedMemory[], bit: number): void {
  const words = regions[Math.floor(bit / (REGION * 8))]?.words();
  if (words === undefined) throw new Error(`No bit ${bit}`);
  const at = Math.floor((bit % (REGION * 8)) / 32);
  words[at] = (words[at] ?? 0) ^ (1 << (bit % 32));
}

describe("memory under test", () => {
  test("memory that is well comes back in every pattern", async () => {
    using memory = underTest();
    await memory.run(60_000, hooks());
    expect(memory.passes.map(({ pattern }) => pattern)).toEqual([...memoryPatterns]);
    expect(memory.miscompared).toBe(0);
    expect(memory.verifiedBytes).toBe(2 * REGION);
  });

  test("a bit that flips is found, wherever and in whatever pattern: 400 of 400", async () => {
    const chance = new SeededChance(20_261_130);
    const bits = new Map<MemoryPattern, Set<number>>();
    for (const pattern of memoryPatterns) {
      const drawn = new Set([0, 2 * REGION * 8 - 1]);
      while (drawn.size < 50) drawn.add(chance.below(2 * REGION * 8));
      bits.set(pattern, drawn);
    }
    using memory = underTest();
    const wordsOf = (drawn: Iterable<number>) =>
      new Set([...drawn].map((bit) => Math.floor(bit / 64))).size;
    let words = 0;
    await memory.run(
      60_000,
      hooks({
        afterFill: (pattern, regions) => {
          const drawn = bits.get(pattern) ?? [];
          for (const bit of drawn) flip(regions, bit);
          words += wordsOf(drawn);
        },
      }),
    );
    expect(memory.miscompared).toBe(words);
    expect(memory.miscompares).toHaveLength(memoryLimits.miscompares);
  });

  test("a wrong word is told with its place, what it is, and what it was to be", async () => {
    using memory = underTest();
    let address = 0;
    await memory.run(
      60_000,
      hooks({
        afterFill: (pattern, regions) => {
          if (pattern !== "ones") return;
          address = Number(regions[1]?.address) + BLOCK + 8 * 1_000;
          flip(regions, (REGION + BLOCK + 8 * 1_000) * 8 + 33);
        },
      }),
    );
    const [one] = memory.miscompares;
    expect(v.is(memoryMiscompareSchema, one)).toBe(true);
    expect(one).toMatchObject({
      pattern: "ones",
      address: `0x${address.toString(16).padStart(16, "0")}`,
      page: `0x${(address - (address % 4096)).toString(16).padStart(16, "0")}`,
      ...{ expected: "0xffffffffffffffff", found: "0xfffffffdffffffff" },
      ...{ xor: "0x0000000200000000", again: "0xfffffffdffffffff", kind: "sticky" },
    });
    if (process.getuid?.() === 0) expect(one?.physical?.slice(-3)).toBe(one?.address.slice(-3));
  });

  test("blocks in each other's place are found by random words, and by addresses", async () => {
    using memory = underTest();
    await memory.run(
      60_000,
      hooks({
        afterFill: (_, [first, second]) => {
          if (first === undefined || second === undefined) throw new Error("Expected two regions");
          using between = mapMemory(BLOCK);
          const range = { offset: 0, size: BLOCK };
          first.copyTo(between.address, range);
          first.copyFrom(second.address, range);
          second.copyFrom(between.address, range);
        },
      }),
    );
    expect(new Set(memory.miscompares.map(({ pattern }) => pattern))).toEqual(new Set(["random"]));
    const pages = (2 * BLOCK) / 4096;
    expect(memory.miscompared).toBeGreaterThan(pages);
    // Addresses: the first word of each page of both.
    expect(memory.miscompared - pages).toBeLessThanOrEqual((2 * BLOCK) / 8);
  });

  test("no pass begins that would end too late, and nothing counts as verified then", async () => {
    using memory = underTest();
    await memory.run(0, hooks());
    expect(memory.passes.length).toBeLessThan(memoryPatterns.length);
    expect(memory.verifiedBytes).toBe(0);
  });

  test("it stops where it is told to", async () => {
    using memory = underTest();
    const stop = new AbortController();
    await memory.run(60_000, hooks({ signal: stop.signal, afterFill: () => stop.abort() }));
    expect([memory.passes, memory.verifiedBytes]).toEqual([[], 0]);
  });
});

describe("what the kernel says of memory", () => {
  test("lists of numbers", () => {
    expect(parseNumbers("0-3,8\n")).toEqual([0, 1, 2, 3, 8]);
    expect(parseNumbers("\n")).toEqual([]);
    for (const wrong of ["3-1", "a", "1,", "0-8192", "1-2-3", "-1"]) {
      expect(parseNumbers(wrong)).toBeUndefined();
    }
    expect(parseNumbers("0-8191")).toHaveLength(8_192);
  });

  test("this host has a node with memory and a processor", () => {
    const [node] = memoryNodes();
    expect(node?.bytes).toBeGreaterThan(0);
    expect(node?.processors.length).toBeGreaterThan(0);
  });
});
