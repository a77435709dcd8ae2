import { killPoint } from "../../../ffi/fault-hooks.ts";

/** Every place between two steps at which a test kills us, in the order of the steps. */
export const hostSteps = {
  store: ["begun", "copied", "placed", "stored"],
  swap: ["begun", "previous", "current", "swapped"],
  swapBack: ["reverting", "back", "reverted"],
  collect: ["set-aside", "removed"],
  guard: ["noted", "guarded"],
  install: ["proved", "linked", "named", "units"],
  uninstall: ["taken", "unlinked", "emptied", "removed-all"],
} as const;

export type HostStep = (typeof hostSteps)[keyof typeof hostSteps][number];

/** In the build for fault tests this ends the process when a test named the step. */
export function passStep(step: HostStep): void {
  killPoint(`fleet:${step}`);
}
