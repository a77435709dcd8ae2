import { HostTree } from "../../../hardware/host-tree.ts";
import { ensurePstore } from "../../../hardware/mount-pstore.ts";
import { readCrashes, removeCrashFiles } from "../../../hardware/pstore.ts";
import { CRASHES_TASK, crashesInputSchema, crashesReportSchema } from "../../tasks/crashes.ts";
import { defineTask } from "../task.ts";

const short = (text: string): string => text.slice(0, 512);

/** What kernels before this one wrote as they died; and that it is not told again. */
export const crashesTask = defineTask({
  name: CRASHES_TASK,
  input: crashesInputSchema,
  report: crashesReportSchema,
  run: (input) => {
    const tree = new HostTree(input.root);
    const refusal = tree.isHost ? ensurePstore() : undefined;
    if (refusal !== undefined) return { crashes: [], refusals: [short(refusal)] };
    if (input.action === "remove") {
      return { crashes: [], refusals: removeCrashFiles(tree, input.files).map(short) };
    }
    const { crashes, refusals } = readCrashes(tree);
    return {
      crashes: crashes.map((crash) => ({
        ...crash,
        reason: short(crash.reason),
        files: [...crash.files],
      })),
      refusals: refusals.map(short),
    };
  },
});
