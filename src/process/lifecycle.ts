import type { Ending } from "../units/ending.ts";
import {
  backoffWait,
  countedStarts,
  defaultBackoff,
  describeStartLimit,
} from "../units/restarts.ts";
import { formatDuration, type Milliseconds, type MonotonicTime } from "../units/units.ts";
import type { ProcessSpecification } from "./specification.ts";

/**
 * The life of one supervised process: `step` decides, the driver performs. Every phase × every
 * event stands in `table`; a cell that does nothing names its reason.
 */

/** Why a start was refused, as the kernel or the agent said. */
export interface Refusal {
  readonly message: string;
  /** The name of the error number, such as "ENOENT", where there is one. */
  readonly code: string | undefined;
}

/** One running instance. */
export interface Instance {
  /** 128 random bits, in hexadecimal: the child's INVOCATION_ID. */
  readonly invocation: string;
  /** As the host sees it. */
  readonly processId: number;
  readonly startedAt: MonotonicTime;
}

/** What is true in every phase. */
interface Common {
  /** What the operator wants. */
  readonly wanted: boolean;
  /** Instances that followed another one by the rule or by `restart`, of this orchestrator. */
  readonly restarts: number;
  /** What the start under way, or the next one, comes from: one by `start` is no restart. */
  readonly begunBy: "start" | "restart";
  /** Starts that were refused, since the orchestrator began. */
  readonly refusedStarts: number;
  /** Quick deaths and refused starts in a row: the first restarts at once, further ones wait. */
  readonly failures: number;
  /** When the last starts were; bounded by the start limit. */
  readonly recentStarts: readonly MonotonicTime[];
  /** The newest instance that there was. */
  readonly lastInvocation: string | undefined;
  /** How the newest dead instance ended; undefined while nobody has told. */
  readonly lastEnding: Ending | undefined;
  /** Dead instances whose endings nobody has told, the newest last; the oldest are given up. */
  readonly awaitedEndings: readonly string[];
  /** An ending that was told before the kernel reported the death, which alone is believed. */
  readonly toldEnding: { readonly invocation: string; readonly ending: Ending } | undefined;
}

/** Why an instance is being stopped, which is what follows its end. */
export type StopReason = "stop" | "restart" | "unready" | "unhealthy";

/** The phases, each with what is true only in it. */
type Phases =
  | { readonly phase: "idle" }
  | { readonly phase: "waiting" }
  | { readonly phase: "starting"; readonly invocation: string; readonly answerBy: MonotonicTime }
  | { readonly phase: "uncertain"; readonly invocation: string }
  | { readonly phase: "running"; readonly instance: Instance; readonly readyBy: MonotonicTime }
  | { readonly phase: "ready"; readonly instance: Instance; readonly readyAt: MonotonicTime }
  | {
      readonly phase: "stopping";
      readonly instance: Instance;
      readonly why: StopReason;
      /** Undefined once SIGKILL has been sent. */
      readonly killAt: MonotonicTime | undefined;
    }
  | {
      readonly phase: "clearing";
      readonly instance: Instance;
      /** Undefined when it died by itself. */
      readonly why: StopReason | undefined;
      readonly diedAt: MonotonicTime;
      readonly ending: Ending | undefined;
      /** Undefined until the rest of the instance is gone; then its ending is awaited so long. */
      readonly endingBy: MonotonicTime | undefined;
    }
  | { readonly phase: "backing-off"; readonly until: MonotonicTime }
  | { readonly phase: "finished" }
  | { readonly phase: "failed"; readonly reason: string };

export type ProcessState = Common & Phases;
export type Phase = ProcessState["phase"];
type In<P extends Phase> = Extract<ProcessState, { phase: P }>;

/** What can happen to a process. Events of an instance carry its invocation: late ones are told. */
export type ProcessEvent =
  | { readonly kind: "start" }
  | { readonly kind: "stop"; readonly hurry: boolean }
  | { readonly kind: "restart" }
  | { readonly kind: "unblocked" }
  | { readonly kind: "started"; readonly invocation: string; readonly processId: number }
  | { readonly kind: "start-refused"; readonly invocation: string; readonly refusal: Refusal }
  | { readonly kind: "answer-lost"; readonly invocation: string }
  | { readonly kind: "found"; readonly invocation: string; readonly processId: number }
  | { readonly kind: "not-found"; readonly invocation: string }
  | { readonly kind: "became-ready"; readonly invocation: string }
  /** It was ready, and does its work no more. */
  | { readonly kind: "unhealthy"; readonly invocation: string; readonly reason: string }
  | { readonly kind: "died"; readonly invocation: string; readonly ending: Ending | undefined }
  | { readonly kind: "ending-known"; readonly invocation: string; readonly ending: Ending }
  | { readonly kind: "cleared"; readonly invocation: string }
  | { readonly kind: "deadline" };
