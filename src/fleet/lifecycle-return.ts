import { allAnswer, becauseOf, missingOf } from "./lifecycle-commit.ts";
import { endedWith, forgotten, go, shortened, stays } from "./lifecycle-moves.ts";
import { agentTimes, type Context, type In, type Of, type Outcome } from "./lifecycle-state.ts";

/** The way back to the former version, and what is left to do when an upgrade is over. */

export function wayBack(state: In<"reverting">): Outcome {
  return state.life.stage === "seeking"
    ? go(state, { ...state.life, stage: "swapping" })
    : stays(state);
}

export function swappedBack(state: In<"reverting">, _event: Of<"swapped">, { now }: Context) {
  const { life } = state;
  if (life.stage !== "swapping") return stays(state);
  const { from, before, marker } = life;
  const stage = state.self.digest === from.digest ? "proving" : "restarting";
  const until = now + marker.limits.canonical_ms;
  return go(state, { ...life, stage, until }, { current: from, previous: before });
}

export function revertFailed(state: In<"reverting">, event: Of<"failed">, context: Context) {
  const { life } = state;
  const { now } = context;
  if (life.stage !== "seeking") {
    return stays({ ...state, life: { ...life, until: now + agentTimes.revertAgain } });
  }
  // The committed version runs, and passed its own proof: better one that limps than none.
  const { stage: _stage, endingCause: _endingCause, ...rest } = life;
  const reason = shortened(`${life.reason}; there is no way back: ${event.reason}`);
  const until = now + life.marker.limits.canonical_ms;
  return go(state, { ...rest, phase: "swapped", reason, until });
}

export function answeredAgain(
  state: In<"reverting">,
  { roles }: Of<"roles">,
  context: Context,
): Outcome {
  const { life } = state;
  const looked = { ...state, roles };
  if (life.stage !== "proving" || !allAnswer(roles, life.from)) return stays(looked);
  return rolledBack(looked, context, life.reason);
}

export function revertOverdue(state: In<"reverting">, _event: Of<"time">, context: Context) {
  const { life } = state;
  const { now } = context;
  if (now < life.until) return stays(state);
  if (life.stage === "proving") {
    const who = missingOf(state.roles, life.from);
    const reason = `${life.reason}; and ${who} has not answered since`;
    return rolledBack(state, context, `${reason}${becauseOf(state.roles, life.from)}`);
  }
  return go(state, { ...life, until: now + life.marker.limits.canonical_ms });
}

function rolledBack(state: In<"reverting">, context: Context, reason: string): Outcome {
  const { marker, instance, lastWords, endingCause } = state.life;
  const ended = endedWith(context, { marker, instance, reason, lastWords });
  return go(state, { phase: "rolled-back", ...ended, endingCause }, forgotten(state, marker));
}

/** What the version that was left has said last, as this host's service manager knows it. */
export function formerEnded(
  state: In<"reverting" | "rolled-back">,
  { lastWords }: Of<"former-ended">,
): Outcome {
  return { state: { ...state, life: { ...state.life, lastWords } }, effects: [] };
}

export function goneAtLast(
  state: In<"aborted" | "rolled-back">,
  { lastWords }: Of<"candidate-ended">,
): Outcome {
  const { life } = state;
  // After a way back it was the canonical agent that failed: the candidate's words are not its own.
  const words = life.phase === "rolled-back" ? life.lastWords : (lastWords ?? life.lastWords);
  return go(state, { ...life, ending: null, lastWords: words });
}

export function stopAgain(
  state: In<"aborted" | "rolled-back">,
  _event: Of<"time">,
  { now }: Context,
): Outcome {
  const { life } = state;
  if (life.ending === null || now < life.ending.until) return stays(state);
  return go(state, { ...life, ending: { ...life.ending, until: now + agentTimes.stopAgain } });
}
