import * as v from "valibot";
import { HostTree } from "../../../hardware/host-tree.ts";
import { inventorySchema } from "../../../hardware/inventory.ts";
import { readInventory } from "../../../hardware/read-inventory.ts";
import { defineTask } from "../task.ts";

/** What the host is made of. `root` is another folder than `/` in tests alone. */
export const inventoryTask = defineTask({
  name: "inventory",
  input: v.strictObject({ root: v.optional(v.string(), "/") }),
  report: inventorySchema,
  run: ({ root }) => readInventory(new HostTree(root)),
});
