import * as v from "valibot";
import { pstoreLimits } from "../../hardware/pstore-limits.ts";

/**
 * What the task `crashes` is told and reports: what kernels before this one wrote as they died. It
 * is read first, and removed when the orchestrator has it.
 */

export const CRASHES_TASK = "crashes";

const text = v.pipe(v.string(), v.maxLength(512));
const files = v.pipe(v.array(text), v.maxLength(pstoreLimits.files));

export const crashesInputSchema = v.variant("action", [
  v.strictObject({ action: v.literal("read"), root: v.optional(v.string(), "/") }),
  v.strictObject({ action: v.literal("remove"), root: v.optional(v.string(), "/"), files }),
]);

export const crashesReportSchema = v.strictObject({
  crashes: v.pipe(
    v.array(
      v.strictObject({
        reason: text,
        /** Seconds since 1970, by the clock of the kernel that died. */
        at: v.number(),
        text: v.pipe(v.string(), v.maxLength(pstoreLimits.text)),
        files,
      }),
    ),
    v.maxLength(pstoreLimits.crashes),
  ),
  /** Why there may be more, or what could not be removed. */
  refusals: v.array(text),
});
export type CrashesReport = v.InferOutput<typeof crashesReportSchema>;