export type EventKind = ProcessEvent["kind"];
type Of<K extends EventKind> = Extract<ProcessEvent, { kind: K }>;

/** What is to be done. */
export type ProcessEffect =
  | { readonly kind: "start"; readonly invocation: string; readonly replaces: string | undefined }
  | { readonly kind: "find"; readonly invocation: string }
  | { readonly kind: "watch-readiness"; readonly instance: Instance }
  | { readonly kind: "forget-readiness"; readonly invocation: string }
  | { readonly kind: "watch-liveness"; readonly instance: Instance }
  | { readonly kind: "forget-liveness"; readonly invocation: string }
  | { readonly kind: "signal"; readonly instance: Instance; readonly signal: number }
  | { readonly kind: "kill"; readonly instance: Instance }
  | { readonly kind: "clear"; readonly instance: Instance }
  | { readonly kind: "record"; readonly entry: HistoryEntry };
export type EffectKind = ProcessEffect["kind"];

/** What is kept of the past, and told to subscribers. */
export type HistoryEntry =
  | { readonly what: "start-requested"; readonly invocation: string }
  | { readonly what: "started"; readonly invocation: string; readonly processId: number }
  | { readonly what: "adopted"; readonly invocation: string; readonly processId: number }
  | { readonly what: "start-refused"; readonly invocation: string; readonly refusal: Refusal }
  | { readonly what: "uncertain"; readonly invocation: string }
  | { readonly what: "ready"; readonly invocation: string; readonly after: Milliseconds }
  | { readonly what: "readiness-timeout"; readonly invocation: string }
  | { readonly what: "unhealthy"; readonly invocation: string; readonly reason: string }
  /** It does its work no more, and is left running; and it does again. Noted by the driver. */
  | { readonly what: "degraded"; readonly invocation: string; readonly reason: string }
  | { readonly what: "recovered"; readonly invocation: string }
  | { readonly what: "stop-requested"; readonly invocation: string }
  | { readonly what: "killed"; readonly invocation: string }
  | { readonly what: "died"; readonly invocation: string; readonly ranFor: Milliseconds }
  | { readonly what: "ended"; readonly invocation: string; readonly ending: Ending }
  | { readonly what: "backing-off"; readonly wait: Milliseconds; readonly failures: number }
  | { readonly what: "failed"; readonly reason: string }
  /** One that it comes after has died, or does its work no more: it is stopped, or restarted. */
  | { readonly what: "dependency-failed"; readonly dependency: string }
  /** An orchestrator that was killed had it, and the next one cannot go on with it. */
  | { readonly what: "lost"; readonly invocation: string; readonly reason: string }
  /** Who fled from a dead instance into another session; noted by the driver. */
  | { readonly what: "strays-ended"; readonly count: number };

/** What a decision may look at beside the state and the event. Time and chance are arguments. */
export interface Context {
  readonly specification: ProcessSpecification;
  readonly now: MonotonicTime;
  /** 0 (included) to 1 (excluded). */
  readonly random: number;
  /** The id that the next start would carry. */
  readonly nextInvocation: string;
  /** The partition takes requests, or there is none to ask. */
  readonly reachable: boolean;
  /** All that this process comes after is ready. */
  readonly dependenciesReady: boolean;
}

export interface Outcome {
  readonly state: ProcessState;
  readonly effects: readonly ProcessEffect[];
}

type Handler<P extends Phase, K extends EventKind> = (
  state: In<P>,
  event: Of<K>,
  context: Context,
) => Outcome;
interface Ignored {
  readonly ignored: string;
}
export type Table = {
  readonly [P in Phase]: { readonly [K in EventKind]: Handler<P, K> | Ignored };
};

/** A start that is not answered within this time is uncertain. */
export const START_ANSWER_LIMIT: Milliseconds = 10_000;

/** An ending that decides over a restart, and is not told within this time, is unknown. */
export const ENDING_LIMIT: Milliseconds = 5_000;

/** An ending that was not told in time. One that is told later is believed all the same. */
export const nobodyTold: Ending = {
  kind: "unknown",
  reason: `nobody told within ${formatDuration(ENDING_LIMIT)}`,
};

