/** One process under a step function, told what to expect after every event. */
import {
  ENDING_LIMIT,
  type EventKind,
  type HistoryEntry,
  type Instance,
  initialState,
  type Phase,
  type ProcessEffect,
  type ProcessEvent,
  type ProcessState,
  START_ANSWER_LIMIT,
  type StopReason,
  type step,
} from "../../../src/process/lifecycle.ts";
import type { Liveness, ProcessSpecification } from "../../../src/process/specification.ts";
import type { Ending } from "../../../src/units/ending.ts";
import { defaultBackoff } from "../../../src/units/restarts.ts";

export type StepFunction = typeof step;

type CommonKey = keyof typeof initialState & keyof ProcessState;
export type Common = Omit<Pick<ProcessState, CommonKey>, "phase">;
type PhasePart<S> = S extends ProcessState ? Omit<S, keyof Common> : never;

/** What a state says beside what is true in every phase. */
export type Expected = PhasePart<ProcessState>;

export const exited = (status: number): Ending => ({ kind: "exited", status });
export const signalled = (signal: number): Ending => ({
  kind: "signalled",
  signal,
  coreDumped: false,
});
export const record = (entry: HistoryEntry): ProcessEffect => ({ kind: "record", entry });

/** It has to say each second that it lives. */
export const watchdog: Liveness = {
  check: { kind: "watchdog" },
  interval: 1_000,
  timeout: 1_000,
  failures: 1,
  onFailure: "restart",
};

/** A specification in which nothing is special. */
export function makeSpecification(
  change: Partial<ProcessSpecification> = {},
): ProcessSpecification {
  return {
    name: "example",
    partition: undefined,
    command: ["/bin/example"],
    environment: {},
    workingDirectory: undefined,
    umask: undefined,
    descriptorStore: 0,
    resources: { limits: {}, optional: [] },
    constraints: {},
    scheduling: {},
    restart: "always",
    backoff: defaultBackoff,
    startLimit: "none",
    after: [],
    onDependencyFailure: "ignore",
    hooks: { beforeStart: undefined, afterStop: undefined, timeout: 5_000 },
    readiness: { kind: "started" },
    readyTimeout: 2_000,
    liveness: undefined,
    stopSignal: 15,
    stopGrace: 5_000,
    leftovers: "kill",
    output: "log",
    logLimit: { lines: 100, bytes: 10_000 },
    logFile: undefined,
    autostart: true,
    ...change,
  };
}

/** What the next start will have come from, once an operator has said this. */
function begunBy(state: ProcessState, { kind }: ProcessEvent): Partial<Common> {
  const isSettled = ["waiting", "starting", "uncertain", "running", "ready"].includes(state.phase);
  if (isSettled || (kind !== "start" && kind !== "restart")) return {};
  const isComing = state.wanted && !["idle", "finished", "failed"].includes(state.phase);
  return kind === "start" && isComing ? {} : { begunBy: kind };
}

export class Life {
  readonly specification: ProcessSpecification;
  now = 1_000;
  random = 0.5;
  reachable = true;
  dependenciesReady = true;
  state: ProcessState = initialState;
  /** What is expected to be true in every phase. */
  common: Common;
  /** The newest instance that arrived. */
  instance: Instance = { invocation: "none", processId: 1, startedAt: 0 };
  readonly #step: StepFunction;
  #invocations = 0;

  constructor(step: StepFunction, change: Partial<ProcessSpecification> = {}) {
    this.#step = step;
    this.specification = makeSpecification(change);
    const { phase: _phase, ...common } = initialState as Common & { phase: Phase };
    this.common = common;
  }

  /** The invocation of the newest start. */
  get invocation(): string {
    return `i${this.#invocations}`;
  }

  pass(time: number): this {
    this.now += time;
    return this;
  }

  /** Hands over an event; the state and the effects must be exactly these. */
  take(
    event: ProcessEvent,
    expected: Expected,
    effects: readonly ProcessEffect[] = [],
    common: Partial<Common> = {},
  ): this {
    const before = this.state;
    const outcome = this.#decide(event);
    this.common = { ...this.common, ...begunBy(before, event), ...common };
    this.state = outcome.state;
    const label = `${event.kind} in ${before.phase}`;
    requireEqual(`state after ${label}`, outcome.state, { ...this.common, ...expected });
    requireEqual(`effects of ${label}`, outcome.effects, effects);
    return this;
  }

  /** Hands over an event that must change nothing. */
  ignores(event: ProcessEvent): this {
    const before = this.state;
    const outcome = this.#decide(event);
    requireEqual(`state after ${event.kind} in ${before.phase}`, outcome.state, before);
    requireEqual(`effects of ${event.kind} in ${before.phase}`, outcome.effects, []);
    return this;
  }

