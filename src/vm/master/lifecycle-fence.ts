import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import { masterLimits } from "../protocol-master.ts";
import type { Draft } from "./lifecycle-draft.ts";
import type { ClusterState, WorkerStanding, WorkerState } from "./lifecycle-state.ts";

/**
 * When a worker counts as silent and lost, and what proves its machines dead. Silence proves
 * nothing: the machines outlive their worker, and the worker its link. Pure.
 */

/** What a watchdog may be late by, and two hosts' clocks differ by in so long. */
const FIXED_MARGIN: Milliseconds = 10_000;
const MARGIN_SHARE = 0.02;

/**
 * How long after the last report reached the master a machine under this watchdog may run. The
 * report was sent before it came; its answer lets the worker feed the watchdog for the lease after
 * the sending; and the host is reset a watchdog's time after the last feeding. When that is, only
 * the master's own monotonic clock is asked, within one run of it: a master that is started anew
 * counts from its start, before which every report of the former one was sent.
 */
export function proofTime(watchdog: Milliseconds): Milliseconds {
  const longest = masterLimits.leaseTime + watchdog;
  return longest + FIXED_MARGIN + Math.ceil(longest * MARGIN_SHARE);
}

/** Since when nothing was heard of it, within this run. */
export const silentSince = (state: ClusterState, worker: WorkerState): MonotonicTime =>
  Math.max(state.started, worker.heard?.at ?? state.started);

export function standingOf({ state, now, settings }: Draft, worker: WorkerState): WorkerStanding {
  const silent = now - silentSince(state, worker);
  if (silent >= settings.lostAfter) return "lost";
  if (worker.heard === undefined) return "unheard";
  return silent >= settings.silentAfter ? "silent" : "healthy";
}

/** Notes how the worker stands by now, and has it fenced when it is lost. */
export function lostStep(draft: Draft, name: string): void {
  const worker = draft.worker(name);
  if (worker === undefined) return;
  const standing = standingOf(draft, worker);
  if (standing !== worker.standing) {
    draft.setWorker({ ...worker, standing });
    if (standing === "lost") draft.say("warn", `${name} is lost: ${howSilent(draft, worker)}`);
    else if (standing !== "unheard") draft.say("info", `${name} is ${standing}`);
    // Whoever waits is told why it does not fit there, or fits there now.
    draft.replan();
  }
  if (standing === "lost") proveDead(draft, name);
}

const howSilent = ({ state, now }: Draft, worker: WorkerState) =>
  `no report for ${Math.round((now - silentSince(state, worker)) / 1_000)} s, which says nothing ` +
  "of its machines";

function proveDead(draft: Draft, name: string): void {
  const worker = draft.worker(name);
  // What an older backup says of watchdogs, and of what may move, may be over since.
  if (worker === undefined || draft.state.isRestored) return;
  const expired = guardedOf(draft.state, worker)
    .filter(({ dueAt }) => dueAt <= draft.now)
    .map(({ machine }) => machine);
  if (expired.length > 0) draft.fence(name, "watchdog", expired);
  const rest = draft.worker(name);
  if (rest === undefined || !draft.settings.hasHook || movableOf(draft.state, rest).length === 0) {
    return;
  }
  const { hook } = rest;
  if (hook.phase === "running" || isCutOff(draft)) return;
  if (hook.phase === "waiting" && hook.until > draft.now) return;
  const attempt = hook.phase === "waiting" ? hook.attempt + 1 : 1;
  draft.setWorker({ ...rest, hook: { phase: "running", attempt, overtaken: false } });
  draft.runHook(name, attempt);
}

/**
 * Most workers are not heard: it is rather this master that is cut off from them, and it must not
 * turn all of them off. A worker is silent long before it is lost: so the first one is no
 * exception.
 */
function isCutOff(draft: Draft): boolean {
  const workers = draft.workers();
  const heard = workers.filter((worker) => standingOf(draft, worker) === "healthy").length;
  return 2 * heard < workers.length;
}

/** Machines that somebody waits for, and that may run elsewhere. */
export function movableOf({ desired }: ClusterState, { record }: WorkerState): readonly string[] {
  return Object.entries(record.machines).flatMap(([machine, placed]) => {
    const isDeclared = desired.machines.get(machine)?.placement.movable === true;
    return isDeclared && placed.movable ? [machine] : [];
  });
}

/** Those of them under a watchdog, and when it proves each dead. */
function guardedOf(
  state: ClusterState,
  worker: WorkerState,
): readonly { readonly machine: string; readonly dueAt: MonotonicTime }[] {
  return movableOf(state, worker).flatMap((machine) => {
    const watchdog = worker.record.machines[machine]?.watchdog_ms ?? null;
    if (watchdog === null) return [];
    return [{ machine, dueAt: silentSince(state, worker) + proofTime(watchdog) }];
  });
}

/** Why a lost worker's movable machines do not move yet; undefined when there are none. */
export function whyNotProven(
  state: ClusterState,
  worker: WorkerState,
  context: { readonly now: MonotonicTime; readonly hasHook: boolean },
): string | undefined {
  if (movableOf(state, worker).length === 0) return undefined;
  const { hook } = worker;
  if (state.isRestored) return "an older backup was restored: nothing is proven, and nobody fenced";
  if (hook.phase === "running") return "its power is being cut by the fence hook";
  const guarded = guardedOf(state, worker);
  const due = Math.min(...guarded.map(({ dueAt }) => dueAt));
  const parts: string[] = [];
  if (hook.phase === "waiting") parts.push(`the fence hook failed: ${hook.reason}`);
  if (guarded.length > 0) {
    parts.push(
      `its watchdog proves it dead in ${Math.max(0, Math.ceil((due - context.now) / 1_000))} s`,
    );
  }
  if (!context.hasHook && guarded.length === 0) {
    parts.push(
      "nothing proves it dead: no fence hook is configured, and it had no watchdog armed. See " +
        `that it is off, and say so: hostler vm fence --confirm ${worker.name}`,
    );
  }
  const healthy = [...state.workers.values()].filter(({ standing }) => standing === "healthy");
  if (context.hasHook && 2 * healthy.length < state.workers.size) {
    parts.push("most workers are not heard: this master may be cut off, and cuts no power");
  }
  return parts.length === 0 ? "its power is about to be cut by the fence hook" : parts.join("; ");
}

/** When time alone changes something next. */
export function wakeOf(draft: Draft): MonotonicTime | undefined {
  const { state, now, settings } = draft;
  const times = draft.workers().flatMap((worker) => {
    const since = silentSince(state, worker);
    const hook = worker.hook.phase === "waiting" ? [worker.hook.until] : [];
    const guarded = guardedOf(state, worker).map(({ dueAt }) => dueAt);
    return [since + settings.silentAfter, since + settings.lostAfter, ...hook, ...guarded];
  });
  if (state.isRestored) times.push(state.started + settings.lostAfter);
  const coming = times.filter((time) => time > now);
  return coming.length === 0 ? undefined : Math.min(...coming);
}
