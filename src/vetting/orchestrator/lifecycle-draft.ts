import { type Directive, type PathState, path, type RunState, stageOf } from "../protocol.ts";
import type { RunEvent, Verdict } from "../protocol-operator.ts";
import { type Stage, type StageReport, stages } from "../protocol-result.ts";
import { isSettled, overridesOf } from "./lifecycle-path.ts";
import {
  type Failure,
  type Run,
  type RunAnswer,
  type RunContext,
  type RunRefusal,
  type RunWrite,
  runLimits,
  runPace,
  type StageProgress,
} from "./lifecycle-state.ts";

export const noProgress: StageProgress = {
  begun: 0,
  crashed: 0,
  outcome: null,
  summary: "",
  started: null,
  ended: null,
  isOverridden: false,
};

export const nothing: RunAnswer = { kind: "none" };

export function refused(refusal: RunRefusal): RunAnswer {
  return { kind: "refused", refusal };
}

export function over({ run }: RunDraft): RunAnswer {
  return refused({
    kind: "gone",
    message: `Run ${run.run} has ended`,
    expected: "a run that is open",
    received: `${run.state}, ${run.verdict ?? "no verdict"}`,
    hint: "Start another run: hostler vetting start HOST",
  });
}

/** A run while it is decided about: what changes of it, and what is written. */
export class RunDraft {
  readonly context: RunContext;
  readonly writes: RunWrite[] = [];
  #run: Run;

  constructor(run: Run, context: RunContext) {
    this.#run = run;
    this.context = context;
  }

  get run(): Run {
    return this.#run;
  }

  change(part: Partial<Run>): void {
    this.#run = { ...this.#run, ...part };
  }

  note(who: string, what: RunEvent["what"], message: string): void {
    const sequence = this.#run.events + 1;
    if (sequence > runLimits.events) return;
    this.change({ events: sequence });
    const { time } = this.context;
    const event = { sequence, at: time, who, what, state: this.#run.state };
    this.writes.push({ kind: "event", event: { ...event, message: message.slice(0, 512) } });
  }

  /** The hold begins with FailedHolding, and is over with it. */
  moveTo(state: RunState, reason: string): void {
    const { time } = this.context;
    if (state === this.#run.state && reason === this.#run.reason) return;
    const isHolding = state === "FailedHolding";
    const hold = isHolding
      ? (this.#run.hold ?? { since: time, key: null, hostKey: null, address: null })
      : null;
    if (!isHolding && this.#run.hold?.key) this.tell("revoke-hold", null);
    this.change({ state, reason: reason.slice(0, 512), changed: time, hold });
    this.note("orchestrator", "state", reason === "" ? state : `${state}: ${reason}`);
  }

  fail(failure: Failure, reason: string): void {
    this.change({ failure, wipe: null });
    this.moveTo("FailedHolding", reason);
  }

  /** `lastWords` is what its session is kept for. */
  end(verdict: Verdict, reason: string): void {
    const { now, time } = this.context;
    this.change({
      ...{ verdict, reason: reason.slice(0, 512), ended: time, endedAt: now, changed: time },
      ...{ boot: null, wipe: null, lostIn: null },
    });
    this.note("orchestrator", "ended", reason === "" ? verdict : `${verdict}: ${reason}`);
  }

  isTold(kind: Directive["kind"]): boolean {
    return this.#run.directives.some((directive) => directive.kind === kind);
  }

  /** Nobody hears it without a session. One of each kind waits: the newest. */
  tell(kind: Directive["kind"], stage: Stage | null): void {
    if (this.#run.session === null) return;
    const { now, time, draw } = this.context;
    const until = now + runPace.directiveLifetime;
    const directive = { id: draw(), kind, stage, since: time, until };
    const others = this.#run.directives.filter((other) => other.kind !== kind);
    this.change({ directives: [...others, directive] });
    this.note("orchestrator", "directive", stage === null ? kind : `${kind} ${stage}`);
  }

  untell(...kinds: readonly Directive["kind"][]): void {
    const directives = this.#run.directives.filter(({ kind }) => !kinds.includes(kind));
    if (directives.length !== this.#run.directives.length) this.change({ directives });
  }

  progress(stage: Stage): StageProgress {
    return this.#run.stages[stage] ?? noProgress;
  }

  setProgress(stage: Stage, part: Partial<StageProgress>): void {
    const progress = { ...this.progress(stage), ...part };
    this.change({ stages: { ...this.#run.stages, [stage]: progress } });
  }

  /** What the orchestrator says of a stage itself: it was left out, or its host died. */
  writeOwn(stage: Stage, report: StageReport, attempt: number): void {
    const { time } = this.context;
    this.writes.push({
      kind: "result",
      result: {
        ...{ stage, attempt, source: "orchestrator", cancelled: false },
        ...{ started: time, ended: time, duration_ms: 0, report },
      },
    });
    const { outcome, summary } = report;
    this.setProgress(stage, { outcome, summary, started: time, ended: time, isOverridden: false });
    this.note("orchestrator", "result", `${stage} ${outcome}: ${summary}`);
  }

  /** Goes on after a state of the path; stages that the spec leaves out are skipped by name. */
  advance(after: PathState): void {
    const rest = path.slice(path.indexOf(after) + 1);
    for (const state of rest) {
      const stage = stageOf(state);
      if (stage === undefined || this.context.spec.stages[stage].enabled) {
        this.moveTo(state, "");
        if (state === "Reporting") this.#complete();
        return;
      }
      this.writeOwn(stage, leftOut(), Math.max(1, this.progress(stage).begun));
    }
  }

  #complete(): void {
    const { run } = this;
    const open = stages.filter((stage) => !isSettled(run, stage));
    if (open.length > 0) throw new Error(`Bug: run ${run.run} ends without ${open.join(", ")}`);
    const outcomes = (wanted: string) =>
      stages.filter((stage) => run.stages[stage]?.outcome === wanted);
    const accepted = overridesOf(run);
    const warned: string[] = outcomes("WARN");
    if (run.hasRuleWarnings) warned.push("SpecValidate");
    const isNothingTested = outcomes("PASS").every((stage) => stage === "Inventory");
    const words = [
      ...(accepted.length > 0 ? [`an operator accepted ${accepted.join(", ")}`] : []),
      ...(warned.length > 0 ? [`warnings of ${warned.join(", ")}`] : []),
      ...(isNothingTested ? ["no stage but Inventory has passed"] : []),
      ...(outcomes("SKIP").length > 0 ? [`skipped: ${outcomes("SKIP").join(", ")}`] : []),
    ];
    const isWarned = accepted.length > 0 || warned.length > 0 || isNothingTested;
    const reason = words.join("; ");
    this.moveTo("Completed", reason);
    this.end(isWarned ? "warned" : "passed", reason);
  }
}

function leftOut(): StageReport {
  const summary = "The spec leaves this stage out";
  const finding = {
    outcome: "SKIP",
    code: "left-out",
    component: "host",
    message: summary,
  } as const;
  return {
    ...{ outcome: "SKIP", summary, findings: [{ ...finding, expected: null, found: null }] },
    ...{ coverage: [], engines: [], measurements: [], deltas: [], evidence: [] },
  };
}