  #decide(event: ProcessEvent) {
    const life = this;
    return this.#step(this.state, event, {
      specification: this.specification,
      now: this.now,
      random: this.random,
      get nextInvocation() {
        life.#invocations += 1;
        return life.invocation;
      },
      reachable: this.reachable,
      dependenciesReady: this.dependenciesReady,
    });
  }

  /** The event leads to a request to start; the start limit counts it with those before. */
  asks(
    event: ProcessEvent,
    common: Partial<Common> = {},
    earlier: readonly ProcessEffect[] = [],
  ): this {
    const invocation = `i${this.#invocations + 1}`;
    const answerBy = this.now + START_ANSWER_LIMIT;
    const effects: ProcessEffect[] = [
      ...earlier,
      { kind: "start", invocation, replaces: this.common.lastInvocation },
      record({ what: "start-requested", invocation }),
    ];
    const { startLimit } = this.specification;
    let recentStarts = common.recentStarts ?? this.common.recentStarts;
    if (startLimit !== "none") {
      const counted = recentStarts.filter((time) => time > this.now - startLimit.within);
      recentStarts = [...counted, this.now];
    }
    const change = { ...common, recentStarts };
    return this.take(event, { phase: "starting", invocation, answerBy }, effects, change);
  }

  /** From rest, by the operator. */
  start(): this {
    return this.asks({ kind: "start" }, { wanted: true, failures: 0, recentStarts: [] });
  }

  /** Makes the instance that the next answer brings. */
  #bring(): { invocation: string; processId: number } {
    const { invocation } = this;
    const processId = 100 + this.#invocations;
    this.instance = { invocation, processId, startedAt: this.now };
    return { invocation, processId };
  }

  /** The newest start is answered, or its instance found; readiness is of kind "started". */
  arrives(kind: "started" | "found" = "started"): this {
    const found = this.#bring();
    const { invocation } = found;
    const what = kind === "started" ? "started" : "adopted";
    const effects = [record({ what, ...found }), record({ what: "ready", invocation, after: 0 })];
    const ready = { phase: "ready", instance: this.instance, readyAt: this.now } as const;
    return this.take({ kind, ...found }, ready, effects, this.#counted(invocation));
  }

  /** An instance that comes after another one is a restart, unless it was started by hand. */
  #counted(invocation: string): Partial<Common> {
    const { restarts, lastInvocation } = this.common;
    const more = lastInvocation === undefined || this.common.begunBy === "start" ? 0 : 1;
    return { lastInvocation: invocation, restarts: restarts + more, begunBy: "restart" };
  }

  /** As arrives, where readiness has yet to come. */
  arrivesUnready(kind: "started" | "found" = "started"): this {
    const found = this.#bring();
    const { instance } = this;
    const what = kind === "started" ? "started" : "adopted";
    const effects = [record({ what, ...found }), { kind: "watch-readiness", instance } as const];
    const readyBy = this.now + this.specification.readyTimeout;
    const change = this.#counted(found.invocation);
    return this.take({ kind, ...found }, { phase: "running", instance, readyBy }, effects, change);
  }

  /** As arrives, when nobody wants it any more. */
  arrivesUnwanted(kind: "started" | "found" = "started"): this {
    const found = this.#bring();
    const what = kind === "started" ? "started" : "adopted";
    const { expected, effects } = this.asked("stop");
    const all = [record({ what, ...found }), ...effects];
    return this.take({ kind, ...found }, expected, all, this.#counted(found.invocation));
  }

  /** What asking the instance to stop looks like now. */
  asked(why: StopReason): { expected: Expected; effects: ProcessEffect[] } {
    const { instance } = this;
    const killAt = this.now + this.specification.stopGrace;
    const effects: ProcessEffect[] = [
      { kind: "signal", instance, signal: this.specification.stopSignal },
      record({ what: "stop-requested", invocation: instance.invocation }),
    ];
    return { expected: { phase: "stopping", instance, why, killAt }, effects };
  }

  /** What killing the instance looks like. */
  killed(why: StopReason): { expected: Expected; effects: ProcessEffect[] } {
    const { instance } = this;
    const effects: ProcessEffect[] = [
      { kind: "kill", instance },
      record({ what: "killed", invocation: instance.invocation }),
    ];
    return { expected: { phase: "stopping", instance, why, killAt: undefined }, effects };
  }

  /** A ready or running instance is stopped, or stopped to be restarted. */
  stops(kind: "stop" | "restart"): this {
    const { expected, effects } = this.asked(kind);
    if (this.state.phase === "running") effects.push(this.forgotten());
    const event = kind === "stop" ? ({ kind, hurry: false } as const) : { kind };
    return this.take(event, expected, effects, kind === "stop" ? { wanted: false } : {});
  }

  forgotten(): ProcessEffect {
    return { kind: "forget-readiness", invocation: this.instance.invocation };
  }

  /** The instance dies; its rest is to be cleared. */
  dies(ending: Ending | undefined, why?: StopReason, told?: Ending): this {
    const { instance } = this;
    const { invocation } = instance;
    const ranFor = this.now - instance.startedAt;
    const known = ending ?? told;
    const effects: ProcessEffect[] = [{ kind: "clear", instance }];
    if (this.state.phase === "running") effects.push(this.forgotten());
    effects.push(record({ what: "died", invocation, ranFor }));
    if (known !== undefined) effects.push(record({ what: "ended", invocation, ending: known }));
    const awaited = [...this.common.awaitedEndings, invocation].slice(-16);
    return this.take({ kind: "died", invocation, ending }, this.clearing(known, why), effects, {
      lastEnding: known,
      awaitedEndings: known === undefined ? awaited : this.common.awaitedEndings,
      toldEnding: undefined,
    });
  }

  /** The phase in which the rest of the instance is cleared, from now. */
  clearing(ending: Ending | undefined, why: StopReason | undefined, endingBy?: number): Expected {
    const { instance, now } = this;
    return { phase: "clearing", instance, why, diedAt: now, ending, endingBy };
  }

  /** All is gone, but how it ended must be known first. */
  awaitsEnding(): this {
    const { state } = this;
    if (state.phase !== "clearing") throw new Error(`in ${state.phase}`);
    const { instance, why, diedAt } = state;
    const expected = { phase: "clearing", instance, why, diedAt, ending: undefined } as const;
    return this.take(this.clearedEvent(), { ...expected, endingBy: this.now + ENDING_LIMIT });
  }

  clearedEvent(): ProcessEvent {
    return { kind: "cleared", invocation: this.instance.invocation };
  }

  endingEvent(ending: Ending, invocation = this.instance.invocation): ProcessEvent {
    return { kind: "ending-known", invocation, ending };
  }

  /** The rest is gone, and the process is started again at once. */
  restarts(failures: number, common: Partial<Common> = {}): this {
    return this.asks(this.clearedEvent(), { failures, ...common });
  }

  /** The rest is gone, and the process waits so long. */
  backsOff(wait: number, failures: number): this {
    const effects = [record({ what: "backing-off", wait, failures })];
    const expected = { phase: "backing-off", until: this.now + wait } as const;
    return this.take(this.clearedEvent(), expected, effects, { failures });
  }

  /** What the state says beside what is true in every phase. */
  phasePart(): Expected {
    const common = new Set(Object.keys(this.common));
    const entries = Object.entries(this.state).filter(([key]) => !common.has(key));
    return Object.fromEntries(entries) as unknown as Expected;
  }

  /** Takes an event that changes nothing of the phase. */
  keepsPhase(
    event: ProcessEvent,
    effects: readonly ProcessEffect[] = [],
    common: Partial<Common> = {},
  ): this {
    return this.take(event, this.phasePart(), effects, common);
  }
}

