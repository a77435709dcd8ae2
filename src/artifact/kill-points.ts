import { killPoint } from "../../ffi/fault-hooks.ts";

/** Every place between two steps of a fetch at which a test kills it, in their order. */
export const fetchSteps = [
  "begun",
  "base-read",
  "block-written",
  "synced",
  "placed",
  "manifest-written",
  "verified",
] as const;
export type FetchStep = (typeof fetchSteps)[number];

/** The same of whoever publishes. */
export const pushSteps = ["frames-pushed", "manifest-pushed", "metadata-pushed"] as const;
export type PushStep = (typeof pushSteps)[number];

/** In the build for fault tests this ends the process when a test named the step. */
export function passStep(step: FetchStep | PushStep): void {
  killPoint(`artifact:${step}`);
}
