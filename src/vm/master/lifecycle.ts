import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type { ReportReply } from "../protocol-master.ts";
import { applyStep } from "./lifecycle-apply.ts";
import { Draft } from "./lifecycle-draft.ts";
import { lostStep, silentSince, standingOf, wakeOf } from "./lifecycle-fence.ts";
import { adoptFound, answerOf, heardOnly, reportStep } from "./lifecycle-report.ts";
import { distrust, giveAnew, whyHeld, whyWaited } from "./lifecycle-restored.ts";
import { schedule } from "./lifecycle-schedule.ts";
import type {
  ClusterState,
  MasterEvent,
  MasterSettings,
  Refusal,
  Step,
  WorkerRecord,
  WorkerState,
} from "./lifecycle-state.ts";

/**
 * What a master decides: the next state, and what is written and done for it. Pure. A machine is at
 * one worker alone: it gets another one only after the record of the first says that it is gone
 * from there, because the worker said so, or because it was proven dead.
 */
export function step(
  state: ClusterState,
  event: MasterEvent,
  context: { readonly now: MonotonicTime; readonly settings: MasterSettings },
): Step {
  const draft = new Draft(state, context);
  const refusal = decide(draft, event);
  if (refusal !== undefined) return { state, effects: [], refusal, wakeAt: wakeOf(draft) };
  // Time passes with every event: a report that comes late is no sign of life of others.
  for (const worker of draft.workers()) lostStep(draft, worker.name);
  if (draft.state.isRestored) draft.replan();
  place(draft);
  return draft.finish({ wakeAt: wakeOf(draft), answer: replyTo(draft, event) });
}

/**
 * Last, because what it has may have become another's in this step. After a restored backup no
 * answer says what may run: a later owner may not have spoken yet.
 */
function replyTo({ state }: Draft, event: MasterEvent): ReportReply | undefined {
  if (event.kind !== "report") return undefined;
  const waited = whyWaited(state);
  if (waited !== undefined) return heardOnly(waited);
  return answerOf(state, event.worker, event.report);
}

function decide(draft: Draft, event: MasterEvent): Refusal | undefined {
  switch (event.kind) {
    case "apply":
      return applyStep(draft, event);
    case "report":
      return reportStep(draft, event.worker, event.report);
    case "cordon":
      return withWorker(draft, event.worker, ({ name, record }) => {
        if (record.cordoned !== event.cordoned) {
          draft.record(name, { ...record, cordoned: event.cordoned });
          draft.replan();
        }
        return undefined;
      });
    case "confirm":
      return confirm(draft, event.worker);
    case "forget":
      return forget(draft, event);
    case "hook-ended":
      return hookEnded(draft, event);
    case "numbers":
      draft.reserved(event.numbers);
      return undefined;
    case "place":
      draft.replan();
      return undefined;
    case "time":
      return undefined;
  }
}

function withWorker(
  draft: Draft,
  name: string,
  act: (worker: WorkerState) => Refusal | undefined,
): Refusal | undefined {
  const worker = draft.worker(name);
  if (worker !== undefined) return act(worker);
  return {
    kind: "not-found",
    message: `There is no worker ${name}`,
    expected: "a worker that has reported once",
    received: name,
    hint: "hostler vm workers lists them",
  };
}

/**
 * A person has seen to it that nothing of it runs. Where this master has not been there for long
 * enough to say that the worker is silent, that person may be wrong about which one it is.
 */
function confirm(draft: Draft, name: string): Refusal | undefined {
  return withWorker(draft, name, (worker) => {
    const standing = standingOf(draft, worker);
    if (standing === "unheard") {
      const { state, now, settings } = draft;
      const passed = now - state.started;
      const seconds = (time: Milliseconds) => Math.ceil(time / 1_000);
      return {
        kind: "conflict",
        message: `${name} may be there: this master was started, and has not heard it yet`,
        expected: `a worker that was not heard for ${seconds(settings.lostAfter)} s`,
        received: `one that had ${seconds(passed)} s to report, since the start`,
        hint: `Say it again in ${seconds(settings.lostAfter - passed)} s`,
      };
    }
    if (standing === "healthy") {
      return {
        kind: "conflict",
        message: `${name} is there: it has just reported, and its machines run`,
        expected: "a worker that is silent or lost",
        received: "one that is healthy",
        hint: "hostler vm cordon keeps further machines from it",
      };
    }
    draft.fence(name, "confirmed");
    return undefined;
  });
}

