import { HEARTBEAT_EVERY, type ResultBody, stateOf } from "../protocol.ts";
import { takeDirectives } from "./lifecycle-directives.ts";
import { Draft, reportOf } from "./lifecycle-draft.ts";
import {
  type AgentContext,
  type AgentEvent,
  type AgentState,
  type AgentStep,
  agentPace,
  type EventKind,
  HELLO_TRIES,
  type In,
  type Kept,
  type Of,
  type PhaseKind,
  REFUSALS,
} from "./lifecycle-state.ts";

/**
 * What an agent does next. `kept` of the state is written before any effect of a step is carried
 * out: an agent that is killed at any moment goes on with what it had written. Pure.
 */
export function step(state: AgentState, event: AgentEvent, context: AgentContext): AgentStep {
  if ("ticket" in event && event.ticket !== state.ticket) return { state, effects: [] };
  const cell = (table[state.phase.kind] as Row)[event.kind];
  if ("ignored" in cell) return { state, effects: [] };
  const draft = new Draft(state, context);
  (cell as (draft: Draft, event: AgentEvent) => void)(draft, event);
  return draft.step;
}

/** Its first step. @param body of the result that waits, where one does */
export function begin(kept: Kept, body: ResultBody | undefined, context: AgentContext): AgentStep {
  const draft = new Draft(
    {
      ...{ phase: { kind: "hello" }, kept, claim: null, body },
      ...{ ticket: 0, failures: 0, refusals: 0 },
    },
    context,
  );
  const { hold, intent } = draft.kept;
  // The process before this one may have been killed before it had done it.
  if (hold === null) draft.do({ kind: "remove-key" });
  else draft.do({ kind: "install-key", line: hold.line });
  if (hold?.until != null) draft.do({ kind: "wake-for-key", at: hold.until });
  if (intent?.kind === "leave") draft.do({ kind: "wake-to-leave", wait: agentPace.leaveWithin });
  draft.ask((ticket) => ({ kind: "call-hello", ticket }));
  return draft.step;
}

type Cell<Phase extends PhaseKind, Kind extends EventKind> =
  | ((draft: Draft & { readonly state: In<Phase> }, event: Of<Kind>) => void)
  | { readonly ignored: string };
type Row = Readonly<Record<EventKind, Cell<PhaseKind, EventKind>>>;
type Table = {
  readonly [Phase in PhaseKind]: { readonly [Kind in EventKind]: Cell<Phase, Kind> };
};

const ignore = (ignored: string) => ({ ignored });

const notAsked = ignore("this was not asked in this phase");
const noStage = ignore("no stage runs in this phase");
const noSession = ignore("nobody beats without a session");
const noFarewell = ignore("no farewell is said in this phase");
const noPower = ignore("the power is not changed in this phase");
const noWait = ignore("nothing is waited for in this phase");

function claimed(draft: Draft, { answer }: Of<"claimed">): void {
  const { session, current_state } = answer;
  draft.state = { ...draft.state, claim: answer, refusals: 0 };
  draft.keep({ session });
  draft.say("info", `claimed the run, which is in ${current_state}`);
  draft.do({ kind: "beat" });
  draft.goOn(current_state);
}

/** A token that is spent, or a run that is not there, may come back; a session does not. */
function claimFailed(draft: Draft, { failure }: Of<"call-failed">): void {
  const { kept, state } = draft;
  if (failure.kind === "displaced" && kept.session === null && state.claim !== null) {
    draft.over(failure.message);
    return;
  }
  // By the token next: a claim that came twice gave two sessions, of which the second counts.
  if (failure.kind === "displaced") draft.keep({ session: null });
  draft.retry(failure, "the claim");
}

/** Calls of a session, other than a result's. */
const callFailed =
  (what: string) =>
  (draft: Draft, { failure }: Of<"call-failed">): void => {
    if (failure.kind === "displaced") draft.claim();
    else draft.retry(failure, what);
  };

