import { LOST_AFTER } from "../protocol.ts";
import * as agent from "./lifecycle-agent.ts";
import { nothing, RunDraft } from "./lifecycle-draft.ts";
import * as operator from "./lifecycle-operator.ts";
import { isOnPath } from "./lifecycle-path.ts";
import {
  type Run,
  type RunAnswer,
  type RunContext,
  type RunInput,
  type RunStep,
  runPace,
} from "./lifecycle-state.ts";

/**
 * What becomes of a run: the next state, the answer, and what is written with it. Pure. Nothing of
 * it is answered before it is durable; a step that is refused changes nothing but what it notes.
 */
export function step(run: Run, input: RunInput, context: RunContext): RunStep {
  const draft = new RunDraft(run, context);
  const answer = decide(draft, input);
  agent.settle(draft);
  return { run: draft.run, answer: tell(draft, input, answer), writes: draft.writes };
}

export type RunBeginning = Pick<
  Run,
  "run" | "mac" | "host" | "spec" | "specRevision" | "created" | "identity"
>;

/** @param who asked for it */
export function newRun(beginning: RunBeginning, who: string, context: RunContext): RunStep {
  const draft = new RunDraft(
    {
      ...beginning,
      ...{ state: "Queued", lostIn: null, failure: null, reason: "", verdict: null },
      ...{ changed: beginning.created, ended: null, endedAt: null, boot: null, session: null },
      ...{ heard: null, heardTime: null, attempt: null, spent: [], answers: [], stages: {} },
      ...{ hasRuleWarnings: false, areRulesOverridden: false, isIdentityOverridden: false },
      ...{ wipe: null, directives: [], hold: null, events: 0 },
    },
    context,
  );
  const { host, mac, spec, specRevision } = beginning;
  draft.note(who, "created", `${host} (${mac}) against ${spec} revision ${specRevision}`);
  return { run: draft.run, answer: nothing, writes: draft.writes };
}

function decide(draft: RunDraft, input: RunInput): RunAnswer {
  switch (input.kind) {
    case "boot":
      return agent.boot(draft, input);
    case "claim":
      return agent.claim(draft, input);
    case "attempt":
      return agent.attempt(draft, input);
    case "result":
      return agent.result(draft, input);
    case "heartbeat":
      return agent.heartbeat(draft, input);
    case "spoke":
      agent.heard(draft);
      return nothing;
    case "hold-asked":
      return agent.holdAsked(draft, input);
    case "tick":
      return tick(draft);
    case "restart":
      return restart(draft);
    case "cancel":
      return operator.cancel(draft, input);
    case "abort":
      return operator.abort(draft, input);
    case "retry":
      return operator.retry(draft, input);
    case "override":
      return operator.override(draft, input);
    case "hold":
      return operator.hold(draft, input);
    case "release":
      return operator.release(draft, input);
  }
}

/** What was answered before all was settled says where the run is now. */
function tell(draft: RunDraft, input: RunInput, answer: RunAnswer): RunAnswer {
  // A result's answer is kept as it was given first.
  if (answer.kind !== "state" || input.kind === "result") return answer;
  return { kind: "state", state: draft.run.state };
}

/** Nobody was listening: silence is counted from now on. */
function restart(draft: RunDraft): RunAnswer {
  const { run, context } = draft;
  if (run.heard !== null) draft.change({ heard: context.now });
  return nothing;
}

function tick(draft: RunDraft): RunAnswer {
  expireToken(draft);
  expireDirectives(draft);
  expireKey(draft);
  lose(draft);
  closeSession(draft);
  return nothing;
}

function expireToken(draft: RunDraft): void {
  const { run, context } = draft;
  if (run.boot === null || run.boot.until > context.now) return;
  draft.change({ boot: null });
  if (run.state === "Booting") draft.moveTo("Queued", "it booted, and did not claim in time");
}

function expireDirectives(draft: RunDraft): void {
  const { now } = draft.context;
  const late = draft.run.directives.filter(({ until }) => until <= now);
  if (late.length === 0) return;
  draft.untell(...late.map(({ kind }) => kind));
  for (const { kind } of late) {
    draft.note("orchestrator", "directive", `${kind} expired: the host did not take it up`);
    const { failure, ended } = draft.run;
    if (kind === "retry" && failure !== null && ended === null) {
      draft.fail(failure, "the host did not take the retry up");
    }
  }
}

function expireKey(draft: RunDraft): void {
  const { hold } = draft.run;
  if (hold?.key == null || hold.key.until > draft.context.now) return;
  draft.change({ hold: { ...hold, key: null }, changed: draft.context.time });
  draft.note("orchestrator", "hold", "the key has expired");
}

function lose(draft: RunDraft): void {
  const { run, context } = draft;
  if (run.ended !== null || run.heard === null) return;
  const silence = context.now - run.heard;
  if (isOnPath(run.state) && silence >= LOST_AFTER) {
    const isCancelled = draft.isTold("cancel");
    const seconds = Math.floor(silence / 1_000);
    draft.note("orchestrator", "lost", `nothing was heard of it for ${seconds} s`);
    if (isCancelled) {
      agent.cancelled(draft);
      return;
    }
    draft.change({ lostIn: run.state });
    draft.moveTo("Lost", `silent since ${run.heardTime ?? "its boot"}, in ${run.state}`);
  } else if (run.state === "Lost" && silence >= runPace.lostFor) {
    draft.end("lost", run.reason);
  }
}

/** A host whose run has ended waits to be shut down, as long as it speaks. */
function closeSession(draft: RunDraft): void {
  const { run, context } = draft;
  if (run.endedAt === null || run.session === null || run.directives.length > 0) return;
  if (context.now - run.endedAt < runPace.lastWords) return;
  if (run.heard !== null && context.now - run.heard < LOST_AFTER) return;
  draft.change({ session: null });
}
