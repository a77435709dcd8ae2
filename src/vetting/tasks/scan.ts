import * as v from "valibot";
import { engineChoiceSchema } from "../protocol-spec.ts";
import { passSchema, plannedDiskSchema, taskEngineSchema, transferSettings } from "./disk.ts";

/** What the task `scan` is told and reports: one disk, read and not written. */

export const SCAN_TASK = "scan";

export const scanInputSchema = v.strictObject({
  disk: plannedDiskSchema,
  ...transferSettings,
  /** Seconds after which it ends by itself, and tells what it came to. */
  most_s: v.pipe(v.number(), v.finite(), v.minValue(0)),
  /** Of the disk; below 1, regions that are spread over the whole of it. */
  extent: v.pipe(v.number(), v.minValue(0), v.maxValue(1)),
  engine: v.optional(engineChoiceSchema, "default"),
});
export type ScanInput = v.InferInput<typeof scanInputSchema>;

export const scanReportSchema = v.strictObject({ engine: taskEngineSchema, read: passSchema });
export type ScanReport = v.InferOutput<typeof scanReportSchema>;
