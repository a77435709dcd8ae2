import * as v from "valibot";
import { diskHealthSchema } from "../../hardware/disk/health.ts";
import { transports } from "../../hardware/inventory.ts";
import { engineChoiceSchema } from "../protocol-spec.ts";
import { plannedDiskSchema, taskEngineSchema, text } from "./disk.ts";

/** What the task `smart` is told and reports: one disk, asked how it is. */

export const SMART_TASK = "smart";

export const smartInputSchema = v.strictObject({
  disk: plannedDiskSchema,
  transport: v.picklist(transports),
  self_test: v.picklist(["none", "short", "extended"]),
  engine: v.optional(engineChoiceSchema, "default"),
  /** Seconds after which a self-test is left to itself, and told as running. */
  self_test_most_s: v.pipe(v.number(), v.minValue(0)),
});
export type SmartInput = v.InferInput<typeof smartInputSchema>;

export const smartReportSchema = v.strictObject({
  engine: taskEngineSchema,
  health: diskHealthSchema,
  /** Why no engine before this one was taken: "smartctl: Unknown USB bridge". */
  passed_over: v.pipe(v.array(text), v.maxLength(8)),
});
export type SmartReport = v.InferOutput<typeof smartReportSchema>;
