import { askCard } from "../../../hardware/ask-card.ts";
import { HostTree } from "../../../hardware/host-tree.ts";
import { readInventory } from "../../../hardware/read-inventory.ts";
import {
  INVENTORY_TASK,
  inventoryInputSchema,
  inventoryReportSchema,
} from "../../tasks/inventory.ts";
import { defineTask } from "../task.ts";

/** What the host is made of. */
export const inventoryTask = defineTask({
  name: INVENTORY_TASK,
  input: inventoryInputSchema,
  report: inventoryReportSchema,
  run: ({ root }) => {
    const tree = new HostTree(root);
    return readInventory(tree, tree.isHost ? { askDriver: askCard } : {});
  },
});
