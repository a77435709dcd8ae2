import type { Milliseconds, MonotonicTime } from "../units/units.ts";

/**
 * Whether a machine does what it is there for, as its checks tell. Pure: time comes in, and what is
 * to be done comes out. What an unhealthy machine leads to is the lifecycle's matter.
 */

export type HealthCheck =
  | { readonly kind: "tcp"; readonly port: number }
  | {
      readonly kind: "http";
      readonly port: number;
      /** With its slash. */
      readonly path: string;
      /** What is fine, both included. */
      readonly status: { readonly least: number; readonly most: number };
      /** A pattern that must be in the body; undefined: any body. */
      readonly body: string | undefined;
    }
  /** The agent in the guest answers a ping. */
  | { readonly kind: "agent" }
  /** A pattern that a line of the serial console must have had since the boot. */
  | { readonly kind: "serial"; readonly pattern: string };

export interface HealthPlan {
  readonly check: HealthCheck;
  /** From the beginning of one probe to that of the next. */
  readonly interval: Milliseconds;
  /** A probe that takes longer has failed. */
  readonly timeout: Milliseconds;
  /** So many failures in a row make a machine unhealthy. */
  readonly unhealthyAfter: number;
  /** So many successes in a row make it healthy. */
  readonly healthyAfter: number;
  /** From a boot, or an adoption, on: until then failures do not count. */
  readonly grace: Milliseconds;
  /** restart: an unhealthy machine is stopped, and the rule of restarts follows. */
  readonly onUnhealthy: "tell" | "restart";
  /** In which the guest of such a machine must be off, before its VMM is told to end. */
  readonly stopGrace: Milliseconds;
}

/** The next probe, or the one under way. Numbers rise for as long as the worker runs. */
export type Probing =
  | { readonly kind: "waiting"; readonly until: MonotonicTime; readonly next: number }
  | { readonly kind: "asking"; readonly since: MonotonicTime; readonly number: number };

export type HealthState =
  /** The machine does not run: nothing is asked of it. */
  | { readonly phase: "resting"; readonly next: number }
  /** It runs, and neither health nor the lack of it has been shown. */
  | {
      readonly phase: "starting";
      readonly graceUntil: MonotonicTime;
      readonly successes: number;
      readonly failures: number;
      readonly probing: Probing;
    }
  | { readonly phase: "healthy"; readonly failures: number; readonly probing: Probing }
  | {
      readonly phase: "unhealthy";
      readonly successes: number;
      /** Of the last failure. */
      readonly reason: string;
      readonly probing: Probing;
    };

export type ProbeOutcome =
  | { readonly kind: "passed" }
  | { readonly kind: "failed"; readonly reason: string }
  /** Nobody can tell: neither a success nor a failure. */
  | { readonly kind: "unknown"; readonly reason: string };

export type HealthEvent =
  /** It runs from now on; without `booted` it ran before (resumed, replaced) and gets no grace. */
  | { readonly kind: "running"; readonly booted: boolean }
  /** It is paused, off, or being changed under: no answer would say anything. */
  | { readonly kind: "stopped" }
  /** A moment has come that was asked for. */
  | { readonly kind: "time" }
  | { readonly kind: "answered"; readonly number: number; readonly outcome: ProbeOutcome };

export type HealthEffect =
  /** Ask, and give the answer as an event with this number. */
  | { readonly kind: "probe"; readonly number: number; readonly timeout: Milliseconds }
  /** Nobody waits for that answer any more. */
  | { readonly kind: "abandon"; readonly number: number }
  | { readonly kind: "wake"; readonly at: MonotonicTime }
  /** For the lifecycle, and for whoever looks. */
  | { readonly kind: "turned"; readonly turn: HealthTurn };

/** A machine became healthy, or unhealthy. */
export type HealthTurn =
  | { readonly to: "healthy" }
  | { readonly to: "unhealthy"; readonly failures: number; readonly reason: string };

export interface HealthStep {
  readonly state: HealthState;
  readonly effects: readonly HealthEffect[];
}

export const initialHealth: HealthState = { phase: "resting", next: 1 };

/** The next state, and what is to be done. */
export function stepHealth(
  plan: HealthPlan,
  state: HealthState,
  event: HealthEvent,
  now: MonotonicTime,
): HealthStep {
  switch (event.kind) {
    case "running":
      return run(plan, state, event.booted, now);
    case "stopped":
      return rest(state);
    case "time":
      return state.phase === "resting" ? unchanged(state) : onTime(plan, state, now);
    case "answered":
      return state.phase === "resting"
        ? // Its probe was abandoned.
          unchanged(state)
        : onAnswer(plan, state, event, now);
  }
}

type Watched = Exclude<HealthState, { readonly phase: "resting" }>;

const unchanged = (state: HealthState): HealthStep => ({ state, effects: [] });

