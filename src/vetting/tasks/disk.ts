import * as v from "valibot";
import { inventoryLimits } from "../../hardware/inventory.ts";

/** What the tasks `smart`, `scan` and `verify` have in common: which disk, and how it answered. */

export const diskTaskLimits = {
  /** Ranges that failed, told one by one; all are counted. */
  ranges: 64,
  text: 256,
  blockBytes: 16 * 1024 ** 2,
  depth: 64,
} as const;

export const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
export const positive = v.pipe(count, v.minValue(1));
export const text = v.pipe(v.string(), v.maxLength(diskTaskLimits.text));
const duration = v.pipe(v.number(), v.finite(), v.minValue(0));

/** A disk as the plan knew it. A child that finds another one under this name refuses. */
export const plannedDiskSchema = v.strictObject({
  /** Of the kernel: no slash, so that it stays below /dev. */
  name: v.pipe(v.string(), v.regex(/^[a-z][a-z0-9]{0,62}$/, "a name of a disk such as nvme0n1")),
  serial: v.nullable(v.pipe(v.string(), v.maxLength(inventoryLimits.text))),
  size_bytes: positive,
});
export type PlannedDisk = v.InferOutput<typeof plannedDiskSchema>;

/** Bytes, from the beginning of the disk, that could not be had. */
export const failedRangeSchema = v.strictObject({
  offset: count,
  length: positive,
  /** "EIO", or what was found in place of what was written. */
  reason: text,
});
export type FailedRange = v.InferOutput<typeof failedRangeSchema>;

/** One way over the disk, reading or writing. */
export const passSchema = v.strictObject({
  /** What there was to go over, and what of it came through whole. */
  planned_bytes: count,
  done_bytes: count,
  duration_ms: duration,
  slowest_ms: duration,
  /** null: a tool that does not tell it. */
  slowest_offset: v.nullable(count),
  /** Of whole blocks, from their submission to their completion; 0 of none. */
  latency_ms: v.strictObject({ p50: duration, p90: duration, p99: duration, p999: duration }),
  failed: v.strictObject({
    /** Ranges, those that lie side by side being one; of a tool, blocks. */
    count,
    bytes: count,
    /** The first of them; a tool does not tell the place of each. */
    ranges: v.pipe(v.array(failedRangeSchema), v.maxLength(diskTaskLimits.ranges)),
  }),
});
export type Pass = v.InferOutput<typeof passSchema>;

export const taskEngineSchema = v.strictObject({ name: text, version: v.nullable(text) });
export type TaskEngine = v.InferOutput<typeof taskEngineSchema>;

export const transferSettings = {
  block_bytes: v.pipe(positive, v.maxValue(diskTaskLimits.blockBytes)),
  depth: v.pipe(positive, v.maxValue(diskTaskLimits.depth)),
} as const;
