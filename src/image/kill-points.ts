import { killPoint } from "../../ffi/fault-hooks.ts";

/** Every place between two steps at which a test kills the store, in the order of the steps. */
export const imageSteps = {
  add: ["begun", "file-begun", "file-copied", "verified", "recorded", "synced", "placed"],
  remove: ["set-aside", "removed"],
} as const;

export type ImageStep = (typeof imageSteps)[keyof typeof imageSteps][number];

/** In the build for fault tests this ends the process when a test named the step. */
export function passStep(step: ImageStep): void {
  killPoint(`image:${step}`);
}
