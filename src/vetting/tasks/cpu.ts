import * as v from "valibot";

/** What the task `cpu` is told and reports: one logical processor, kept busy with known answers. */

export const CPU_TASK = "cpu";

/** Kinds of work. Each has answers that stand in the source, or that a second way must give. */
export const cpuKinds = ["integer", "float", "vector", "hash", "compression"] as const;
export type CpuKind = (typeof cpuKinds)[number];

export const cpuLimits = {
  /** Wrong answers that are told one by one; all are counted. */
  miscompares: 16,
} as const;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const seconds = v.pipe(v.number(), v.finite(), v.minValue(0));
const text = v.pipe(v.string(), v.maxLength(256));

export const cpuInputSchema = v.strictObject({
  /** Among the processors that are online, from 0; not the kernel's number, which may have gaps. */
  index: count,
  duration_s: v.pipe(seconds, v.maxValue(86_400)),
});
export type CpuInput = v.InferOutput<typeof cpuInputSchema>;

export const cpuMiscompareSchema = v.strictObject({
  kind: v.picklist(cpuKinds),
  /** Which answer of this kind it was, from 1. */
  pass: count,
  expected: text,
  found: text,
  /** The same work once more: wrong again, or right this time. */
  again: v.picklist(["sticky", "transient"]),
});
export type CpuMiscompare = v.InferOutput<typeof cpuMiscompareSchema>;

export const cpuReportSchema = v.strictObject({
  /** The kernel's number. */
  processor: count,
  /** Seconds that it worked, and that its thread had the processor meanwhile. */
  wall_s: seconds,
  busy_s: seconds,
  /** Answers that were right, by kind. */
  verified: v.strictObject(v.entriesFromList(cpuKinds, count)),
  /** Kinds that this build or processor does not have. */
  unseen: v.pipe(
    v.array(v.strictObject({ kind: v.picklist(cpuKinds), reason: text })),
    v.maxLength(cpuKinds.length),
  ),
  miscompared: count,
  miscompares: v.pipe(v.array(cpuMiscompareSchema), v.maxLength(cpuLimits.miscompares)),
});
export type CpuReport = v.InferOutput<typeof cpuReportSchema>;
