import { killPoint } from "../../../ffi/fault-hooks.ts";

/** Writes of an operator, before and after each of which a test kills it. */
export const operatorWrites = ["marker", "labels", "rollout"] as const;
export type OperatorWrite = (typeof operatorWrites)[number];

/** In the build for fault tests this ends the process when a test named the place. */
export function passOperatorWrite(write: OperatorWrite, when: "before" | "after"): void {
  killPoint(`fleet-operator:${write}:${when}`);
}
