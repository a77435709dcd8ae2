import { askCard } from "../../../hardware/ask-card.ts";
import { HostTree } from "../../../hardware/host-tree.ts";
import { readCardAddresses } from "../../../hardware/network-cards.ts";
import { readIdentity } from "../../../hardware/read-inventory.ts";
import { IDENTITY_TASK, identityInputSchema, identityReportSchema } from "../../tasks/identity.ts";
import { defineTask } from "../task.ts";

/** What the host is known by: SMBIOS and cards, so that a disk that blocks keeps no claim. */
export const identityTask = defineTask({
  name: IDENTITY_TASK,
  input: identityInputSchema,
  report: identityReportSchema,
  run: ({ root }) => {
    const tree = new HostTree(root);
    const macs = readCardAddresses(tree, tree.isHost ? askCard : undefined);
    return { ...readIdentity(tree), macs };
  },
});
