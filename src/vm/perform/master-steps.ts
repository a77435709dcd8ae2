import { killPoint } from "../../../ffi/fault-hooks.ts";

/** Writes of a master, before and after each of which a test kills it. */
export const masterWrites = [
  "desired-part",
  "desired-current",
  "desired-old-part",
  "worker",
  "numbers",
] as const;
export type MasterWrite = (typeof masterWrites)[number];

/** In the build for fault tests this ends the process when a test named the place. */
export function passWrite(write: MasterWrite, when: "before" | "after"): void {
  killPoint(`vm-master:${write}:${when}`);
}