/** So many endings may be awaited at once; a restart does not wait for them. */
export const AWAITED_ENDINGS_LIMIT = 16;

export const initialState: ProcessState = {
  phase: "idle",
  wanted: false,
  restarts: 0,
  begunBy: "start",
  refusedStarts: 0,
  failures: 0,
  recentStarts: [],
  lastInvocation: undefined,
  lastEnding: undefined,
  awaitedEndings: [],
  toldEnding: undefined,
};

const ignored = (reason: string): Ignored => ({ ignored: reason });
const record = (entry: HistoryEntry): ProcessEffect => ({ kind: "record", entry });

type Change = Partial<Common> & (Phases | { readonly phase?: never });

/** The same process in another phase; what is true in every phase is kept unless changed. */
function enter(
  state: ProcessState,
  change: Change,
  effects: readonly ProcessEffect[] = [],
): Outcome {
  const kept = change.phase === undefined ? state : commonOf(state);
  return { state: { ...kept, ...change } as ProcessState, effects };
}

/** What is true in every phase, alone. */
export function commonOf(state: ProcessState): Common {
  const { wanted, restarts, begunBy, refusedStarts, failures, recentStarts } = state;
  const { lastInvocation, lastEnding, awaitedEndings, toldEnding } = state;
  const past = { lastInvocation, lastEnding, awaitedEndings, toldEnding };
  return { wanted, restarts, begunBy, refusedStarts, failures, recentStarts, ...past };
}

const stay = (state: ProcessState): Outcome => ({ state, effects: [] });

/** What follows when the start limit does not let a start happen at that time. */
function failOverLimit(
  state: ProcessState,
  specification: ProcessSpecification,
  at: MonotonicTime,
): Outcome | undefined {
  const { startLimit } = specification;
  const recentStarts = countedStarts(state.recentStarts, startLimit, at);
  if (startLimit === "none" || recentStarts.length < startLimit.starts) return undefined;
  const reason = `the start limit is reached: ${describeStartLimit(startLimit)}`;
  const effects = [record({ what: "failed", reason })];
  return enter(state, { phase: "failed", reason, recentStarts }, effects);
}

/** Starts now when the partition is reachable and the limit allows it; else waits or fails. */
function begin(state: ProcessState, context: Context): Outcome {
  const { specification, now } = context;
  const { startLimit } = specification;
  if (!context.reachable) return enter(state, { phase: "waiting" });
  const failed = failOverLimit(state, specification, now);
  if (failed !== undefined) return failed;
  const counted = countedStarts(state.recentStarts, startLimit, now);
  const recentStarts = startLimit === "none" ? counted : [...counted, now];
  const invocation = context.nextInvocation;
  const answerBy = now + START_ANSWER_LIMIT;
  return enter(state, { phase: "starting", invocation, answerBy, recentStarts }, [
    { kind: "start", invocation, replaces: state.lastInvocation },
    record({ what: "start-requested", invocation }),
  ]);
}

/** An operator's start or restart: order is kept, and the past is forgiven. */
function beginWanted(state: ProcessState, context: Context): Outcome {
  const forgiven = enter(state, { wanted: true, failures: 0, recentStarts: [] }).state;
  if (!context.dependenciesReady) return enter(forgiven, { phase: "waiting" });
  return begin(forgiven, context);
}

/** A start that is asked for while another is on its way anyway only hastens that one. */
function begunAfter(state: ProcessState, wish: "start" | "stop" | "restart"): Common["begunBy"] {
  if (wish === "restart") return "restart";
  const isOver = isAtRest(state) || !state.wanted;
  return wish === "start" && isOver ? "start" : state.begunBy;
}

const isFailure = (ending: Ending) => !(ending.kind === "exited" && ending.status === 0);

/**
 * Restarts, at once or after the wait that this many failures in a row earn; fails now when the
 * start limit will still hold at the end of that wait.
 */
function restart(
  state: ProcessState,
  context: Context,
  change: { failures: number; wait: number },
) {
  const { failures, wait } = change;
  const counted = enter(state, { failures }).state;
  if (wait <= 0) return begin(counted, context);
  const until = context.now + wait;
  // A wait for a start that cannot be made would only hide that it has failed. Where the partition
  // is away, the start may have to wait longer, and the window moves on meanwhile.
  const failed = context.reachable
    ? failOverLimit(counted, context.specification, until)
    : undefined;
  if (failed !== undefined) return failed;
  const effects = [record({ what: "backing-off", wait, failures })];
  return enter(counted, { phase: "backing-off", until }, effects);
}

