import type { Milliseconds } from "../../units/units.ts";
import {
  type Acknowledgement,
  type Directive,
  type LogLine,
  type ResultBody,
  type RunState,
  stageOf,
  vettingLimits,
} from "../protocol.ts";
import { resultLimits, type Stage, type StageReport } from "../protocol-result.ts";
import {
  type AgentContext,
  type AgentEffect,
  type AgentState,
  type AgentStep,
  agentPace,
  type CallFailure,
  type Intent,
  type Kept,
  type Phase,
} from "./lifecycle-state.ts";

/** The moves that cells are made of. Pure: what it collects is the next state and the effects. */
export class Draft {
  state: AgentState;
  readonly context: AgentContext;
  readonly #effects: AgentEffect[] = [];

  constructor(state: AgentState, context: AgentContext) {
    this.state = state;
    this.context = context;
  }

  get kept(): Kept {
    return this.state.kept;
  }

  get step(): AgentStep {
    return { state: this.state, effects: this.#effects };
  }

  do(...effects: readonly AgentEffect[]): void {
    this.#effects.push(...effects);
  }

  say(level: LogLine["level"], text: string): void {
    const { phase } = this.state;
    this.do({ kind: "say", level, text, stage: "stage" in phase ? phase.stage : null });
  }

  keep(change: Partial<Kept>): void {
    this.state = { ...this.state, kept: { ...this.kept, ...change } };
  }

  /** Another phase; whatever was asked before is answered to nobody. */
  enter(phase: Phase): void {
    this.state = { ...this.state, phase, ticket: this.state.ticket + 1, failures: 0 };
  }

  /** A ticket for one more call of this phase. */
  ask(make: (ticket: number) => AgentEffect): void {
    const ticket = this.state.ticket + 1;
    this.state = { ...this.state, ticket };
    this.do(make(ticket));
  }

  wait(wait: Milliseconds): void {
    this.ask((ticket) => ({ kind: "wait", ticket, wait }));
  }

  /** Waits longer with each failure in a row, and as long as the orchestrator asks for. */
  retry({ message, retryAfter }: Pick<CallFailure, "message" | "retryAfter">, what: string): void {
    const { failures } = this.state;
    const doubled = agentPace.firstRetry * 2 ** Math.min(failures, 10);
    const own = Math.min(doubled, agentPace.longestRetry);
    const wait = Math.max(own, Math.min(retryAfter ?? 0, agentPace.longestAsked));
    this.state = { ...this.state, failures: failures + 1 };
    const seconds = Math.ceil(wait / 1_000);
    const often = failures === 0 ? "" : ` ${failures + 1} times`;
    this.say("warn", `${what} failed${often}, again in ${seconds} s: ${message}`);
    this.wait(wait);
  }

  claim(): void {
    const { phase } = this.state;
    this.enter({ kind: "claiming", wasDone: ["parked", "aborted"].includes(phase.kind) });
    this.ask((ticket) => ({ kind: "call-claim", ticket }));
  }

  /** Whatever was begun comes first; then where the run is. */
  goOn(run: RunState): void {
    const { intent, attempt } = this.kept;
    const { body } = this.state;
    if (intent?.kind === "abort") this.abort();
    else if (body !== undefined) this.deliver(body);
    else if (intent?.kind === "leave") {
      // The process that took it up is gone, and its children with it.
      if (intent.cancels && attempt?.isBegun === true)
        this.tellCancelled(attempt.id, attempt.stage);
      else this.leave(intent.how);
    } else this.go(run);
  }

  go(run: RunState): void {
    const stage = stageOf(run);
    if (stage !== undefined) this.askFor(stage);
    else if (run === "FailedHolding") this.hold();
    else {
      this.enter({ kind: "parked", run });
      this.say("info", `nothing is to be done in ${run}: waiting for a directive`);
    }
  }

  /** An attempt that was asked for and never begun is asked for again: it is counted once. */
  askFor(stage: Stage): void {
    const { attempt: known } = this.kept;
    const isSame = known !== null && known.stage === stage && !known.isBegun;
    const attempt = isSame ? known.id : this.context.draw();
    this.keep({ attempt: { id: attempt, stage, isBegun: false } });
    this.enter({ kind: "asking", stage, attempt });
    this.ask((ticket) => ({ kind: "call-attempt", ticket, attempt, stage }));
  }

  hold(): void {
    this.enter({ kind: "holding" });
    this.say("warn", "the run holds: waiting for an operator");
    this.ask((ticket) => ({ kind: "call-hold", ticket }));
  }

  abort(): void {
    this.#forgetWork();
    this.enter({ kind: "aborted" });
    this.say("warn", "an operator aborted the run: nothing is done any more");
  }

  /** What waits to be told is dropped by an operator's order alone. */
  #forgetWork(): void {
    if (this.state.phase.kind === "running") this.do({ kind: "end-stage" });
    if (this.state.body !== undefined) this.do({ kind: "drop-result" });
    this.state = { ...this.state, body: undefined };
    this.keep({ attempt: null });
    this.removeKey();
  }

