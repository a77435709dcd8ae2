import * as v from "valibot";
import { syncFilesystems } from "../../../../ffi/kexec.ts";
import { SYNC_TASK } from "../../tasks/sync.ts";
import { defineTask } from "../task.ts";

/** Before the power changes: sync(2), which a dying disk may never let return. */
export const syncTask = defineTask({
  name: SYNC_TASK,
  input: v.null(),
  report: v.null(),
  run: () => {
    syncFilesystems();
    return null;
  },
});
