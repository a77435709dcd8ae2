import { rebootInto } from "../../../ffi/kexec.ts";
import { errnoMessage } from "../../../ffi/system-call-error.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { PowerChange } from "../agent/lifecycle-state.ts";
import { SYNC_TASK } from "../tasks/sync.ts";
import type { TaskRunner } from "./task-runner.ts";

/** Nothing of ours waits to be written: what others left gets so long, and no longer. */
const SYNC_WITHIN: Milliseconds = 30_000;

/**
 * There is no service manager in a live image: sync(2), then reboot(2).
 * @returns why not, where the kernel refuses; else never
 */
export async function changePower(runner: TaskRunner, how: PowerChange): Promise<string> {
  const options = { deadline: SYNC_WITHIN, onLine: () => {} };
  await runner.start({ task: SYNC_TASK, input: null }, options).ended;
  const result = rebootInto(how === "reboot" ? "restart" : "power-off");
  return `reboot: ${errnoMessage(-result)}`;
}
