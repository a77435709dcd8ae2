import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type {
  Acknowledgement,
  Activity,
  AttemptAnswer,
  ClaimAnswer,
  Directive,
  LogLine,
  ResultBody,
  RunState,
} from "../protocol.ts";
import type { Stage, StageReport } from "../protocol-result.ts";

/** What an agent is, what can happen to it, and what it does then. Pure. */

/** Milliseconds. */
export const agentPace = {
  /** Of a call that failed: doubled each time, up to the longest. */
  firstRetry: 2_000,
  longestRetry: 32_000,
  /** Longest that an orchestrator's own Retry-After is followed. */
  longestAsked: 300_000,
  /** From an order to leave until the host does, whatever was not told by then. */
  leaveWithin: 60_000,
  /** Last words: a heartbeat with what was done, and the rest of the log. */
  farewell: 10_000,
} as const;

/** A hello that is not answered is given up: the claim says the same, and more. */
export const HELLO_TRIES = 5;
/** Heartbeats in a row that are refused for this agent, before it claims again. */
export const REFUSALS = 2;

export type PowerChange = "power-off" | "reboot";

/** An order that outlives the process that took it up. */
export type Intent =
  | { readonly kind: "abort"; readonly directive: string }
  | {
      readonly kind: "leave";
      readonly how: PowerChange;
      readonly directive: string;
      /** An operator ended the run: the stage that ran is told as cancelled. */
      readonly cancels: boolean;
    };

/** What is written before anything else is done; the next process of the agent begins with it. */
export interface Kept {
  readonly run: number;
  readonly boot_id: string;
  /** Of the process that claimed with the token: it may do that again, and nobody else may. */
  readonly instance: string;
  /** null: not claimed yet. */
  readonly session: string | null;
  readonly attempt: KeptAttempt | null;
  readonly intent: Intent | null;
  /** Ids of directives that were taken up, the newest last. */
  readonly taken: readonly string[];
  readonly acknowledgements: readonly Acknowledgement[];
  readonly hold: HeldKey | null;
}

export interface KeptAttempt {
  readonly id: string;
  readonly stage: Stage;
  /** It was answered, so that it counts: it is never begun a second time. */
  readonly isBegun: boolean;
}

export interface HeldKey {
  readonly line: string;
  /** null: as long as it holds. */
  readonly until: MonotonicTime | null;
}

export type Phase =
  | { readonly kind: "hello" }
  /** `wasDone`: nothing was to be done any more when the session was refused. */
  | { readonly kind: "claiming"; readonly wasDone: boolean }
  /** Its attempt is not answered yet. */
  | { readonly kind: "asking"; readonly stage: Stage; readonly attempt: string }
  | {
      readonly kind: "running";
      readonly stage: Stage;
      readonly attempt: string;
      /** It was told to stop, and its children have not ended yet. */
      readonly isEnding: boolean;
    }
  | { readonly kind: "delivering"; readonly stage: Stage; readonly result: string }
  | { readonly kind: "holding" }
  /** Nothing is to be done in this state of the run; a directive may come. */
  | { readonly kind: "parked"; readonly run: RunState }
  | { readonly kind: "aborted" }
  | { readonly kind: "leaving"; readonly how: PowerChange; readonly hasSaid: boolean }
  /** The run does not know this agent any more. */
  | { readonly kind: "over" };
export type PhaseKind = Phase["kind"];
export type In<Kind extends PhaseKind> = AgentState & {
  readonly phase: Extract<Phase, { readonly kind: Kind }>;
};

export interface AgentState {
  readonly phase: Phase;
  readonly kept: Kept;
  readonly claim: ClaimAnswer | null;
  /** Of the result that waits; undefined where none does. */
  readonly body: ResultBody | undefined;
  /** Of the call that is answered next; what has another one comes late. */
  readonly ticket: number;
  /** Failures of this call in a row. */
  readonly failures: number;
  /** Heartbeats in a row that were refused for this agent. */
  readonly refusals: number;
}

export type CallFailure = {
  readonly kind: /** It may go another time: not reached, too many, a bug, or garbage. */
    | "passing"
    /** This agent is not the run's, or not any more. */
    | "displaced"
    /** What was asked is wrong, and stays so. */
    | "refused";
  readonly message: string;
  readonly retryAfter: Milliseconds | null;
};

