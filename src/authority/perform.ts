import { readFileSync } from "node:fs";
import { killPoint } from "../../ffi/fault-hooks.ts";

/** This boot, as the kernel names it: random(4), /proc/sys/kernel/random/boot_id. */
export function readBootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
}

/** A step of identity is on the disk: the build for fault tests may end here. */
export function passStep(side: "authority" | "host", step: string): void {
  killPoint(`identity:${side}:${step}`);
}
