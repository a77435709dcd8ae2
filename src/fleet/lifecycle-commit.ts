import {
  abort,
  type Committed,
  candidateEnd,
  endedWith,
  forgotten,
  go,
  isNew,
  revert,
  shortened,
  stays,
} from "./lifecycle-moves.ts";
import {
  type AgentState,
  agentLimits,
  agentTimes,
  type Context,
  type In,
  type Of,
  type Outcome,
} from "./lifecycle-state.ts";
import type { Build, RoleHealth } from "./protocol.ts";
import { paceOf } from "./protocol-pace.ts";

/** From the commit to the end: only what this host sees itself leads back, never a silence. */

export function intact(state: In<"commit-seen">): Outcome {
  return state.life.stage === "hashing"
    ? go(state, { ...state.life, stage: "swapping" })
    : stays(state);
}

export function swapped(state: In<"commit-seen">, _event: Of<"swapped">, { now }: Context) {
  const { marker, instance, from, before, lastWords } = state.life;
  return go(
    state,
    {
      phase: "swapped",
      ...{ marker, instance, from, before, lastWords },
      ...{ starts: 0, setbacks: 0, reason: null },
      until: now + marker.limits.canonical_ms,
    },
    { current: marker.build, previous: from },
  );
}

export function commitFailed(state: In<"commit-seen">, event: Of<"failed">, context: Context) {
  return abort(state, context, event);
}

export function candidateEndedAtCommit(
  state: In<"commit-seen">,
  { lastWords }: Of<"candidate-ended">,
  context: Context,
): Outcome {
  // The links may lead to it already; then what the new canonical agent does decides.
  if (state.life.stage === "swapping") {
    return stays({ ...state, life: { ...state.life, instance: null } });
  }
  const reason = candidateEnd(lastWords);
  return abort(state, context, { reason, cause: "candidate", lastWords, isGone: true });
}

export function commitOverdue(state: In<"commit-seen">, _event: Of<"time">, context: Context) {
  const { stage, until, marker } = state.life;
  if (stage === "swapping" || context.now < until) return stays(state);
  const reason = `the file could not be hashed within ${marker.limits.canonical_ms} ms`;
  return abort(state, context, { reason, cause: "host" });
}

/** It ends because it has done its work: what it left says nothing of the canonical agent. */
export function overlapEnded(state: In<"swapped" | "canonical" | "reverting">): Outcome {
  return stays({ ...state, life: { ...state.life, instance: null } });
}

export function answered(state: In<"swapped">, { roles }: Of<"roles">, { now }: Context): Outcome {
  const { life } = state;
  const looked = { ...state, roles };
  if (!isNew(state, life.marker) || !allAnswer(roles, life.marker.build)) return stays(looked);
  const settledAt = now + paceOf(life.marker).settle;
  return go(looked, { ...life, phase: "canonical", reason: null, settledAt });
}

export function lookedAgain(state: In<"canonical">, { roles }: Of<"roles">, context: Context) {
  const { life } = state;
  const looked = { ...state, roles };
  if (allAnswer(roles, life.marker.build)) return stays(looked);
  const { settledAt: _settledAt, ...rest } = life;
  const setbacks = life.setbacks + 1;
  const { build } = life.marker;
  const who = missingOf(roles, build);
  const reason = shortened(`${who} did, and does not any more${becauseOf(roles, build)}`);
  if (setbacks > agentLimits.setbacks) {
    return revert({ ...looked, life }, context, { reason, lastWords: null });
  }
  const until = Math.max(life.until, context.now + paceOf(life.marker).settle);
  return go(looked, { ...rest, phase: "swapped", setbacks, reason, until });
}

export const allAnswer = (roles: readonly RoleHealth[], build: Build): boolean =>
  roles.length > 0 && roles.every((role) => answersFrom(role, build));

export const answersFrom = ({ healthy, digest }: RoleHealth, build: Build): boolean =>
  healthy && digest === build.digest;

/** Who does not, for people. */
export function missingOf(roles: readonly RoleHealth[], build: Build): string {
  const missing = roles.filter((role) => !answersFrom(role, build)).map(({ role }) => role);
  return missing.length === 0 ? "no role" : missing.join(", ");
}

/** What they say themselves, as the end of a sentence. */
export function becauseOf(roles: readonly RoleHealth[], build: Build): string {
  const reasons = roles
    .filter((role) => !answersFrom(role, build))
    .flatMap(({ role, reason }) => (reason === null ? [] : [`${role}: ${reason}`]));
  return reasons.length === 0 ? "" : ` (${reasons.join("; ")})`;
}

export function faulted(state: Committed, event: Of<"faulted">, context: Context): Outcome {
  return isNew(state, state.life.marker) ? revert(state, context, event) : stays(state);
}

export function restartRefused(state: In<"swapped">, event: Of<"failed">, context: Context) {
  const reason = `the canonical agent could not be started: ${event.reason}`;
  return revert(state, context, { reason, lastWords: event.lastWords });
}

export function rolesOverdue(state: In<"swapped">, _event: Of<"time">, context: Context): Outcome {
  const { life, roles } = state;
  const { now } = context;
  if (now < life.until) return stays(state);
  const limit = life.marker.limits.canonical_ms;
  // Whoever was to answer was suspended, or stopped, as this process was.
  if (now - life.until > agentTimes.late) {
    return stays({ ...state, life: { ...life, until: now + limit } });
  }
  const { build } = life.marker;
  const who = `${missingOf(roles, build)} did not answer from ${build.version} within ${limit} ms`;
  const reason = `${who}${becauseOf(roles, build)}`;
  return revert(state, context, { reason, lastWords: null });
}

export function settled(state: In<"canonical">, _event: Of<"time">, context: Context): Outcome {
  const { life } = state;
  const { now } = context;
  if (now < life.settledAt) return stays(state);
  if (life.instance !== null) return go(state, { ...life, settledAt: now + agentTimes.stopAgain });
  const { marker } = life;
  const ended = endedWith(context, { marker, instance: null, reason: "" });
  return go(state, { phase: "done", ...ended, reason: null }, forgotten(state, marker));
}

/** What is written next says the same, and the links say it already. */
export function unwrittenAtSwap(state: In<"swapped">, event: Of<"note-failed">, context: Context) {
  return isNew(state, state.life.marker) ? unwritten(state, event, context) : go(state, state.life);
}

/** The file system may have room later; what is on the disk leads to the same end. */
export function unwritten(state: AgentState, _event: Of<"note-failed">, { now }: Context): Outcome {
  return stays({ ...state, noteAt: now + agentTimes.noteAgain });
}