/** The instance and all its rest are gone: what follows, by the operator's wish and the rule. */
function decide(state: In<"clearing">, context: Context): Outcome {
  const { specification } = context;
  if (!state.wanted) return enter(state, { phase: "idle" });
  if (state.why === "restart") return beginWanted(state, context);
  if (specification.restart === "never") return enter(state, { phase: "finished" });
  if (specification.restart === "on-failure" && state.why === undefined) {
    if (state.ending === undefined) {
      return enter(state, { ...state, endingBy: context.now + ENDING_LIMIT });
    }
    if (!isFailure(state.ending)) return enter(state, { phase: "finished" });
  }
  const { backoff } = specification;
  const resetAfter = backoff === "none" ? defaultBackoff.resetAfter : backoff.resetAfter;
  const ranFor = state.diedAt - state.instance.startedAt;
  const failures = ranFor >= resetAfter ? 1 : state.failures + 1;
  if (backoff === "none") return restart(state, context, { failures, wait: 0 });
  // The wait counts from the death: the time that clearing took is part of it.
  const wait = backoffWait(backoff, failures, context.random) - (context.now - state.diedAt);
  return restart(state, context, { failures, wait });
}

/** The waits that can come before the next restarts, at most so many; jitter is left out. */
export function comingWaits(
  state: ProcessState,
  specification: ProcessSpecification,
  limits: { readonly now: MonotonicTime; readonly most: number },
): { readonly waits: readonly Milliseconds[]; readonly thenFails: boolean } {
  const { backoff, startLimit } = specification;
  const waits: Milliseconds[] = [];
  if (!state.wanted || isAtRest(state) || specification.restart === "never") {
    return { waits, thenFails: false };
  }
  let at = state.phase === "backing-off" ? state.until : limits.now;
  // The start that is on its way comes before the first of these waits.
  let starts = [...state.recentStarts];
  if (state.phase === "backing-off" || state.phase === "waiting") starts.push(at);
  const MIDDLE = 0.5;
  for (let failures = state.failures + 1; waits.length < limits.most; failures += 1) {
    const wait = backoff === "none" ? 0 : backoffWait(backoff, failures, MIDDLE);
    at += wait;
    const counted = countedStarts(starts, startLimit, at);
    if (startLimit !== "none" && counted.length >= startLimit.starts) {
      return { waits, thenFails: true };
    }
    waits.push(wait);
    starts = [...counted, at];
  }
  return { waits, thenFails: false };
}

/**
 * From when on the end of the instance that runs, whatever it is, will be answered by a start at
 * once; undefined when that is not certain. It stays so unless an event other than the end comes:
 * time can only allow more.
 */
export function restartsAtOnceFrom(
  state: ProcessState,
  specification: ProcessSpecification,
): MonotonicTime | undefined {
  if (state.phase !== "running" && state.phase !== "ready") return undefined;
  if (!state.wanted || specification.restart !== "always") return undefined;
  const { backoff, startLimit } = specification;
  let from = state.instance.startedAt;
  if (backoff !== "none" && backoffWait(backoff, state.failures + 1, 1) > 0) {
    from += backoff.resetAfter;
  }
  const counted = startLimit === "none" ? undefined : state.recentStarts.at(-startLimit.starts);
  if (startLimit !== "none" && counted !== undefined) {
    from = Math.max(from, counted + startLimit.within);
  }
  return from;
}

/** The process is dead; whatever it left behind is ended before anything follows. */
function died(
  state: In<"running" | "ready" | "stopping">,
  event: Of<"died">,
  context: Context,
): Outcome {
  const { instance } = state;
  if (event.invocation !== instance.invocation) return stay(state);
  const { invocation } = instance;
  const ranFor = context.now - instance.startedAt;
  const told = state.toldEnding?.invocation === invocation ? state.toldEnding.ending : undefined;
  const ending = event.ending ?? told;
  const effects: ProcessEffect[] = [
    { kind: "clear", instance },
    ...forgetWatch(state, context),
    record({ what: "died", invocation, ranFor }),
  ];
  if (ending !== undefined) effects.push(record({ what: "ended", invocation, ending }));
  const awaited = ending === undefined ? [...state.awaitedEndings, invocation] : undefined;
  const change = {
    phase: "clearing" as const,
    instance,
    why: state.phase === "stopping" ? state.why : undefined,
    diedAt: context.now,
    ending,
    endingBy: undefined,
    lastEnding: ending,
    awaitedEndings: awaited?.slice(-AWAITED_ENDINGS_LIMIT) ?? state.awaitedEndings,
    toldEnding: undefined,
  };
  return enter(state, change, effects);
}