/** Fails with both values when they differ. */
export function requireEqual(label: string, received: unknown, expected: unknown): void {
  if (Bun.deepEquals(received, expected)) return;
  throw new Error(`${label}\n  expected ${show(expected)}\n  received ${show(received)}`);
}

function show(value: unknown): string {
  return JSON.stringify(value, (_key, part) => (part === undefined ? "undefined" : part)) ?? "";
}

/** One event of each kind that carries this invocation, where it carries one. */
export function makeEvents(invocation: string): { readonly [K in EventKind]: ProcessEvent } {
  return {
    start: { kind: "start" },
    stop: { kind: "stop", hurry: false },
    restart: { kind: "restart" },
    unblocked: { kind: "unblocked" },
    started: { kind: "started", invocation, processId: 77 },
    "start-refused": {
      kind: "start-refused",
      invocation,
      refusal: { message: "no such file", code: "ENOENT" },
    },
    "answer-lost": { kind: "answer-lost", invocation },
    found: { kind: "found", invocation, processId: 77 },
    "not-found": { kind: "not-found", invocation },
    "became-ready": { kind: "became-ready", invocation },
    unhealthy: { kind: "unhealthy", invocation, reason: "silent" },
    died: { kind: "died", invocation, ending: exited(3) },
    "ending-known": { kind: "ending-known", invocation, ending: exited(4) },
    cleared: { kind: "cleared", invocation },
    deadline: { kind: "deadline" },
  };
}

export const eventKinds = Object.keys(makeEvents("")) as EventKind[];