export type AgentEvent =
  | { readonly kind: "hello-answered"; readonly ticket: number }
  | { readonly kind: "claimed"; readonly ticket: number; readonly answer: ClaimAnswer }
  | { readonly kind: "attempt-answered"; readonly ticket: number; readonly answer: AttemptAnswer }
  | { readonly kind: "result-answered"; readonly ticket: number; readonly next: RunState }
  | {
      readonly kind: "hold-answered";
      readonly ticket: number;
      readonly key: string | null;
      readonly lasts: Milliseconds | null;
    }
  | { readonly kind: "call-failed"; readonly ticket: number; readonly failure: CallFailure }
  /** The wait before another try, or another look at a hold, is over. */
  | { readonly kind: "retry-due"; readonly ticket: number }
  | {
      readonly kind: "stage-ended";
      readonly attempt: string;
      readonly report: StageReport;
      readonly duration: Milliseconds;
    }
  | {
      readonly kind: "heard";
      readonly run: RunState;
      readonly directives: readonly Directive[];
      /** Ids of those acknowledgements that this heartbeat told. */
      readonly told: readonly string[];
      /** When it was asked: a directive's time is counted from then. */
      readonly asked: MonotonicTime;
    }
  | { readonly kind: "unheard"; readonly failure: CallFailure }
  | { readonly kind: "key-due" }
  /** An order to leave has waited long enough. */
  | { readonly kind: "leave-due" }
  | { readonly kind: "farewell-said" }
  /** The kernel refused. */
  | { readonly kind: "power-refused"; readonly reason: string };
export type EventKind = AgentEvent["kind"];
export type Of<Kind extends EventKind> = Extract<AgentEvent, { readonly kind: Kind }>;

export type AgentEffect =
  | { readonly kind: "call-hello"; readonly ticket: number }
  | { readonly kind: "call-claim"; readonly ticket: number }
  | {
      readonly kind: "call-attempt";
      readonly ticket: number;
      readonly attempt: string;
      readonly stage: Stage;
    }
  | { readonly kind: "call-result"; readonly ticket: number; readonly body: ResultBody }
  | { readonly kind: "call-hold"; readonly ticket: number }
  | { readonly kind: "wait"; readonly ticket: number; readonly wait: Milliseconds }
  | {
      readonly kind: "start-stage";
      readonly stage: Stage;
      readonly attempt: string;
      readonly wipe: readonly string[];
    }
  | { readonly kind: "end-stage" }
  | { readonly kind: "keep-result"; readonly body: ResultBody }
  | { readonly kind: "drop-result" }
  | { readonly kind: "install-key"; readonly line: string }
  | { readonly kind: "wake-for-key"; readonly at: MonotonicTime }
  /** The key, and whoever came by it. */
  | { readonly kind: "remove-key" }
  | { readonly kind: "wake-to-leave"; readonly wait: Milliseconds }
  /** A heartbeat now: it tells what was done, or asks what is to be done. */
  | { readonly kind: "beat" }
  | { readonly kind: "say-farewell" }
  | { readonly kind: "change-power"; readonly how: PowerChange }
  | { readonly kind: "end"; readonly how: "done" | "refused" }
  | {
      readonly kind: "say";
      readonly level: LogLine["level"];
      /** What it is about, which may be over when it is said. */
      readonly stage: Stage | null;
      readonly text: string;
    };
export type EffectKind = AgentEffect["kind"];

export interface AgentContext {
  readonly now: MonotonicTime;
  /** 128 bits of chance, in hexadecimal. */
  readonly draw: () => string;
}

export interface AgentStep {
  readonly state: AgentState;
  readonly effects: readonly AgentEffect[];
}

/** What a heartbeat tells; how far a stage is, its runner knows. */
export function activityOf({ phase, kept }: AgentState, progress: number | null): Activity {
  if (phase.kind === "running") return { kind: "stage", stage: phase.stage, progress };
  if (phase.kind === "holding") return { kind: "holding", key: kept.hold !== null };
  if (phase.kind === "aborted") return { kind: "holding", key: false };
  return { kind: "idle" };
}