function cleared(state: In<"clearing">, event: Of<"cleared">, context: Context): Outcome {
  if (event.invocation !== state.instance.invocation || state.endingBy !== undefined) {
    return stay(state);
  }
  return decide(state, context);
}

/** The ending of a dead instance, which a restart did not wait for: noted once. */
function noteEnding(state: ProcessState, event: Of<"ending-known">): Outcome {
  const { invocation, ending } = event;
  if (!state.awaitedEndings.includes(invocation)) return stay(state);
  // While the newest ending is not known, the newest that is awaited is it.
  const isNewest = state.lastEnding === undefined && state.awaitedEndings.at(-1) === invocation;
  const awaitedEndings = state.awaitedEndings.filter((awaited) => awaited !== invocation);
  const lastEnding = isNewest ? ending : state.lastEnding;
  const effects = [record({ what: "ended", invocation, ending })];
  return enter(state, { awaitedEndings, lastEnding }, effects);
}

/** Of the living instance, whose parent was quicker than its pidfd: kept until it has died. */
function hearEnding(
  state: In<"running" | "ready" | "stopping">,
  event: Of<"ending-known">,
): Outcome {
  const { invocation, ending } = event;
  if (invocation !== state.instance.invocation) return noteEnding(state, event);
  if (state.toldEnding !== undefined) return stay(state);
  return enter(state, { toldEnding: { invocation, ending } });
}

function endingWhileClearing(state: In<"clearing">, event: Of<"ending-known">, context: Context) {
  const noted = noteEnding(state, event);
  if (noted.state === state || event.invocation !== state.instance.invocation) return noted;
  const known = { ...noted.state, ending: event.ending } as In<"clearing">;
  if (state.endingBy === undefined) return { state: known, effects: noted.effects };
  const decided = decide(known, context);
  return { state: decided.state, effects: [...noted.effects, ...decided.effects] };
}

/** Nobody told how it ended: unknown, which is no success. */
function endingOverdue(state: In<"clearing">, _event: Of<"deadline">, context: Context): Outcome {
  if (state.endingBy === undefined || context.now < state.endingBy) return stay(state);
  const { invocation } = state.instance;
  const event = { kind: "ending-known", invocation, ending: nobodyTold } as const;
  return endingWhileClearing(state, event, context);
}

/** The operator's wish while an instance is cleared; nothing is awaited any more once it is. */
function wishWhileClearing(
  state: In<"clearing">,
  event: Of<"start" | "stop" | "restart">,
  context: Context,
): Outcome {
  const wanted = event.kind !== "stop";
  const why = wanted ? ("restart" as const) : state.why;
  const wished = enter(state, { ...state, wanted, why, begunBy: begunAfter(state, event.kind) });
  return state.endingBy === undefined ? wished : decide(wished.state as In<"clearing">, context);
}

/** A start that nobody waits for any more happened after all: never two. */
function straggler(state: ProcessState, event: Of<"started" | "found">, context: Context): Outcome {
  const { invocation, processId } = event;
  if (invocation === state.lastInvocation) return stay(state);
  const instance: Instance = { invocation, processId, startedAt: context.now };
  return { state, effects: [{ kind: "kill", instance }, record({ what: "killed", invocation })] };
}

/** An instance is there: wait for its readiness, or stop it when nobody wants it any more. */
function arrive(
  state: In<"starting" | "uncertain">,
  event: Of<"started" | "found">,
  context: Context,
): Outcome {
  const { invocation, processId } = event;
  if (invocation !== state.invocation) return straggler(state, event, context);
  const instance: Instance = { invocation, processId, startedAt: context.now };
  const what = event.kind === "started" ? "started" : "adopted";
  const known = record({ what, invocation, processId });
  const isRestart = state.begunBy === "restart" && state.lastInvocation !== undefined;
  const restarts = state.restarts + (isRestart ? 1 : 0);
  const common = { lastInvocation: invocation, restarts, begunBy: "restart" } as const;
  const arrived = enter(state, common).state;
  if (!state.wanted) return prepend(known, stopInstance(arrived, instance, "stop", context));
  if (context.specification.readiness.kind === "started") {
    const ready = record({ what: "ready", invocation, after: 0 });
    const effects = [known, ready, ...watchLiveness(instance, context)];
    return enter(arrived, { phase: "ready", instance, readyAt: context.now }, effects);
  }
  const readyBy = context.now + context.specification.readyTimeout;
  const watch: ProcessEffect = { kind: "watch-readiness", instance };
  return enter(arrived, { phase: "running", instance, readyBy }, [known, watch]);
}