function resultFailed(
  draft: Draft & { readonly state: In<"delivering"> },
  event: Of<"call-failed">,
) {
  const { body } = draft.state;
  const { failure } = event;
  if (failure.kind === "displaced") draft.claim();
  else if (failure.kind === "refused" && body !== undefined && !isSubstitute(body)) {
    // It would be refused for ever; that the stage ended so is said all the same.
    const message = `the orchestrator does not take its result: ${failure.message}`;
    draft.say("error", message);
    draft.finish({
      ...{ attempt: body.attempt, stage: body.stage, cancelled: body.cancelled },
      ...{ duration: body.duration_ms, report: reportOf(message, SUBSTITUTE) },
    });
  } else draft.retry(failure, "the result");
}

const SUBSTITUTE = "result-refused";
const isSubstitute = ({ report }: ResultBody) =>
  report.findings.some(({ code }) => code === SUBSTITUTE);

function attemptAnswered(
  draft: Draft & { readonly state: In<"asking"> },
  { answer }: Of<"attempt-answered">,
): void {
  const { stage, attempt } = draft.state.phase;
  if (answer.decision === "go") {
    draft.keep({ attempt: null });
    const isHere = answer.next_state === stateOf(stage);
    // It says no, and names this stage: it is asked again, and not at once.
    if (isHere) draft.retry({ message: "not now", retryAfter: null }, `the attempt of ${stage}`);
    else draft.go(answer.next_state);
    return;
  }
  draft.keep({ attempt: { id: attempt, stage, isBegun: true } });
  draft.enter({ kind: "running", stage, attempt, isEnding: false });
  draft.say("info", `attempt ${answer.number} of ${stage} begins`);
  draft.do({ kind: "start-stage", stage, attempt, wipe: answer.wipe });
}

function stageEnded(
  draft: Draft & { readonly state: In<"running"> },
  { attempt, report, duration }: Of<"stage-ended">,
): void {
  const { phase } = draft.state;
  if (attempt !== phase.attempt) return;
  draft.say("info", `${phase.stage} is ${report.outcome}: ${report.summary}`);
  draft.finish({ attempt, stage: phase.stage, cancelled: phase.isEnding, duration, report });
}

function resultAnswered(draft: Draft, { next }: Of<"result-answered">): void {
  draft.delivered();
  draft.goOn(next);
}

function holdAnswered(draft: Draft, { key, lasts }: Of<"hold-answered">): void {
  const { hold } = draft.kept;
  draft.state = { ...draft.state, failures: 0 };
  if (key === null) {
    if (hold !== null) draft.say("info", "the key of the hold is no more");
    draft.removeKey();
  } else {
    const until = lasts === null ? null : draft.context.now + lasts;
    draft.keep({ hold: { line: key, until } });
    if (hold?.line !== key) {
      // Whoever came by another one is not who is let in now.
      if (hold !== null) draft.do({ kind: "remove-key" });
      draft.do({ kind: "install-key", line: key });
      draft.say("info", "the key of the hold is in its place");
    }
    if (until !== null) draft.do({ kind: "wake-for-key", at: until });
  }
  draft.wait(HEARTBEAT_EVERY);
}

function keyDue(draft: Draft): void {
  const until = draft.kept.hold?.until;
  if (until == null || until > draft.context.now) return;
  draft.say("info", "the key of the hold has expired");
  draft.removeKey();
}

function heard(draft: Draft, event: Of<"heard">): void {
  const { told } = event;
  const left = draft.kept.acknowledgements.filter(({ id }) => !told.includes(id));
  draft.state = { ...draft.state, refusals: 0 };
  draft.keep({ acknowledgements: left });
  takeDirectives(draft, event);
}

/** One refusal may be a mistake of a moment: a stage is worth more. */
function unheard(draft: Draft, { failure }: Of<"unheard">): void {
  if (failure.kind !== "displaced") {
    draft.say("warn", `the heartbeat failed: ${failure.message}`);
    return;
  }
  const refusals = draft.state.refusals + 1;
  draft.state = { ...draft.state, refusals };
  draft.say("warn", `the heartbeat was refused: ${failure.message}`);
  if (refusals < REFUSALS) return;
  if (draft.state.phase.kind === "running") draft.do({ kind: "end-stage" });
  draft.claim();
}

function leaveNow(draft: Draft): void {
  const { intent } = draft.kept;
  if (intent?.kind !== "leave") return;
  if (draft.state.phase.kind === "running") draft.do({ kind: "end-stage" });
  draft.say("warn", "not all could be told in time: the host goes all the same");
  draft.leave(intent.how);
}

