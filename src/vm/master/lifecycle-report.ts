import {
  MASTER_PROTOCOL_VERSION,
  masterLimits,
  type Report,
  type ReportAnswer,
  type ReportReply,
} from "../protocol-master.ts";
import type { Draft } from "./lifecycle-draft.ts";
import {
  type ClusterState,
  type Heard,
  isSamePlace,
  newRecord,
  newWorker,
  type Placed,
  placeOf,
  type Refusal,
  type WorkerRecord,
  type WorkerState,
} from "./lifecycle-state.ts";

/** What a worker's report changes, and what it is answered. Pure. */

/** Boots and processes of one worker that are remembered to have been followed by others. */
const MOST_SUPERSEDED = 16;

export function reportStep(draft: Draft, name: string, report: Report): Refusal | undefined {
  const known = draft.worker(name);
  if (known === undefined && draft.workers().length >= masterLimits.workers) {
    return {
      kind: "too-many",
      message: `No further worker is taken`,
      expected: `at most ${masterLimits.workers} workers`,
      received: "one more",
      hint: "hostler vm forget takes away one that is gone for good",
    };
  }
  const worker = known ?? newWorker(name, newRecord);
  const superseded = refuseSuperseded(draft, worker, report);
  if (superseded !== undefined) return superseded;
  // What it says is no news; it is answered all the same.
  if (isLate(worker.heard, report)) return undefined;
  hear(draft, worker, { report, isNew: known === undefined });
  goAbove(draft, name, report);
  adopt(draft, name, report);
  const record = draft.worker(name)?.record;
  if (record !== undefined) settle(draft, name, { record, report });
  return undefined;
}

/**
 * Another boot, or another process of it, has spoken since, and speaks on: this one is late, or a
 * copy. When the other falls silent, that one was the late one.
 */
function refuseSuperseded(
  { now, settings }: Draft,
  { superseded, name, heard }: WorkerState,
  report: Report,
): Refusal | undefined {
  const { boot, run } = report;
  if (!superseded.includes(boot) && !superseded.includes(run)) return undefined;
  if (heard === undefined || now - heard.at >= settings.silentAfter) return undefined;
  return {
    kind: "conflict",
    message: `Another process speaks for ${name} by now`,
    expected: "a report of the boot and the process that spoke last",
    received: `one of boot ${boot}`,
    hint: "One host may run one worker; two with one key are shown by hostler identity host list",
  };
}

/** Doubled, or overtaken by a later one of the same process. */
const isLate = (heard: Heard | undefined, report: Report) =>
  heard !== undefined &&
  heard.report.run === report.run &&
  report.sequence <= heard.report.sequence;

function hear(
  draft: Draft,
  worker: WorkerState,
  told: { readonly report: Report; readonly isNew: boolean },
): void {
  const { report, isNew } = told;
  const { name, heard, record } = worker;
  const former = heard?.report;
  const followed = [
    ...(former !== undefined && former.boot !== report.boot ? [former.boot] : []),
    ...(former !== undefined && former.run !== report.run ? [former.run] : []),
  ];
  const byName = new Map(report.machines.map((machine) => [machine.name, machine]));
  draft.setWorker({
    ...worker,
    heard: { report, at: draft.now, byName },
    superseded: [...worker.superseded, ...followed]
      .filter((word) => word !== report.boot && word !== report.run)
      .slice(-MOST_SUPERSEDED),
    // It is there: an attempt that is waited for is not made, and one under way proves nothing.
    hook: worker.hook.phase === "running" ? { ...worker.hook, overtaken: true } : { phase: "idle" },
  });
  if (isNew) {
    draft.record(name, record);
    draft.say("info", `${name} is a worker from now on`);
  }
  if (record.fenced !== null) welcome(draft, name, { record, report });
  if (isNew || former === undefined || mayMatter(former, report)) draft.replan();
}

/** Above it no revision is believed: one more must always be a number. */
const MOST_REVISION = 2 ** 52;

/** It was forgotten, and follows a later assignment than this master knows of: duty 3. */
function goAbove(draft: Draft, name: string, { observed }: Report): void {
  const record = draft.worker(name)?.record;
  if (record === undefined || observed?.incarnation !== draft.state.incarnation) return;
  const { revision } = observed;
  if (revision <= record.revision || revision > MOST_REVISION) return;
  draft.assign(name, { ...record, revision });
}