function prepend(effect: ProcessEffect, outcome: Outcome): Outcome {
  return { state: outcome.state, effects: [effect, ...outcome.effects] };
}

/** Asks the instance to stop, and sets the time after which it is killed. */
function stopInstance(
  state: ProcessState,
  instance: Instance,
  why: StopReason,
  context: Context,
): Outcome {
  const { invocation } = instance;
  const killAt = context.now + context.specification.stopGrace;
  const effects: ProcessEffect[] = [
    { kind: "signal", instance, signal: context.specification.stopSignal },
    record({ what: "stop-requested", invocation }),
    ...forgetWatch(state, context),
  ];
  return enter(state, { phase: "stopping", instance, why, killAt }, effects);
}

function killInstance(
  state: ProcessState,
  instance: Instance,
  why: StopReason,
  context: Context,
): Outcome {
  const { invocation } = instance;
  const effects: ProcessEffect[] = [
    { kind: "kill", instance },
    record({ what: "killed", invocation }),
    ...forgetWatch(state, context),
  ];
  return enter(state, { phase: "stopping", instance, why, killAt: undefined }, effects);
}

function stopRunning(state: In<"running" | "ready">, event: Of<"stop">, context: Context): Outcome {
  const unwanted = enter(state, { wanted: false }).state;
  if (event.hurry) return killInstance(unwanted, state.instance, "stop", context);
  return stopInstance(unwanted, state.instance, "stop", context);
}

function restartRunning(state: In<"running" | "ready">, _event: Of<"restart">, context: Context) {
  return stopInstance(state, state.instance, "restart", context);
}

function stopStopping(state: In<"stopping">, event: Of<"stop">, context: Context): Outcome {
  const unwanted = enter(state, { wanted: false }).state;
  if (!event.hurry || state.killAt === undefined)
    return enter(unwanted, { ...state, wanted: false });
  return killInstance(unwanted, state.instance, "stop", context);
}

/** A start was refused: by the rule, try again after a wait ("none" is for programs that ran). */
function startRefused(
  state: In<"starting">,
  event: Of<"start-refused">,
  context: Context,
): Outcome {
  const { invocation, refusal } = event;
  if (invocation !== state.invocation) return stay(state);
  const refusedStarts = state.refusedStarts + 1;
  const effects = [record({ what: "start-refused", invocation, refusal })];
  if (!state.wanted) return enter(state, { phase: "idle", refusedStarts }, effects);
  const { specification, random } = context;
  if (specification.restart === "never") {
    effects.push(record({ what: "failed", reason: refusal.message }));
    return enter(state, { phase: "failed", reason: refusal.message, refusedStarts }, effects);
  }
  const failures = state.failures + 1;
  const backoff = specification.backoff === "none" ? defaultBackoff : specification.backoff;
  const wait = backoffWait(backoff, failures + 1, random);
  const counted = enter(state, { refusedStarts }).state;
  const outcome = restart(counted, context, { failures, wait });
  return { state: outcome.state, effects: [...effects, ...outcome.effects] };
}

function answerLost(state: In<"starting">, event: Of<"answer-lost">): Outcome {
  if (event.invocation !== state.invocation) return stay(state);
  return doubt(state);
}

/** Nobody can say whether the start happened: look for its invocation before anything else. */
function doubt(state: In<"starting">): Outcome {
  const { invocation } = state;
  return enter(state, { phase: "uncertain", invocation }, [
    { kind: "find", invocation },
    record({ what: "uncertain", invocation }),
  ]);
}

function notFound(state: In<"uncertain">, event: Of<"not-found">, context: Context): Outcome {
  if (event.invocation !== state.invocation) return stay(state);
  if (!state.wanted) return enter(state, { phase: "idle" });
  return begin(state, context);
}

