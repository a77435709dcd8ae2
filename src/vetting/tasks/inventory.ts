import * as v from "valibot";
import { inventorySchema } from "../../hardware/inventory.ts";

/** What the task `inventory` is told and reports: all that a host is made of. */

export const INVENTORY_TASK = "inventory";

/** `root` is another folder than `/` in tests alone. */
export const inventoryInputSchema = v.strictObject({ root: v.optional(v.string(), "/") });
export const inventoryReportSchema = inventorySchema;