/** @param forGood somebody says that it will never start anything again */
function forget(
  draft: Draft,
  { worker: name, forGood }: Extract<MasterEvent, { kind: "forget" }>,
): Refusal | undefined {
  return withWorker(draft, name, (worker) => {
    const machines = Object.keys(worker.record.machines);
    const standing = standingOf(draft, worker);
    if (standing !== "lost") {
      const { settings, state, now } = draft;
      const left = Math.ceil((silentSince(state, worker) + settings.lostAfter - now) / 1_000);
      const isThere = standing === "healthy";
      return {
        kind: "conflict",
        message: `${name} cannot be forgotten: it is not lost`,
        expected: `a worker that was not heard for ${Math.ceil(settings.lostAfter / 1_000)} s`,
        received: `one that is ${standing}`,
        hint: isThere ? "Stop that worker first" : `It is lost in ${left} s, if it stays so`,
      };
    }
    if (machines.length > 0 && !forGood) {
      return {
        kind: "conflict",
        message: `${name} cannot be forgotten: it has machines`,
        expected: "a worker without machines",
        received: `one that has ${machines.length}`,
        hint: "--for-good says that it never comes back: its machines are made anew elsewhere",
      };
    }
    draft.unplace(machines);
    draft.forget(name);
    return undefined;
  });
}

function hookEnded(
  draft: Draft,
  event: Extract<MasterEvent, { kind: "hook-ended" }>,
): Refusal | undefined {
  const worker = draft.worker(event.worker);
  // Of a worker that was forgotten, or of an attempt before the store was read anew.
  if (worker?.hook.phase !== "running" || worker.hook.attempt !== event.attempt) return undefined;
  const { now, settings } = draft;
  if (worker.hook.overtaken) {
    draft.setWorker({ ...worker, hook: { phase: "idle" } });
    draft.say("warn", `${worker.name} was heard while its power was being cut: nothing is proven`);
    return undefined;
  }
  if (event.failure === undefined) {
    draft.setWorker({ ...worker, hook: { phase: "idle" } });
    draft.fence(worker.name, "hook");
    return undefined;
  }
  const { attempt } = event;
  const wait = Math.min(settings.hookRetry * 2 ** (attempt - 1), settings.longestHookRetry);
  const hook = { phase: "waiting", attempt, until: now + wait, reason: event.failure } as const;
  draft.setWorker({ ...worker, hook });
  draft.say(
    "warn",
    `${worker.name} is not fenced: ${event.failure}; its machines stay where they are`,
  );
  return undefined;
}

/** Gives machines that have no worker to the best one, as far as there are owner generations. */
function place(draft: Draft): void {
  if (!draft.isPlanDue()) return;
  adoptFound(draft);
  const held = whyHeld(draft);
  if (held !== undefined) {
    draft.hold(held);
    return;
  }
  if (draft.state.isRestored) {
    // Written before the reservation, with which the backup counts as made good: a master that is
    // killed in between does it once more.
    distrust(draft);
    giveAnew(draft);
    draft.reserveNumbers();
    return;
  }
  const { next, end } = draft.state.numbers;
  const { choices, unplaced } = schedule(draft.state, end - next);
  const byWorker = Map.groupBy(choices, ({ worker }) => worker);
  let number = next;
  for (const [name, chosen] of byWorker) {
    const worker = draft.worker(name);
    if (worker === undefined) continue;
    const machines = { ...worker.record.machines };
    const released = { ...worker.record.released };
    for (const { machine } of chosen) {
      machines[machine] = {
        owner_generation: number,
        movable: draft.state.desired.machines.get(machine)?.placement.movable === true,
        watchdog_ms: guardOf(draft, machine, worker),
      };
      delete released[machine];
      number += 1;
    }
    const record: WorkerRecord = { ...worker.record, machines, released };
    draft.give(
      name,
      record,
      chosen.map(({ machine }) => machine),
    );
  }
  draft.setNumbers({ next: number, end });
  draft.setUnplaced(unplaced);
  if (choices.length === end - next && hasRoomLeft(draft)) draft.reserveNumbers();
}

/** Machines that fit, and for which a number alone is missing. */
function hasRoomLeft(draft: Draft): boolean {
  return schedule(draft.state, 1).choices.length > 0;
}

/** The watchdog that its worker has armed already, when the machine may move. */
function guardOf(draft: Draft, machine: string, { heard }: WorkerState): number | null {
  const watchdog = heard?.report.watchdog;
  const isMovable = draft.state.desired.machines.get(machine)?.placement.movable === true;
  if (!isMovable || watchdog == null) return null;
  return watchdog.hardware && watchdog.stays_armed ? watchdog.timeout_ms : null;
}
