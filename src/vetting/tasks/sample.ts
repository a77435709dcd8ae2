import * as v from "valibot";

/** What the task `sample` is told: it reads sensors and counters until it is told to end. */

export const SAMPLE_TASK = "sample";

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

export const sampleInputSchema = v.strictObject({
  /** Another folder than `/` in tests alone; then the kernel's log is nobody's. */
  root: v.optional(v.string(), "/"),
  every_ms: v.pipe(v.number(), v.minValue(10), v.maxValue(3_600_000)),
  /** The last record of the kernel's log that is known; null: from the oldest that there is. */
  kernel_after: v.optional(v.nullable(count), null),
});

export const sampleReportSchema = v.strictObject({ readings: count, kernel_lines: count });
