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
  send: true,
  receive: true,
  "abandon-send": true,
  "hand-over": true,
  confirm: true,
  "forget-capture": true,
  kill: true,
  clear: true,
  discard: true,
  record: true,
};

/** Those of a machine that goes from one host to another: two workers have to do with them. */
export const migrationEffects = [
  "send",
  "receive",
  "abandon-send",
  "hand-over",
  "confirm",
] as const satisfies readonly EffectKind[];
export type MigrationEffect = (typeof migrationEffects)[number];

/** Steps between the beginning of an effect and its answer, at which a test kills the worker. */
export const workerSteps = [
  "disks:locked",
  "disks:claimed",
  "disks:removed",
  "network:applied",
  "spawn:cgroup",
  "spawn:named",
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

/** The same of a machine that goes to another host, at the one that has it and at the other. */
export const migrationSteps = [
  "send:begun",
  "send:stopped",
  "send:sent",
  "send:arrived",
  "hand-over:begun",
  "hand-over:said",
  "receive:ready",
  "receive:arrived",
] as const;

export function passMigrationStep(step: (typeof migrationSteps)[number]): void {
  killPoint(`vm:${step}`);
}

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
