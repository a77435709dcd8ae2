/** Events of every kind, in all their shapes, as they could reach a machine now. */

import { instanceOf } from "../../../src/vm/lifecycle.ts";
import type { EventKind, MachineEvent, VmmCall } from "../../../src/vm/lifecycle-state.ts";
import { exited, type Life, lasting, refusal } from "./life.ts";

type Events = { readonly [K in EventKind]: readonly MachineEvent[] };

const abandoned = { message: "abandoned", code: "ECANCELED", lasts: false } as const;
const refusals = [refusal, lasting, abandoned];
/** Of a start that was given up. */
const straggler = { invocation: "i98", processId: 4_000, startTicks: 9 } as const;
const guests = ["created", "running", "paused", "off", "incoming", "empty"] as const;

const callOf: Readonly<Record<string, VmmCall>> = {
  ...{ creating: "create", booting: "boot", pausing: "pause", resuming: "resume" },
  ...{ capturing: "capture", snapshotting: "snapshot", restoring: "restore" },
  ...{ sending: "send", receiving: "receive" },
};

export function makeEvents(life: Life): Events {
  const { invocation, state } = life;
  const call = callOf[state.phase] ?? "quit";
  const told = { invocation };
  const next = { invocation: life.successor };
  const capture = state.capture?.id ?? "none";
  const migration = "migration" in state ? state.migration : capture;
  return {
    create: [
      ...(["off", "created", "running", "paused"] as const).map((wanted) => ({
        ...({ kind: "create", wanted } as const),
      })),
      { kind: "create", wanted: "running", capture: "snapshot-1" },
      { kind: "create", wanted: "running", migration: "m1" },
    ],
    boot: [{ kind: "boot" }],
    pause: [{ kind: "pause" }],
    resume: [{ kind: "resume" }],
    shutdown: [false, true].map((hurry) => ({ kind: "shutdown", hurry })),
    delete: [false, true].map((hurry) => ({ kind: "delete", hurry })),
    replace: [{ kind: "replace" }],
    snapshot: [{ kind: "snapshot", snapshot: "today" }],
    migrate: [{ kind: "migrate", migration: "m2" }],
    claim: [{ kind: "claim" }],
    taken: [{ kind: "taken", migration }],
    "not-taken": [{ kind: "not-taken", migration, reason: "it has no room" }],
    "handed-over": (["running", "paused"] as const).map((wanted) => ({
      ...({ kind: "handed-over", migration, wanted } as const),
    })),
    withdrawn: [{ kind: "withdrawn", migration, reason: "called off" }],
    undecided: [{ kind: "undecided", migration, reason: "the connection was cut" }],
    adopted: makeAdoptions(life),
    prepared: [{ kind: "prepared", ...told }],
    "prepare-refused": refusals.map((one) => ({ kind: "prepare-refused", ...told, refusal: one })),
    "network-ready": [{ kind: "network-ready", ...told }],
    "network-refused": refusals.map((one) => ({ kind: "network-refused", ...told, refusal: one })),
    spawned: [life.spawned(), life.successorSpawned(), { ...straggler, kind: "spawned" }],
    "spawn-refused": [told, next].flatMap((start) =>
      refusals.map((one) => ({ kind: "spawn-refused" as const, ...start, refusal: one })),
    ),
    found: [life.spawned("found")],
    "not-found": [{ kind: "not-found", ...told }],
    attached: guests.flatMap((guest) => [
      ...[life.attached(guest), life.attached(guest, true)],
      { ...life.attached(guest), ...next },
    ]),
    "attach-refused": [life.attachRefused(), { ...life.attachRefused(), ...next }],
    done: [life.done(call), life.done(call, "taken")],
    refused: [life.refused(call)],
    "connection-lost": [life.lost(), { ...life.lost(), ...next }],
    booted: [{ kind: "booted", ...told }],
    paused: [{ kind: "paused", ...told }],
    resumed: [{ kind: "resumed", ...told }],
    "guest-off": [life.off("guest"), life.off("host")],
    "guest-reset": [{ kind: "guest-reset", ...told }],
    "guest-panic": [{ kind: "guest-panic", ...told }],
    observed: guests.map((guest) => ({ kind: "observed", ...told, guest })),
    died: [told, next].flatMap((whose) =>
      [exited(0), exited(1), undefined].map((ending) => ({
        ...{ kind: "died" as const, ...whose, ending },
      })),
    ),
    cleared: [life.cleared(false), life.cleared(true)],
    "capture-lost": [{ kind: "capture-lost", capture, reason: "nobody holds it" }],
    forgotten: [{ kind: "forgotten", capture }],
    "beside-ended": [{ kind: "beside-ended", invocation: state.beside ?? "none" }],
    discarded: [{ kind: "discarded" }],
    "discard-refused": [{ kind: "discard-refused", refusal }],
    unhealthy: [true, false].map((wasHealthy) => ({
      ...({ kind: "unhealthy", ...told, reason: "port 80", wasHealthy, grace: 2_000 } as const),
    })),
    deadline: [{ kind: "deadline" }],
  };
}

/** What this life has noted, as the next worker finds it: its VMM alive, or dead. */
export function makeAdoptions({ note, state }: Life): readonly MachineEvent[] {
  if (note === undefined) return [];
  const instance = instanceOf(state);
  const dead = { kind: "adopted", note, alive: undefined } as const;
  return instance === undefined ? [dead] : [dead, { ...dead, alive: instance }];
}

/** The same event of a VMM, or with a number, that nobody waits for. */
export function makeStale(event: MachineEvent): readonly MachineEvent[] {
  const stale: MachineEvent[] = [];
  if ("invocation" in event) stale.push({ ...event, invocation: "i99" });
  if ("ticket" in event) stale.push({ ...event, ticket: event.ticket + 7 });
  if ("capture" in event && event.kind !== "create") stale.push({ ...event, capture: "i99" });
  const isWish = event.kind === "create" || event.kind === "migrate";
  if ("migration" in event && !isWish) stale.push({ ...event, migration: "m99" });
  return stale;
}
