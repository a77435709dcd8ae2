import { type Directive, type RunState, stageOf } from "../protocol.ts";
import type { Draft } from "./lifecycle-draft.ts";
import { agentPace, type Of, type PhaseKind, type PowerChange } from "./lifecycle-state.ts";

/**
 * What an operator has an agent do: each once, by its id, in a state that it is meant for, and
 * within its time, which is counted from the heartbeat that asked.
 */
export function takeDirectives(draft: Draft, { directives, run, asked }: Of<"heard">): void {
  const before = draft.kept.acknowledgements.length;
  for (const directive of directives) {
    if (draft.kept.taken.includes(directive.id)) {
      acknowledgeAgain(draft, directive);
      continue;
    }
    draft.take(directive);
    const isLate = asked + directive.expires_in_ms <= draft.context.now;
    if (isLate) draft.acknowledge(directive.id, "expired", "it came after its time");
    else takeUp(draft, directive, run);
  }
  const { kind } = draft.state.phase;
  const isTold = kind === "leaving" || kind === "over";
  if (draft.kept.acknowledgements.length > before && !isTold) draft.do({ kind: "beat" });
}

/** What was done is told until that is answered; what is still being done is told when it is. */
function acknowledgeAgain(draft: Draft, { id }: Directive): void {
  if (draft.kept.intent?.directive === id && draft.kept.intent.kind === "leave") return;
  draft.acknowledge(id, "done", "it was taken up before");
}

function takeUp(draft: Draft, directive: Directive, run: RunState): void {
  const { id } = directive;
  const refusal = refuse(draft, directive, run);
  draft.say("info", `directive ${directive.kind}: ${refusal ?? "taken up"}`);
  if (refusal !== undefined) {
    draft.acknowledge(id, "refused", refusal);
    return;
  }
  switch (directive.kind) {
    case "cancel":
      leaveBy(draft, id, "power-off", true);
      break;
    case "shutdown":
      leaveBy(draft, id, "power-off", false);
      break;
    case "reboot":
      leaveBy(draft, id, "reboot", false);
      break;
    case "abort":
      draft.keep({ intent: { kind: "abort", directive: id } });
      draft.abort();
      draft.acknowledge(id, "done", null);
      break;
    case "retry":
      draft.removeKey();
      draft.acknowledge(id, "done", null);
      draft.go(run);
      break;
    case "revoke-hold":
      draft.removeKey();
      draft.acknowledge(id, "done", null);
      break;
  }
}

/** Where a directive means nothing. */
const unmeant: Readonly<Partial<Record<Directive["kind"], readonly PhaseKind[]>>> = {
  abort: ["aborted"],
  cancel: ["aborted", "holding"],
};

function refuse(draft: Draft, { kind }: Directive, run: RunState): string | undefined {
  const { phase } = draft.state;
  if (draft.kept.intent?.kind === "leave" && kind !== "revoke-hold") return "the host leaves";
  if (unmeant[kind]?.includes(phase.kind)) return `the agent is ${phase.kind}`;
  if (kind !== "retry") return undefined;
  if (phase.kind !== "holding" && phase.kind !== "parked") return `the agent is ${phase.kind}`;
  if (phase.kind === "holding" && run === "FailedHolding") return "the run holds";
  if (phase.kind === "parked" && stageOf(run) === undefined) return `the run is in ${run}`;
  return undefined;
}

/** The stage that runs is ended first, and told as cancelled: what it found is not lost. */
function leaveBy(draft: Draft, directive: string, how: PowerChange, cancels: boolean): void {
  draft.keep({ intent: { kind: "leave", how, directive, cancels } });
  const { phase } = draft.state;
  if (phase.kind === "running") {
    draft.state = { ...draft.state, phase: { ...phase, isEnding: true } };
    draft.do({ kind: "end-stage" });
  } else if (phase.kind !== "delivering") {
    draft.leave(how);
    return;
  }
  draft.do({ kind: "wake-to-leave", wait: agentPace.leaveWithin });
}