/** It was proven dead, and is back. */
function welcome(
  draft: Draft,
  name: string,
  told: { readonly record: WorkerRecord; readonly report: Report },
): void {
  const { record, report } = told;
  const { fenced } = record;
  draft.record(name, { ...record, fenced: null });
  if (fenced?.boot !== report.boot || fenced.how === "watchdog") {
    draft.say("info", `${name} is back; what moved away from it stays where it is`);
    return;
  }
  draft.say(
    "warn",
    `${name} is back in the boot that was said to be off (${fenced.how}): what proved it dead ` +
      "was wrong, or its last word came late; it is told to kill what moved away",
  );
}

/** What a machine that waits may get depends on these. */
function mayMatter(former: Report, report: Report): boolean {
  return (
    former.free.processors !== report.free.processors ||
    former.free.memory_bytes !== report.free.memory_bytes ||
    JSON.stringify(former.labels) !== JSON.stringify(report.labels)
  );
}

interface Held {
  readonly name: string;
  readonly owner_generation: number;
}

/** What a worker has by a master's word, and has not removed. */
export function heldOf(machines: Report["machines"]): readonly Held[] {
  return machines.flatMap(({ name, owner_generation, phase }) =>
    owner_generation === null || phase === "absent" || phase === "removed"
      ? []
      : [{ name, owner_generation }],
  );
}

/**
 * A worker holds a machine under a later number than this master knows of: an older backup was
 * restored. The later number counts, because whoever gave it had proof that the earlier is over.
 */
function adopt(draft: Draft, name: string, report: Report): void {
  for (const held of heldOf(report.machines)) {
    const owner = draft.worker(draft.state.placed.get(held.name) ?? "");
    const placed = owner?.record.machines[held.name];
    if (owner === undefined || placed === undefined) continue;
    if (held.owner_generation <= placed.owner_generation) continue;
    if (owner.name !== name) takeFrom(draft, owner, held.name);
    leave(draft, name, held);
  }
}

/**
 * Machines that are declared, that nobody has by this master's word, and that a worker was found to
 * hold: they stay there. Of several holders the one with the latest number has it.
 */
export function adoptFound(draft: Draft): void {
  const best = new Map<string, { readonly worker: string; readonly number: number }>();
  for (const { name: worker, record } of draft.workers()) {
    for (const [machine, number] of Object.entries(record.found)) {
      if (!draft.state.desired.machines.has(machine) || draft.state.placed.has(machine)) continue;
      if (number > (best.get(machine)?.number ?? 0)) best.set(machine, { worker, number });
    }
  }
  for (const [name, { worker, number }] of best) {
    leave(draft, worker, { name, owner_generation: number });
  }
}

function leave(draft: Draft, name: string, held: Held): void {
  const record = draft.worker(name)?.record;
  if (record === undefined) return;
  const given: Placed = {
    owner_generation: held.owner_generation,
    movable: false,
    watchdog_ms: null,
  };
  const machines = { ...record.machines, [held.name]: given };
  const released = without(record.released, [held.name]);
  const found = without(record.found, [held.name]);
  draft.give(name, { ...record, machines, released, found }, [held.name]);
  draft.say(
    "warn",
    `${held.name} is at ${name} by another word than this master's: it stays there`,
  );
}

function takeFrom(draft: Draft, { name, record }: WorkerState, machine: string): void {
  const { [machine]: placed, ...machines } = record.machines;
  if (placed === undefined) return;
  const released = { ...record.released, [machine]: placed.owner_generation };
  draft.assign(name, { ...record, machines, released });
}