  removeKey(): void {
    if (this.kept.hold === null) return;
    this.keep({ hold: null });
    this.do({ kind: "remove-key" });
  }

  leave(how: Extract<Intent, { kind: "leave" }>["how"]): void {
    this.removeKey();
    this.enter({ kind: "leaving", how, hasSaid: false });
    this.acknowledgeIntent();
    this.do({ kind: "say-farewell" });
  }

  acknowledgeIntent(): void {
    const { intent } = this.kept;
    if (intent !== null) this.acknowledge(intent.directive, "done", null);
  }

  acknowledge(id: string, result: Acknowledgement["result"], reason: string | null): void {
    const { acknowledgements } = this.kept;
    if (acknowledgements.some((told) => told.id === id)) return;
    this.keep({ acknowledgements: [...acknowledgements, { id, result, reason }] });
  }

  /** By its id a directive is known from now on, whatever becomes of it. */
  take({ id }: Directive): void {
    this.keep({ taken: [...this.kept.taken, id].slice(-vettingLimits.remembered) });
  }

  finish(told: {
    readonly attempt: string;
    readonly stage: Stage;
    readonly cancelled: boolean;
    readonly duration: Milliseconds;
    readonly report: StageReport;
  }): void {
    const { attempt, stage, cancelled, duration, report } = told;
    const body: ResultBody = {
      ...{ run: this.kept.run, result: this.context.draw(), attempt, stage, cancelled, report },
      duration_ms: Math.max(0, Math.round(duration)),
    };
    this.do({ kind: "keep-result", body });
    this.deliver(body);
  }

  tellCancelled(attempt: string, stage: Stage): void {
    const report = reportOf("it was cancelled by an operator", "cancelled");
    this.finish({ attempt, stage, cancelled: true, duration: 0, report });
  }

  deliver(body: ResultBody): void {
    const { stage, result } = body;
    this.state = { ...this.state, body };
    this.enter({ kind: "delivering", stage, result });
    this.ask((ticket) => ({ kind: "call-result", ticket, body }));
  }

  /** It was answered: nothing of it is needed any more. */
  delivered(): void {
    this.state = { ...this.state, body: undefined };
    this.keep({ attempt: null });
    this.do({ kind: "drop-result" });
  }

  over(message: string): void {
    const { phase } = this.state;
    const isDone = phase.kind === "claiming" && phase.wasDone;
    this.#forgetWork();
    this.keep({ session: null });
    this.enter({ kind: "over" });
    this.say(isDone ? "info" : "error", `this host is not of the run any more: ${message}`);
    this.do({ kind: "end", how: isDone ? "done" : "refused" });
  }
}

/** Of a stage that came to no end of its own. */
export function reportOf(message: string, code: string): StageReport {
  const text = message.slice(0, resultLimits.text);
  return {
    outcome: "ERROR",
    summary: text,
    findings: [
      { outcome: "ERROR", code, component: "host", message: text, expected: null, found: null },
    ],
    ...{ coverage: [], engines: [], measurements: [], deltas: [], evidence: [] },
  };
}
