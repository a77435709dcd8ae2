import type { GuestState } from "../hypervisor/guest-state.ts";
import {
  backoffWait,
  countedStarts,
  defaultBackoff,
  describeStartLimit,
} from "../units/restarts.ts";
import type { MonotonicTime } from "../units/units.ts";
import {
  type CommonPart,
  type Context,
  type DetachCause,
  type EndReason,
  type HistoryEntry,
  type In,
  type Instance,
  type MachineEffect,
  type MachineState,
  type Of,
  type Outcome,
  orderLimits,
  type PhasePart,
  type Refusal,
  retryBackoff,
  type StopStage,
} from "./lifecycle-state.ts";

/** The moves of which the cells of the table are made: each leads to a phase, with its effects. */

type Change = Partial<CommonPart> & (PhasePart | { readonly phase?: never });

/** The same machine in another phase; what is true in every phase is kept unless changed. */
export function enter(
  state: MachineState,
  change: Change,
  effects: readonly MachineEffect[] = [],
): Outcome {
  const kept = change.phase === undefined ? state : commonOf(state);
  return { state: { ...kept, ...change } as MachineState, effects };
}

function commonOf(state: MachineState): CommonPart {
  const { wanted, prepared, restarts, begunBy, failures, recentStarts, ticket } = state;
  const { lastInvocation, lastEnding, beside, capture, reason } = state;
  const past = { lastInvocation, lastEnding, beside, capture, reason };
  return { wanted, prepared, restarts, begunBy, failures, recentStarts, ticket, ...past };
}

export const stay = (state: MachineState): Outcome => ({ state, effects: [] });
export const record = (entry: HistoryEntry): MachineEffect => ({ kind: "record", entry });

/** These effects first, then what followed. */
export function prepend(effects: readonly MachineEffect[], outcome: Outcome): Outcome {
  return { state: outcome.state, effects: [...effects, ...outcome.effects] };
}

/** Its memory and device state are held outside of a VMM, and a new one is to get them. */
export const isHeld = (state: MachineState): boolean => state.capture?.stage === "held";

/** Another host sends it, and has not given it yet. */
export const isArriving = (state: MachineState): boolean => state.capture?.stage === "arriving";

/** A VMM is to have the machine: the operator wants it, or what was captured must not be lost. */
export const needsVmm = (state: MachineState): boolean =>
  isHeld(state) || (state.wanted !== "absent" && state.wanted !== "off");

/**
 * Gives up what was captured: a VMM has the machine, or the operator does not want it back. It is
 * noted as spent first, so that no later worker gives it to a VMM, and none leaves it lying.
 */
export function forgetCapture(state: MachineState): Outcome {
  const { capture } = state;
  if (capture === undefined || capture.stage === "spent") return stay(state);
  const { id } = capture;
  return enter(state, { capture: { ...capture, stage: "spent" } }, [
    { kind: "forget-capture", capture: id },
    record({ what: "capture-forgotten", capture: id }),
  ]);
}

/** Nothing lives, and nothing is under way: what is wanted follows. */
export function rest(state: MachineState, context: Context): Outcome {
  if (needsVmm(state)) return begin(state, context);
  if (state.wanted === "absent" || isArriving(state)) return remove(state);
  const isNew = state.lastInvocation === undefined;
  return turnOff(state, state.reason ?? (isNew ? "it has not been booted" : "it was shut down"));
}

export function turnOff(state: MachineState, reason: string): Outcome {
  const change = { phase: "off", wanted: "off", reason, failures: 0 } as const;
  return enter(state, change, [record({ what: "off", reason })]);
}

export function fail(state: MachineState, reason: string): Outcome {
  return enter(state, { phase: "failed", reason }, [record({ what: "failed", reason })]);
}

export function remove(state: MachineState): Outcome {
  const forgotten = forgetCapture(state);
  const removing = { phase: "removing", wanted: "absent", retryAt: undefined } as const;
  return prepend(forgotten.effects, enter(forgotten.state, removing, [{ kind: "discard" }]));
}

/** What follows when the start limit does not let a start happen at that time. */
function failOverLimit(
  state: MachineState,
  { rules }: Context,
  at: MonotonicTime,
): Outcome | undefined {
  const { startLimit } = rules;
  // A limit is there to end a loop of crashes, not to drop a machine that a VMM is to get back.
  if (startLimit === "none" || isHeld(state)) return undefined;
  const recentStarts = countedStarts(state.recentStarts, startLimit, at);
  if (recentStarts.length < startLimit.starts) return undefined;
  const why = `the start limit is reached: ${describeStartLimit(startLimit)}`;
  const reason = state.reason === undefined ? why : `${why}; the last time: ${state.reason}`;
  return fail(enter(state, { recentStarts }).state, reason);
}