/** Takes note of what is gone, and of watchdogs that are not what they were. */
function settle(
  draft: Draft,
  name: string,
  told: { readonly record: WorkerRecord; readonly report: Report },
): void {
  const { record, report } = told;
  const held = new Map(heldOf(report.machines).map((one) => [one.name, one.owner_generation]));
  // Only who follows the present assignment can say that it will not make the machine any more.
  const isUpToDate = isSamePlace(report.observed, placeOf(draft.state, name));
  const gone = isUpToDate
    ? Object.keys(record.machines).filter(
        (machine) => !draft.state.desired.machines.has(machine) && !held.has(machine),
      )
    : [];
  const heardOf = isUpToDate ? Object.keys(record.released).filter((one) => !held.has(one)) : [];
  const guards = changedGuards(record, report);
  const known = isUpToDate ? knownMovable(draft, guards ?? record.machines) : undefined;
  const found = foundOf(draft.state, name, report);
  const isFound = JSON.stringify(found) === JSON.stringify(record.found);
  const isSame = guards === undefined && known === undefined && isFound;
  if (isSame && gone.length + heardOf.length === 0) return;
  const machines = without(known ?? guards ?? record.machines, gone);
  const next = { ...record, machines, released: without(record.released, heardOf), found };
  if (!isFound) draft.replan();
  // What it no more has is nothing new to it; that a lease counts no more is.
  if (guards === undefined) draft.record(name, next);
  else draft.assign(name, next);
  if (gone.length > 0) draft.unplace(gone);
}

/** By name, so that the same machines are the same text. */
function foundOf(state: ClusterState, name: string, report: Report): WorkerRecord["found"] {
  const unknown = heldOf(report.machines).filter((held) => judge(state, name, held) === "unknown");
  const entries = unknown.map((held): [string, number] => [held.name, held.owner_generation]);
  return Object.fromEntries(entries.sort(([left], [right]) => (left < right ? -1 : 1)));
}

/** Machines that may move since, as the worker has heard by now. @returns undefined for none */
function knownMovable(
  draft: Draft,
  machines: WorkerRecord["machines"],
): WorkerRecord["machines"] | undefined {
  const { desired } = draft.state;
  const next = Object.entries(machines).map(([name, placed]): [string, Placed] => {
    const mayMove = desired.machines.get(name)?.placement.movable === true;
    return [name, mayMove && !placed.movable ? { ...placed, movable: true } : placed];
  });
  const isSame = next.every(([name, placed]) => machines[name] === placed);
  return isSame ? undefined : Object.fromEntries(next);
}

/**
 * A watchdog that is disarmed protects nothing from now on, and one that takes longer proves later.
 * @returns undefined when nothing changes
 */
function changedGuards(
  { machines }: WorkerRecord,
  { watchdog }: Report,
): WorkerRecord["machines"] | undefined {
  const isArmed = watchdog?.hardware === true && watchdog.stays_armed;
  const now = isArmed ? watchdog.timeout_ms : null;
  const next = Object.entries(machines).map(([name, placed]): [string, Placed] => {
    const { watchdog_ms } = placed;
    if (watchdog_ms === null) return [name, placed];
    return [name, { ...placed, watchdog_ms: now === null ? null : Math.max(now, watchdog_ms) }];
  });
  const isSame = next.every(
    ([name, { watchdog_ms }]) => machines[name]?.watchdog_ms === watchdog_ms,
  );
  return isSame ? undefined : Object.fromEntries(next);
}

export function without<T>(
  record: Readonly<Record<string, T>>,
  names: readonly string[],
): Readonly<Record<string, T>> {
  if (names.length === 0) return record;
  return Object.fromEntries(Object.entries(record).filter(([name]) => !names.includes(name)));
}

export function answerOf(state: ClusterState, name: string, report: Report): ReportAnswer {
  const held = heldOf(report.machines);
  return {
    kind: "answered",
    version: MASTER_PROTOCOL_VERSION,
    stale: held.filter((one) => judge(state, name, one) === "stale"),
    unknown: held.filter((one) => judge(state, name, one) === "unknown"),
    assignment: placeOf(state, name),
    lease_ms: masterLimits.leaseTime,
  };
}

/** It was heard, and is told nothing of what may run. */
export const heardOnly = (reason: string): ReportReply => ({
  kind: "heard",
  version: MASTER_PROTOCOL_VERSION,
  reason,
});

/** Whether what a worker holds is its own. */
export function judge(
  state: ClusterState,
  worker: string,
  held: Held,
): "own" | "stale" | "unknown" {
  const { name, owner_generation } = held;
  const record = state.workers.get(worker)?.record;
  const own = record?.machines[name];
  if (own !== undefined) return owner_generation < own.owner_generation ? "stale" : "own";
  if ((record?.released[name] ?? 0) >= owner_generation) return "stale";
  const holder = state.placed.get(name);
  if (holder !== undefined) return "stale";
  return "unknown";
}
