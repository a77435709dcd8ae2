import { HostTree } from "../../../hardware/host-tree.ts";
import { readIdentity } from "../../../hardware/read-inventory.ts";
import { IDENTITY_TASK, identityInputSchema, identityReportSchema } from "../../tasks/identity.ts";
import { defineTask } from "../task.ts";

/** What the host is known by: SMBIOS alone, so that a disk that blocks does not keep a claim. */
export const identityTask = defineTask({
  name: IDENTITY_TASK,
  input: identityInputSchema,
  report: identityReportSchema,
  run: ({ root }) => readIdentity(new HostTree(root)),
});
