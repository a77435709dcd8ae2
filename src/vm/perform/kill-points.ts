import { killPoint } from "../../../ffi/fault-hooks.ts";
import type { EffectKind } from "../lifecycle-state.ts";

/** Every effect: a new one does not compile before its kill test has it. */
export const effectKinds: Readonly<Record<EffectKind, true>> = {
  note: true,
  prepare: true,
  abandon: true,
  "connect-network": true,
  spawn: true,
  find: true,
  attach: true,
  create: true,
  boot: true,
  pause: true,
  resume: true,
  "press-power-button": true,
  quit: true,
  capture: true,
  restore: true,
  snapshot: true,
  "end-beside": true,
  "forget-capture": true,
  kill: true,
  clear: true,
  discard: true,
  record: true,
};

/** Steps between the beginning of an effect and its answer, at which a test kills the worker. */
export const workerSteps = [
  "disks:locked",
  "disks:claimed",
  "disks:removed",
  "network:applied",
  "spawn:cgroup",
  "spawn:started",
  "capture:taken",
  "capture:kept",
  "restore:done",
  "discard:network",
  "discard:files",
] as const;
/** The same of snapshots: while one is made, and while a machine is made of one. */
export const snapshotSteps = {
  taken: [
    "snapshot:captured",
    "snapshot:begun",
    "snapshot:copied",
    "snapshot:written",
    "snapshot:placed",
  ],
  restored: ["restoration:loaded", "restoration:held"],
} as const;
/** The same between a worker and its master. */
export const masterSteps = [
  "assignment:keeping",
  "assignment:kept",
  "lease:noting",
  "lease:noted",
  "watchdog:armed",
  "watchdog:disarmed",
  "report:sending",
  "report:answered",
  "held:ended",
] as const;
export type WorkerStep =
  | (typeof workerSteps)[number]
  | (typeof masterSteps)[number]
  | (typeof snapshotSteps)[keyof typeof snapshotSteps][number];

/** In the build for fault tests this ends the process when a test named the place. */
export function passEffect(kind: EffectKind, when: "before" | "after"): void {
  killPoint(`vm:${kind}:${when}`);
}

export function passStep(step: WorkerStep): void {
  killPoint(`vm:${step}`);
}