function run(
  plan: HealthPlan,
  state: HealthState,
  booted: boolean,
  now: MonotonicTime,
): HealthStep {
  // Told twice that it runs: only a boot begins anew.
  if (state.phase !== "resting" && !booted) return unchanged(state);
  const number = nextNumber(state);
  const graceUntil = booted ? now + plan.grace : now;
  const begun = ask(plan, { number, now });
  const probing = begun.probing;
  const next: HealthState = { phase: "starting", graceUntil, successes: 0, failures: 0, probing };
  return { state: next, effects: [...abandonOf(state), ...begun.effects] };
}

function rest(state: HealthState): HealthStep {
  if (state.phase === "resting") return unchanged(state);
  return { state: { phase: "resting", next: nextNumber(state) }, effects: abandonOf(state) };
}

function nextNumber(state: HealthState): number {
  if (state.phase === "resting") return state.next;
  const { probing } = state;
  return probing.kind === "asking" ? probing.number + 1 : probing.next;
}

function abandonOf(state: HealthState): HealthEffect[] {
  if (state.phase === "resting" || state.probing.kind === "waiting") return [];
  return [{ kind: "abandon", number: state.probing.number }];
}

function ask(
  { timeout }: HealthPlan,
  { number, now }: { readonly number: number; readonly now: MonotonicTime },
): { readonly probing: Probing; readonly effects: readonly HealthEffect[] } {
  return {
    probing: { kind: "asking", since: now, number },
    effects: [
      { kind: "probe", number, timeout },
      { kind: "wake", at: now + timeout },
    ],
  };
}

function onTime(plan: HealthPlan, state: Watched, now: MonotonicTime): HealthStep {
  const { probing } = state;
  if (probing.kind === "waiting") {
    // A moment that was asked for earlier, and is of no use any more.
    if (now < probing.until) return unchanged(state);
    const begun = ask(plan, { number: probing.next, now });
    return { state: { ...state, probing: begun.probing }, effects: begun.effects };
  }
  if (now < probing.since + plan.timeout) return unchanged(state);
  const reason = `no answer within ${plan.timeout} ms`;
  const judged = judge(plan, state, { kind: "failed", reason }, now);
  return { ...judged, effects: [...abandonOf(state), ...judged.effects] };
}

function onAnswer(
  plan: HealthPlan,
  state: Watched,
  { number, outcome }: Extract<HealthEvent, { kind: "answered" }>,
  now: MonotonicTime,
): HealthStep {
  const { probing } = state;
  // It was given up before, or abandoned.
  if (probing.kind !== "asking" || probing.number !== number) return unchanged(state);
  return judge(plan, state, outcome, now);
}

/** What an answer makes of the state, and when the next is asked for. */
function judge(
  plan: HealthPlan,
  state: Watched,
  outcome: ProbeOutcome,
  now: MonotonicTime,
): HealthStep {
  const { probing } = state;
  const since = probing.kind === "asking" ? probing.since : now;
  const until = Math.max(now, since + plan.interval);
  const waiting: Probing = { kind: "waiting", until, next: nextNumber(state) };
  const judged = weigh(plan, state, outcome, { now, waiting });
  return { ...judged, effects: [...judged.effects, { kind: "wake", at: until }] };
}

function weigh(
  plan: HealthPlan,
  state: Watched,
  outcome: ProbeOutcome,
  { now, waiting }: { readonly now: MonotonicTime; readonly waiting: Probing },
): HealthStep {
  switch (outcome.kind) {
    case "passed":
      return pass(plan, state, waiting);
    case "failed":
      return fail(plan, state, { reason: outcome.reason, now, waiting });
    case "unknown":
      return unchanged({ ...state, probing: waiting });
  }
}

function pass(plan: HealthPlan, state: Watched, probing: Probing): HealthStep {
  if (state.phase === "healthy") return unchanged({ ...state, failures: 0, probing });
  const successes = state.successes + 1;
  if (successes < plan.healthyAfter) {
    const failures = state.phase === "starting" ? { failures: 0 } : {};
    return unchanged({ ...state, ...failures, successes, probing });
  }
  return {
    state: { phase: "healthy", failures: 0, probing },
    effects: [{ kind: "turned", turn: { to: "healthy" } }],
  };
}

interface Failure {
  readonly reason: string;
  readonly now: MonotonicTime;
  readonly waiting: Probing;
}

function fail(plan: HealthPlan, state: Watched, { reason, now, waiting }: Failure): HealthStep {
  const probing = waiting;
  if (state.phase === "unhealthy") return unchanged({ ...state, successes: 0, reason, probing });
  const isInGrace = state.phase === "starting" && now < state.graceUntil;
  const failures = isInGrace ? 0 : state.failures + 1;
  if (failures < plan.unhealthyAfter) {
    const successes = state.phase === "starting" ? { successes: 0 } : {};
    return unchanged({ ...state, ...successes, failures, probing });
  }
  return {
    state: { phase: "unhealthy", successes: 0, reason, probing },
    effects: [{ kind: "turned", turn: { to: "unhealthy", failures, reason } }],
  };
}
