import type { MonotonicTime } from "../../units/units.ts";
import {
  type Assignment,
  type AssignmentPlace,
  type ClusterMachine,
  type ClusterStatus,
  type ClusterWorker,
  type HeldMachine,
  MASTER_PROTOCOL_VERSION,
  masterLimits,
  type ReportedMachine,
} from "../protocol-master.ts";
import { silentSince, whyNotProven } from "./lifecycle-fence.ts";
import { heldOf, judge as judgeHeld } from "./lifecycle-report.ts";
import { whyWaited } from "./lifecycle-restored.ts";
import { freeOf, isByHand, requestsOf } from "./lifecycle-schedule.ts";
import {
  type ClusterDesired,
  type ClusterState,
  isSamePlace,
  placeOf,
  type WorkerRecord,
  type WorkerState,
} from "./lifecycle-state.ts";

/** What a worker is to have, and what operators see. Pure. */

export function assignmentOf(state: ClusterState, name: string): Assignment {
  const { machines = {}, released = {} } = state.workers.get(name)?.record ?? {};
  const given = Object.entries(machines).map(([machine, placed]) => ({
    machine,
    placed,
    desired: state.desired.machines.get(machine),
  }));
  return {
    kind: "assignment",
    version: MASTER_PROTOCOL_VERSION,
    ...placeOf(state, name),
    machines: given.flatMap(({ placed, desired }) =>
      desired === undefined
        ? []
        : [
            {
              spec: desired.spec,
              power: desired.power,
              owner_generation: placed.owner_generation,
              movable: desired.placement.movable === true,
              fencing: placed.watchdog_ms === null ? "none" : "watchdog",
            },
          ],
    ),
    removals: [
      ...given.flatMap(({ machine, placed, desired }) =>
        desired === undefined ? [{ name: machine, owner_generation: placed.owner_generation }] : [],
      ),
      ...leftOver(state, { machines, released }),
    ].slice(0, masterLimits.machinesOfWorker),
  };
}

/**
 * What was taken from it, and is still there: all that a movable machine needs is in its image. Of
 * one that may not move somebody may want the disks: it is shown, and nobody removes it.
 */
function leftOver(
  { desired }: ClusterState,
  { machines, released }: Pick<WorkerRecord, "machines" | "released">,
): HeldMachine[] {
  return Object.entries(released).flatMap(([name, owner_generation]) => {
    const declared = desired.machines.get(name);
    const mayGo = declared === undefined || declared.placement.movable === true;
    return mayGo && machines[name] === undefined ? [{ name, owner_generation }] : [];
  });
}

/**
 * Whether a worker that follows this assignment is to hear of its own. Less than it follows is no
 * news: it was forgotten meanwhile, and its report is about to say how far it is. What an older
 * backup says is told to nobody before all have been heard.
 */
export function isNewsTo(
  state: ClusterState,
  worker: string,
  lastSeen: AssignmentPlace | null,
): boolean {
  if (state.isRestored) return false;
  if (lastSeen === null) return true;
  const place = placeOf(state, worker);
  if (place.incarnation !== lastSeen.incarnation) return true;
  const isLess = place.generation < lastSeen.generation || place.revision < lastSeen.revision;
  return !isLess && !isSamePlace(place, lastSeen);
}

interface Context {
  readonly now: MonotonicTime;
  readonly hasHook: boolean;
}

export function statusOf(
  state: ClusterState,
  context: Context & { readonly hookTrouble?: string | undefined },
): ClusterStatus {
  const machines = machinesOf(state);
  const workers = workersOf(state, context);
  return {
    generation: state.desired.generation,
    convergence_percent: percentOf(state, machines),
    workers,
    machines,
    warnings: [
      ...(context.hookTrouble === undefined ? [] : [context.hookTrouble]),
      ...warningsOf(state, workers, machines),
    ],
  };
}

export function workersOf(state: ClusterState, context: Context): ClusterWorker[] {
  return [...state.workers.values()]
    .map((worker) => workerView(state, worker, context))
    .sort((left, right) => (left.name < right.name ? -1 : 1));
}

export function workerView(
  state: ClusterState,
  worker: WorkerState,
  { now, hasHook }: Context,
): ClusterWorker {
  const { name, record, heard, standing } = worker;
  const report = heard?.report;
  const reason = standing === "lost" ? whyNotProven(state, worker, { now, hasHook }) : undefined;
  return {
    name,
    standing,
    silent_ms: Math.max(0, Math.round(now - silentSince(state, worker))),
    cordoned: record.cordoned,
    fenced: record.fenced?.how ?? null,
    reason: reason ?? null,
    boot: report?.boot ?? null,
    program: report?.program ?? null,
    observed: report?.observed ?? null,
    assignment: placeOf(state, name),
    // Before it follows an assignment there is nothing to be as assigned.
    convergence_percent: report?.observed == null ? null : report.convergence_percent,
    total: report?.total ?? null,
    free: freeOf(worker, requestsOf(state)) ?? null,
    labels: report?.labels ?? {},
    watchdog: report?.watchdog ?? null,
    machines: Object.keys(record.machines).length,
  };
}