function becameReady(state: In<"running">, event: Of<"became-ready">, context: Context): Outcome {
  const { instance } = state;
  if (event.invocation !== instance.invocation) return stay(state);
  const { invocation } = instance;
  const after = context.now - instance.startedAt;
  return enter(state, { phase: "ready", instance, readyAt: context.now }, [
    { kind: "forget-readiness", invocation },
    record({ what: "ready", invocation, after }),
    ...watchLiveness(instance, context),
  ]);
}

function watchLiveness(instance: Instance, { specification }: Context): ProcessEffect[] {
  return specification.liveness === undefined ? [] : [{ kind: "watch-liveness", instance }];
}

/** What watched a phase that is left. */
function forgetWatch(state: ProcessState, { specification }: Context): ProcessEffect[] {
  if (!("instance" in state)) return [];
  const { invocation } = state.instance;
  if (state.phase === "running") return [{ kind: "forget-readiness", invocation }];
  const isWatched = state.phase === "ready" && specification.liveness !== undefined;
  return isWatched ? [{ kind: "forget-liveness", invocation }] : [];
}

/** It is asked to stop as an operator would, and what follows is as after a death. */
function becameUnhealthy(state: In<"ready">, event: Of<"unhealthy">, context: Context): Outcome {
  const { invocation, reason } = event;
  if (invocation !== state.instance.invocation) return stay(state);
  const seen = record({ what: "unhealthy", invocation, reason });
  return prepend(seen, stopInstance(state, state.instance, "unhealthy", context));
}

function unready(state: In<"running">, _event: Of<"deadline">, context: Context): Outcome {
  if (context.now < state.readyBy) return stay(state);
  const { invocation } = state.instance;
  const late = record({ what: "readiness-timeout", invocation });
  return prepend(late, killInstance(state, state.instance, "unready", context));
}

function graceOver(state: In<"stopping">, _event: Of<"deadline">, context: Context): Outcome {
  if (state.killAt === undefined || context.now < state.killAt) return stay(state);
  return killInstance(state, state.instance, state.why, context);
}

const wantAgain = (state: In<"starting" | "uncertain">) => enter(state, { wanted: true });
const unwant = (state: In<"starting" | "uncertain">) => enter(state, { wanted: false });
const toIdle = (state: ProcessState) => enter(state, { phase: "idle", wanted: false });
const beginNow = (state: ProcessState, event: Of<"start" | "restart">, context: Context) =>
  beginWanted(enter(state, { begunBy: begunAfter(state, event.kind) }).state, context);
const restartLater = (state: In<"stopping">, event: Of<"start" | "restart">) => {
  const begunBy = begunAfter(state, event.kind);
  return enter(state, { ...state, wanted: true, why: "restart" as const, begunBy });
};

const noStart = ignored("no start is under way");
const noInstance = ignored("no instance runs");
const noDeadline = ignored("nothing is waited for in this phase");
const notWaiting = ignored("it does not wait for others");
const noLiveness = ignored("its liveness is not watched in this phase");
const noReadiness = ignored("its readiness is not watched in this phase");
const alreadyWanted = ignored("it is wanted already, and on its way or running");
const notLooked = ignored("its invocation is not being looked for");
const notClearing = ignored("nothing of an instance is being cleared");

/** Nothing of the process lives, and nothing is asked for: idle, backing off, finished, failed. */
const atRest = {
  start: beginNow,
  stop: toIdle,
  restart: beginNow,
  unblocked: notWaiting,
  started: straggler,
  "start-refused": noStart,
  "answer-lost": noStart,
  found: notLooked,
  "not-found": notLooked,
  "became-ready": noReadiness,
  unhealthy: noLiveness,
  died: noInstance,
  "ending-known": noteEnding,
  cleared: notClearing,
  deadline: noDeadline,
};

