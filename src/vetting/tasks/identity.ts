import * as v from "valibot";
import { hardwareIdentitySchema } from "../../hardware/inventory.ts";

/** What the task `identity` is told, and what it tells. */

export const IDENTITY_TASK = "identity";

/** Another folder than `/` in tests alone. */
export const identityInputSchema = v.strictObject({ root: v.optional(v.string(), "/") });
export const identityReportSchema = hardwareIdentitySchema;