/** Every machine that is declared, or that is to go and is not gone yet. */
export function machinesOf(state: ClusterState): ClusterMachine[] {
  const names = new Set([...state.desired.machines.keys(), ...state.placed.keys()]);
  return [...names].sort().map((name) => machineView(state, name));
}

function machineView(state: ClusterState, name: string): ClusterMachine {
  const desired = state.desired.machines.get(name);
  const worker = state.workers.get(state.placed.get(name) ?? "");
  const placed = worker?.record.machines[name];
  const base = { name, movable: desired?.placement.movable === true };
  if (worker === undefined || placed === undefined) {
    const reason = state.unplaced.get(name) ?? "it is about to be given to a worker";
    const nowhere = { worker: null, owner_generation: null, phase: null, drift: [] };
    return { ...base, ...nowhere, status: "pending", reason };
  }
  const reported = worker.heard?.byName.get(name);
  // What it says of a machine under another number is of another machine.
  const own = reported?.owner_generation === placed.owner_generation ? reported : undefined;
  // What it said before says nothing of now.
  const isLost = worker.standing === "lost";
  return {
    ...base,
    worker: worker.name,
    owner_generation: placed.owner_generation,
    phase: isLost ? null : (own?.phase ?? null),
    drift: isLost ? [] : (own?.drift ?? []),
    ...judge(state, { name, worker, desired, reported: own }),
  };
}

function judge(
  state: ClusterState,
  known: {
    readonly name: string;
    readonly worker: WorkerState;
    readonly desired: ClusterDesired | undefined;
    readonly reported: ReportedMachine | undefined;
  },
): Pick<ClusterMachine, "status" | "reason"> {
  const { worker, desired, reported } = known;
  const { name, standing, heard } = worker;
  if (desired === undefined) {
    const reason = standing === "lost" ? `${name} is lost` : "it is declared no more";
    return { status: "stopping", reason };
  }
  if (standing === "lost") {
    return { status: "unknown", reason: `${name} is lost; the machine may run there on` };
  }
  if (heard === undefined) {
    return { status: "pending", reason: `${name} has not reported since this master's start` };
  }
  const named = heard.byName.get(known.name);
  if (reported === undefined && named !== undefined && isByHand(named)) {
    const why = named.reason ?? "it was made there by hand";
    const reason =
      `${name} has another machine of this name: ${why}. Delete that there, by hostler vm delete ` +
      `${known.name}, or declare this one by another name`;
    return { status: "failed", reason };
  }
  if (reported === undefined) {
    return { status: "pending", reason: `${name} has not taken it up yet` };
  }
  if (!isSamePlace(heard.report.observed, placeOf(state, name))) {
    return { status: "pending", reason: `${name} follows an older assignment` };
  }
  const { reason } = reported;
  switch (reported.standing) {
    case "converged":
      return { status: desired.power, reason: null };
    case "pending":
      return { status: reported.phase === "stopping" ? "stopping" : "pending", reason };
    case "failed":
      return { status: "failed", reason };
    case "drifted":
      return { status: "drifted", reason };
    case "left-alone":
      return { status: "drifted", reason: `left alone: ${reason ?? "nobody knows why"}` };
  }
}

/** Of all that is declared, or is to go; 100 where there is nothing. */
function percentOf(state: ClusterState, machines: readonly ClusterMachine[]): number {
  if (machines.length === 0) return 100;
  const converged = machines.filter(
    ({ name, status }) => status === state.desired.machines.get(name)?.power,
  );
  // 99.9 % of many is not all of them.
  return Math.floor((100 * converged.length) / machines.length);
}

function warningsOf(
  state: ClusterState,
  workers: readonly ClusterWorker[],
  machines: readonly ClusterMachine[],
): string[] {
  const lost = workers.filter(({ standing, machines: count }) => standing === "lost" && count > 0);
  const nowhere = machines.filter(({ worker }) => worker === null);
  const found = [...state.workers.values()].flatMap(({ name, record }) =>
    Object.keys(record.found).map((machine) => `${machine} at ${name}`),
  );
  const left = [...state.workers.values()].flatMap(({ name, heard }) =>
    heldOf(heard?.report.machines ?? [])
      .filter((held) => judgeHeld(state, name, held) === "stale")
      .map((held) => `${held.name} at ${name}`),
  );
  const namesakes = [...state.workers.values()].flatMap(({ name, heard }) =>
    (heard?.report.machines ?? [])
      .filter((one) => isByHand(one) && state.desired.machines.has(one.name))
      .map((one) => `${one.name} at ${name}`),
  );
  const waited = whyWaited(state);
  return [
    ...lost.map(({ name, reason }) => `${name} is lost${reason === null ? "" : `: ${reason}`}`),
    ...(nowhere.length === 0 ? [] : [`machines without a worker: ${nowhere.length}`]),
    ...(found.length === 0
      ? []
      : [`left alone, because nobody here has declared them: ${found.sort().join(", ")}`]),
    ...(left.length === 0
      ? []
      : [
          `other workers have these by now: ${left.sort().join(", ")}; what is left there of a ` +
            "movable one is removed, and of another one until somebody deletes it there",
        ]),
    ...(namesakes.length === 0
      ? []
      : [`there are others of these names, which no master gave: ${namesakes.sort().join(", ")}`]),
    ...(waited === undefined ? [] : [waited]),
  ];
}