/** The next start, when the limit allows it: its disks, then its network, then its VMM. */
export function begin(state: MachineState, context: Context): Outcome {
  const { rules, now } = context;
  const failed = failOverLimit(state, context, now);
  if (failed !== undefined) return failed;
  const counted = countedStarts(state.recentStarts, rules.startLimit, now);
  const recentStarts = rules.startLimit === "none" || isHeld(state) ? counted : [...counted, now];
  const invocation = context.nextInvocation;
  const begun = enter(state, { recentStarts }).state;
  if (begun.prepared) return connectNetwork(begun, invocation);
  return enter(begun, { phase: "preparing", invocation }, [
    { kind: "prepare", invocation },
    record({ what: "prepare-requested", invocation }),
  ]);
}

export function connectNetwork(state: MachineState, invocation: string): Outcome {
  const effects: MachineEffect[] = [{ kind: "connect-network", invocation }];
  return enter(state, { phase: "preparing-network", invocation }, effects);
}

/** An operator's start: the past is forgiven. */
export function beginForgiven(state: MachineState, context: Context): Outcome {
  const forgiven = { failures: 0, recentStarts: [], reason: undefined };
  return begin(enter(state, { ...forgiven, begunBy: "operator" }).state, context);
}

export function spawn(state: MachineState, invocation: string, context: Context): Outcome {
  const answerBy = context.now + orderLimits.spawn;
  const { capture } = state;
  const kind = isArriving(state) ? "arriving" : "new";
  const beginning =
    capture?.stage === "held"
      ? ({ kind: "incoming", capture: capture.id } as const)
      : ({ kind } as const);
  return enter(state, { phase: "starting", invocation, answerBy }, [
    { kind: "spawn", invocation, beginning },
    record({ what: "start-requested", invocation }),
  ]);
}

/**
 * Starts again, at once or after the wait that so many failures in a row earn; fails now when the
 * start limit will still hold at the end of that wait.
 */
export function restart(
  state: MachineState,
  context: Context,
  change: { readonly failures: number; readonly wait: number },
): Outcome {
  const { failures, wait } = change;
  const counted = enter(state, { failures }).state;
  if (wait <= 0) return begin(counted, context);
  const until = context.now + wait;
  const failed = failOverLimit(counted, context, until);
  if (failed !== undefined) return failed;
  const effects = [record({ what: "backing-off", wait, failures })];
  return enter(counted, { phase: "backing-off", until }, effects);
}

/** A start was refused: by the rule, try again after a wait. */
export function startRefused(
  state: In<"preparing" | "preparing-network" | "starting">,
  refusal: Refusal,
  context: Context,
): Outcome {
  const { rules, random } = context;
  const refused = enter(state, { reason: refusal.message }).state;
  // The other host has it yet, and hears why it cannot come.
  if (isArriving(refused)) return remove(refused);
  if (!needsVmm(refused)) return rest(refused, context);
  if (!isHeld(refused) && (refusal.lasts || rules.restart === "never")) {
    return fail(refused, refusal.message);
  }
  const failures = state.failures + 1;
  const backoff = rules.backoff === "none" ? defaultBackoff : rules.backoff;
  return restart(refused, context, { failures, wait: backoffWait(backoff, failures + 1, random) });
}

/** The last VMM and all its rest are gone: what follows, by the operator's wish and the rule. */
export function decide(state: In<"clearing">, context: Context): Outcome {
  const { rules, random, now } = context;
  if (isArriving(state) || state.why === "elsewhere") return remove(state);
  if (!needsVmm(state)) return rest(state, context);
  if (state.why === "wish") return beginForgiven(state, context);
  if (state.why === "replace" && isHeld(state)) {
    return begin(enter(state, { begunBy: "replacement" }).state, context);
  }
  const byRule = enter(state, { begunBy: isHeld(state) ? "replacement" : "rule" }).state;
  if (!isHeld(state)) {
    const reason = state.reason ?? "its VMM ended";
    if (state.why === "off" && rules.restart !== "always") return turnOff(state, reason);
    if (rules.restart === "never") return fail(state, reason);
  }
  const { backoff } = rules;
  const resetAfter = backoff === "none" ? defaultBackoff.resetAfter : backoff.resetAfter;
  const ranFor = state.diedAt - state.instance.startedAt;
  // A VMM that was to be given what is held, and was not, has not run well for as long as it hung.
  const isLong = !isHeld(state) && state.why !== "unhealthy" && ranFor >= resetAfter;
  const failures = isLong ? 1 : state.failures + 1;
  if (backoff === "none" && !isHeld(state)) return restart(byRule, context, { failures, wait: 0 });
  // The wait counts from the death: the time that clearing took is part of it.
  const waits = backoff === "none" ? defaultBackoff : backoff;
  const wait = backoffWait(waits, failures, random) - (now - state.diedAt);
  return restart(byRule, context, { failures, wait });
}