/** Every phase × every event. */
export const table: Table = {
  idle: { ...atRest, stop: ignored("it is stopped") },
  waiting: {
    start: alreadyWanted,
    stop: toIdle,
    restart: alreadyWanted,
    unblocked: (state, _event, context) => begin(state, context),
    started: straggler,
    "start-refused": noStart,
    "answer-lost": noStart,
    found: notLooked,
    "not-found": notLooked,
    "became-ready": noReadiness,
    unhealthy: noLiveness,
    died: noInstance,
    "ending-known": noteEnding,
    cleared: notClearing,
    deadline: noDeadline,
  },
  starting: {
    start: wantAgain,
    stop: unwant,
    restart: wantAgain,
    unblocked: notWaiting,
    started: arrive,
    "start-refused": startRefused,
    "answer-lost": answerLost,
    found: notLooked,
    "not-found": notLooked,
    "became-ready": noReadiness,
    unhealthy: noLiveness,
    died: noInstance,
    "ending-known": noteEnding,
    cleared: notClearing,
    deadline: (state, _event, context) =>
      context.now < state.answerBy ? stay(state) : doubt(state),
  },
  uncertain: {
    start: wantAgain,
    stop: unwant,
    restart: wantAgain,
    unblocked: notWaiting,
    started: arrive,
    "start-refused": ignored("the search for its invocation decides, whatever came late"),
    "answer-lost": ignored("it is uncertain already"),
    found: arrive,
    "not-found": notFound,
    "became-ready": noReadiness,
    unhealthy: noLiveness,
    died: noInstance,
    "ending-known": noteEnding,
    cleared: notClearing,
    deadline: noDeadline,
  },
  running: {
    start: alreadyWanted,
    stop: stopRunning,
    restart: restartRunning,
    unblocked: notWaiting,
    started: straggler,
    "start-refused": noStart,
    "answer-lost": noStart,
    found: notLooked,
    "not-found": notLooked,
    "became-ready": becameReady,
    unhealthy: noLiveness,
    died,
    "ending-known": hearEnding,
    cleared: notClearing,
    deadline: unready,
  },
  ready: {
    start: alreadyWanted,
    stop: stopRunning,
    restart: restartRunning,
    unblocked: notWaiting,
    started: straggler,
    "start-refused": noStart,
    "answer-lost": noStart,
    found: notLooked,
    "not-found": notLooked,
    "became-ready": ignored("it is ready already"),
    unhealthy: becameUnhealthy,
    died,
    "ending-known": hearEnding,
    cleared: notClearing,
    deadline: noDeadline,
  },
  stopping: {
    start: restartLater,
    stop: stopStopping,
    restart: restartLater,
    unblocked: notWaiting,
    started: straggler,
    "start-refused": noStart,
    "answer-lost": noStart,
    found: notLooked,
    "not-found": notLooked,
    "became-ready": ignored("it is being stopped"),
    unhealthy: noLiveness,
    died,
    "ending-known": hearEnding,
    cleared: notClearing,
    deadline: graceOver,
  },
  clearing: {
    start: wishWhileClearing,
    stop: wishWhileClearing,
    restart: wishWhileClearing,
    unblocked: notWaiting,
    started: straggler,
    "start-refused": noStart,
    "answer-lost": noStart,
    found: notLooked,
    "not-found": notLooked,
    "became-ready": ignored("it is dead"),
    unhealthy: noLiveness,
    died: ignored("it is dead already"),
    "ending-known": endingWhileClearing,
    cleared,
    deadline: endingOverdue,
  },
  "backing-off": {
    ...atRest,
    deadline: (state, _event, context) =>
      context.now < state.until ? stay(state) : begin(state, context),
  },
  finished: atRest,
  failed: atRest,
};

/** Decides what an event means in a state: the new state, and what is to be done, in order. */
export function step(
  state: ProcessState,
  event: ProcessEvent,
  context: Context,
  decisions: Table = table,
): Outcome {
  const row = decisions[state.phase] as Record<EventKind, Ignored | Handler<Phase, EventKind>>;
  const cell = row[event.kind];
  if ("ignored" in cell) return { state, effects: [] };
  return cell(state as never, event as never, context);
}

/** Nobody has told how this dead instance ended, and no deadline of its own says so. */
export function isUntold(state: ProcessState, invocation: string): boolean {
  if (state.phase === "clearing" && state.endingBy !== undefined) return false;
  return state.awaitedEndings.includes(invocation);
}

/** When the state wants to hear of time, if at all. */
export function deadlineOf(state: ProcessState): MonotonicTime | undefined {
  switch (state.phase) {
    case "starting":
      return state.answerBy;
    case "running":
      return state.readyBy;
    case "stopping":
      return state.killAt;
    case "clearing":
      return state.endingBy;
    case "backing-off":
      return state.until;
    default:
      return undefined;
  }
}

/** Nothing of it lives, and nothing follows until somebody asks for it. */
export const isAtRest = ({ phase }: ProcessState): boolean =>
  phase === "idle" || phase === "finished" || phase === "failed";

/** The instance that is alive, or whose rest is being cleared. */
export function instanceOf(state: ProcessState): Instance | undefined {
  return "instance" in state ? state.instance : undefined;
}
