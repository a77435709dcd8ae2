import { killPoint } from "../../ffi/fault-hooks.ts";

/** Every place between two steps at which a test kills the store, in the order of the steps. */
export const storeSteps = {
  create: ["create:intended", "create:made", "create:ready"],
  commit: ["commit:begun", "commit:written", "commit:committed", "commit:acknowledged"],
  reserve: ["reserve:promised"],
  spend: ["spend:written", "spend:synced"],
  compact: ["compact:written"],
  upgrade: ["upgrade:column", "upgrade:some", "upgrade:all", "upgrade:done"],
  backup: ["backup:copied", "backup:synced", "backup:linked"],
  restore: [
    "restore:copied",
    "restore:merged",
    "restore:intended",
    "restore:ledger",
    "restore:kept-log",
    "restore:kept",
    "restore:placed",
    "restore:ready",
  ],
} as const;

export type StoreStep = (typeof storeSteps)[keyof typeof storeSteps][number];

/** In the build for fault tests this ends the process when a test named the step. */
export function passStep(step: StoreStep): void {
  killPoint(`store:${step}`);
}
