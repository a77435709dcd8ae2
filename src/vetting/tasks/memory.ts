import * as v from "valibot";

/** What the task `memory` is told and reports: a part of a NUMA node's memory, filled and read. */

export const MEMORY_TASK = "memory";

/** Each goes over all of the memory before the next one begins. */
export const memoryPatterns = [
  /** A window into random words that moves with each block: no two blocks near by are equal. */
  "random",
  /** Each page begins with its own address, and each word of it has its offset. */
  "address",
  "zeros",
  "ones",
  /** 0x55 and 0xaa, and the other way round. */
  "checkerboard",
  "inverse-checkerboard",
  /** One bit of each word set, or clear, which walks from word to word. */
  "walking-ones",
  "walking-zeros",
] as const;
export type MemoryPattern = (typeof memoryPatterns)[number];

export const memoryLimits = {
  /** Wrong words that are told one by one; all are counted. */
  miscompares: 64,
  nodes: 64,
  workersOfNode: 8,
} as const;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const seconds = v.pipe(v.number(), v.finite(), v.minValue(0));
/** Of a 64-bit word or address: "0x00007f31a2c00000". */
const word = v.pipe(v.string(), v.regex(/^0x[0-9a-f]{16}$/, "16 hexadecimal digits after 0x"));

export const memoryInputSchema = v.strictObject({
  /** Among the nodes that have memory, from 0. */
  node: v.pipe(count, v.maxValue(memoryLimits.nodes - 1)),
  /** Which of how many that share the node's memory. */
  worker: count,
  workers: v.pipe(count, v.minValue(1), v.maxValue(memoryLimits.workersOfNode)),
  /** Of the node's memory, all its workers together; and what stays free in any case. */
  part: v.pipe(v.number(), v.minValue(0), v.maxValue(1)),
  reserve_bytes: count,
  /** Of the random words. */
  seed: v.pipe(count, v.maxValue(0xffff_ffff)),
  /** No pass begins after so long. */
  most_s: seconds,
});
export type MemoryInput = v.InferOutput<typeof memoryInputSchema>;

export const memoryMiscompareSchema = v.strictObject({
  pattern: v.picklist(memoryPatterns),
  /** In the child's own memory: of the word, and of its page. */
  address: word,
  page: word,
  /** null: the kernel tells it to root alone. */
  physical: v.nullable(word),
  expected: word,
  found: word,
  xor: word,
  /** Read once more, when other memory had gone through the caches. */
  again: word,
  /** "sticky": still wrong. "transient": right this time, so it was read wrongly. */
  kind: v.picklist(["sticky", "transient"]),
});
export type MemoryMiscompare = v.InferOutput<typeof memoryMiscompareSchema>;

export const memoryReportSchema = v.strictObject({
  /** The kernel's numbers. */
  node: count,
  processor: count,
  /** What it had of this node, and how much of it every pattern was over and came back from. */
  bytes: count,
  verified_bytes: count,
  /** false: the kernel refused mlock, and says so here. */
  locked: v.boolean(),
  bound: v.boolean(),
  passes: v.pipe(
    v.array(
      v.strictObject({
        pattern: v.picklist(memoryPatterns),
        bytes: count,
        fill_s: seconds,
        verify_s: seconds,
      }),
    ),
    v.maxLength(memoryPatterns.length),
  ),
  /** Words, all of them. */
  miscompared: count,
  miscompares: v.pipe(v.array(memoryMiscompareSchema), v.maxLength(memoryLimits.miscompares)),
});
export type MemoryReport = v.InferOutput<typeof memoryReportSchema>;
