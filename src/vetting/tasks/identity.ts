import * as v from "valibot";
import { hardwareIdentitySchema, inventoryLimits, macSchema } from "../../hardware/inventory.ts";

/** What the task `identity` is told, and what it tells. */

export const IDENTITY_TASK = "identity";

/** Another folder than `/` in tests alone. */
export const identityInputSchema = v.strictObject({ root: v.optional(v.string(), "/") });
export const identityReportSchema = v.strictObject({
  ...hardwareIdentitySchema.entries,
  /** Of cards that are hardware: the permanent address where the driver tells one. */
  macs: v.pipe(v.array(macSchema), v.maxLength(inventoryLimits.networkCards)),
});
export type IdentityReport = v.InferOutput<typeof identityReportSchema>;