/** A VMM lives and is to be reached: its state of the guest decides what follows. */
export function attach(state: MachineState, instance: Instance): Outcome {
  const ticket = state.ticket + 1;
  const capture = pendingOf(state);
  return enter(state, { ticket }, [{ kind: "attach", instance, ticket, capture }]);
}

/** A capture of which nobody has said yet that it is whole. */
export const pendingOf = ({ capture }: MachineState): string | undefined =>
  capture?.stage === "pending" ? capture.id : undefined;

/** A new VMM was spawned: it has to answer within its time. */
export function connect(state: MachineState, instance: Instance, context: Context): Outcome {
  const answerBy = context.now + orderLimits.connect;
  const asked = attach(enter(state, { reason: undefined }).state, instance);
  const connecting = { phase: "connecting", instance, answerBy, retryAt: undefined } as const;
  return prepend(asked.effects, enter(asked.state, connecting));
}

/** Why a VMM is to be reached anew. */
export interface Detachment {
  readonly reason: string;
  readonly cause: DetachCause;
}

/**
 * The connection to a VMM is gone, or is not believed. Its guest runs: it is asked again and
 * again, and nothing is ended for it.
 */
export function detach(
  state: MachineState,
  instance: Instance,
  { reason, cause }: Detachment,
  context: Context,
): Outcome {
  const { now, rules } = context;
  const asked = attach(enter(state, { reason }).state, instance);
  const detached = {
    phase: "detached",
    instance,
    attempts: 0,
    cause,
    since: now,
    retryAt: undefined,
    answerBy: now + orderLimits.attach,
    stopBy: needsVmm(state) ? undefined : now + rules.shutdownGrace,
  } as const;
  const told = record({ what: "detached", invocation: instance.invocation, reason });
  return prepend([told, ...asked.effects], enter(asked.state, detached));
}

export function retryWait(attempts: number, random: number): number {
  return backoffWait(retryBackoff, attempts + 1, random);
}

type PlainCall = "create" | "boot" | "pause" | "resume" | "press-power-button" | "quit";

/** An order to a VMM, under the next number. */
export function order(
  state: MachineState,
  kind: PlainCall,
  instance: Instance,
): { readonly ticket: number; readonly effect: MachineEffect } {
  const ticket = state.ticket + 1;
  return { ticket, effect: { kind, instance, ticket } };
}

const phaseOf = {
  create: "creating",
  boot: "booting",
  pause: "pausing",
  resume: "resuming",
} as const;

/** Gives an order, and waits for its answer in the phase that is named after it. */
export function call(
  state: MachineState,
  kind: keyof typeof phaseOf,
  instance: Instance,
  context: Context,
): Outcome {
  const { ticket, effect } = order(state, kind, instance);
  const answerBy = context.now + orderLimits.call;
  return enter(state, { phase: phaseOf[kind], instance, answerBy, ticket }, [effect]);
}

/** Gives the held state to a VMM that waits for it. */
export function restore(
  state: MachineState,
  instance: Instance,
  capture: string,
  context: Context,
): Outcome {
  const ticket = state.ticket + 1;
  const answerBy = context.now + orderLimits.restore;
  const effect = { kind: "restore", instance, ticket, capture } as const;
  return enter(state, { phase: "restoring", instance, answerBy, ticket }, [effect]);
}

/** Lets its VMM take what another host sends. */
function receive(state: MachineState, instance: Instance, migration: string): Outcome {
  const ticket = state.ticket + 1;
  return enter(state, { phase: "receiving", instance, ticket }, [
    { kind: "receive", instance, ticket, migration },
    record({ what: "receiving", migration }),
  ]);
}

/**
 * A VMM has told how its guest is: on towards what is wanted. A VMM that was given the captured
 * state, and says that its guest is paused or runs, has the machine: the state is not needed.
 */