/** What an agent with a session does with what comes beside its calls. */
const session = {
  heard,
  unheard,
  "key-due": keyDue,
  "leave-due": leaveNow,
  "hello-answered": notAsked,
  claimed: notAsked,
  "farewell-said": noFarewell,
  "power-refused": noPower,
} as const;
const answers = {
  "attempt-answered": notAsked,
  "result-answered": notAsked,
  "hold-answered": notAsked,
} as const;
const idle = {
  ...answers,
  "call-failed": notAsked,
  "retry-due": noWait,
  "stage-ended": noStage,
} as const;
const unclaimed = {
  ...answers,
  "stage-ended": ignore("its run was claimed anew, and does not wait for it"),
  "key-due": keyDue,
  heard: ignore("the answer is to an earlier session"),
  unheard: noSession,
  "farewell-said": noFarewell,
  "power-refused": noPower,
} as const;

export const table: Table = {
  hello: {
    ...unclaimed,
    "hello-answered": (draft) => draft.claim(),
    claimed: notAsked,
    "call-failed": (draft, { failure }) => {
      if (failure.kind === "passing" && draft.state.failures + 1 < HELLO_TRIES) {
        draft.retry(failure, "hello");
        return;
      }
      draft.say("warn", `hello was not answered, ignoring: ${failure.message}`);
      draft.claim();
    },
    "retry-due": (draft) => draft.ask((ticket) => ({ kind: "call-hello", ticket })),
    "leave-due": leaveNow,
  },
  claiming: {
    ...unclaimed,
    "hello-answered": notAsked,
    claimed,
    "call-failed": claimFailed,
    "retry-due": (draft) => draft.ask((ticket) => ({ kind: "call-claim", ticket })),
    "leave-due": leaveNow,
  },
  asking: {
    ...session,
    ...answers,
    "attempt-answered": attemptAnswered,
    "call-failed": callFailed("the attempt"),
    "retry-due": (draft) => {
      const { stage } = draft.state.phase;
      const { failures } = draft.state;
      draft.askFor(stage);
      draft.state = { ...draft.state, failures };
    },
    "stage-ended": noStage,
  },
  running: {
    ...session,
    ...idle,
    "stage-ended": stageEnded,
  },
  delivering: {
    ...session,
    ...answers,
    "result-answered": resultAnswered,
    "call-failed": resultFailed,
    "retry-due": (draft) => {
      const { body } = draft.state;
      if (body !== undefined) draft.ask((ticket) => ({ kind: "call-result", ticket, body }));
    },
    "stage-ended": noStage,
  },
  holding: {
    ...session,
    ...answers,
    "hold-answered": holdAnswered,
    "call-failed": callFailed("the question for a key"),
    "retry-due": (draft) => draft.ask((ticket) => ({ kind: "call-hold", ticket })),
    "stage-ended": noStage,
  },
  parked: { ...session, ...idle },
  aborted: {
    ...session,
    ...idle,
    "stage-ended": ignore("the run was aborted, and takes no result"),
  },
  leaving: {
    ...session,
    ...idle,
    heard: (draft, { told }) => {
      const left = draft.kept.acknowledgements.filter(({ id }) => !told.includes(id));
      draft.keep({ acknowledgements: left });
    },
    unheard: ignore("the host goes, whether it is heard or not"),
    "stage-ended": ignore("the host goes: it was told as cancelled, or could not be told"),
    "leave-due": ignore("it leaves already"),
    "farewell-said": (draft) => {
      const { phase } = draft.state;
      draft.state = { ...draft.state, phase: { ...phase, hasSaid: true } };
      draft.do({ kind: "change-power", how: phase.how });
    },
    "power-refused": (draft, { reason }) => {
      draft.say("error", `the kernel does not ${draft.state.phase.how}: ${reason}`);
      draft.wait(agentPace.longestRetry);
    },
    "retry-due": (draft) => draft.do({ kind: "change-power", how: draft.state.phase.how }),
  },
  over: {
    ...session,
    ...idle,
    heard: ignore("the run is over for this agent"),
    unheard: ignore("the run is over for this agent"),
    "key-due": ignore("the key was removed"),
    "leave-due": ignore("the run is over for this agent"),
  },
};