export function settle(
  state: MachineState,
  instance: Instance,
  guest: GuestState,
  context: Context,
): Outcome {
  const { capture } = state;
  if (isArriving(state) && capture !== undefined) {
    if (guest === "incoming" || guest === "empty") return receive(state, instance, capture.id);
    const reason = `its VMM was to wait for what another host sends, and its guest is ${guest}`;
    return crash(state, instance, reason, context);
  }
  if (guest === "incoming" || guest === "empty") {
    if (isHeld(state) && capture !== undefined) {
      return restore(state, instance, capture.id, context);
    }
    const waits = "its VMM waits for a state that nobody holds";
    const reason = guest === "incoming" ? waits : "its VMM has lost its machine";
    return end(enter(state, { reason }).state, instance, { why: "crash", stage: "kill" }, context);
  }
  if (guest === "created" && isHeld(state)) {
    const reason = "its VMM was to wait for the held state, and made a new machine";
    return end(enter(state, { reason }).state, instance, { why: "crash", stage: "kill" }, context);
  }
  const forgotten = forgetCapture(state);
  return prepend(forgotten.effects, settleGuest(forgotten.state, instance, guest, context));
}

function settleGuest(
  state: MachineState,
  instance: Instance,
  guest: Exclude<GuestState, "incoming" | "empty">,
  context: Context,
): Outcome {
  if (guest === "off") return guestOff(state, instance, "guest", context);
  if (guest === "panicked") {
    const reason = "its guest panicked";
    return end(enter(state, { reason }).state, instance, { why: "crash", stage: "kill" }, context);
  }
  if (!needsVmm(state)) return stopGuest(state, instance, guest, context);
  if (guest === "created") {
    if (state.wanted !== "created") return call(state, "boot", instance, context);
    return enter(state, { phase: "created", instance });
  }
  if (guest === "running") {
    if (state.wanted === "paused") return call(state, "pause", instance, context);
    return run(state, instance, context);
  }
  if (state.wanted === "running") return call(state, "resume", instance, context);
  return enter(state, { phase: "paused", instance, wanted: "paused" });
}

export function run(state: MachineState, instance: Instance, context: Context): Outcome {
  const running = { phase: "running", instance, since: context.now, wanted: "running" } as const;
  return enter(state, running);
}

/** Nobody wants it to run: a guest that runs is asked, a paused one is woken to be asked. */
export function stopGuest(
  state: MachineState,
  instance: Instance,
  guest: "created" | "running" | "paused",
  context: Context,
): Outcome {
  if (guest === "paused") return call(state, "resume", instance, context);
  const stage = guest === "running" ? "button" : "quit";
  return end(state, instance, { why: "wish", stage }, context);
}

/** Ends a VMM, from this stage on: each has its time, and then the next one comes. */
export function end(
  state: MachineState,
  instance: Instance,
  { why, stage }: { readonly why: EndReason; readonly stage: StopStage },
  context: Context,
): Outcome {
  const { invocation } = instance;
  if (stage === "kill") {
    const stopping = { phase: "stopping", instance, why, stage, until: undefined } as const;
    const effects: MachineEffect[] = [
      { kind: "kill", instance },
      record({ what: "killed", invocation }),
    ];
    return enter(state, stopping, effects);
  }
  const isButton = stage === "button";
  const { ticket, effect } = order(state, isButton ? "press-power-button" : "quit", instance);
  const until = context.now + (isButton ? context.rules.shutdownGrace : orderLimits.quit);
  const stopping = { phase: "stopping", instance, why, stage, until, ticket } as const;
  const isFirst = state.phase !== "stopping";
  const effects = isFirst ? [effect, record({ what: "stop-requested", invocation })] : [effect];
  return enter(state, stopping, effects);
}

/** The guest has ended; its VMM may still be there. */
export function guestOff(
  state: MachineState,
  instance: Instance,
  by: "guest" | "host",
  context: Context,
): Outcome {
  const { invocation } = instance;
  const reason = by === "guest" ? "its guest shut itself down" : "its VMM was told to end it";
  const why = needsVmm(state) ? ("off" as const) : ("wish" as const);
  const told = record({ what: "guest-off", invocation, by });
  const known = enter(state, { reason }).state;
  return prepend([told], end(known, instance, { why, stage: "quit" }, context));
}

/** It is broken: its VMM is ended at once, and the rule of restarts follows. */
export function crash(
  state: MachineState,
  instance: Instance,
  reason: string,
  context: Context,
): Outcome {
  const known = enter(state, { reason }).state;
  return end(known, instance, { why: "crash", stage: "kill" }, context);
}

/** A start that nobody waits for any more happened after all: never two. */
export function straggler(
  state: MachineState,
  event: Of<"spawned" | "found">,
  context: Context,
): Outcome {
  const { invocation, processId, startTicks } = event;
  if (invocation === state.lastInvocation) return stay(state);
  const instance: Instance = { invocation, processId, startTicks, startedAt: context.now };
  return { state, effects: [{ kind: "kill", instance }, record({ what: "killed", invocation })] };
}
