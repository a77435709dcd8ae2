import {
  answered,
  candidateEndedAtCommit,
  commitFailed,
  commitOverdue,
  faulted,
  intact,
  lookedAgain,
  overlapEnded,
  restartRefused,
  rolesOverdue,
  settled,
  swapped,
  unwritten,
  unwrittenAtSwap,
} from "./lifecycle-commit.ts";
import type { Journal } from "./lifecycle-journal.ts";
import { JOURNAL_FORMAT } from "./lifecycle-journal.ts";
import { followPreparing, followProbation, take, waitForNext } from "./lifecycle-markers.ts";
import { ordersOf, stays } from "./lifecycle-moves.ts";
import {
  accepted,
  bothSilentAt,
  candidateEnded,
  fetched,
  heard,
  heldOverdue,
  preparingFailed,
  preparingOverdue,
  probationOverdue,
  progressed,
  proved,
  ready,
  unwrittenBeforeSwap,
} from "./lifecycle-probation.ts";
import {
  answeredAgain,
  formerEnded,
  goneAtLast,
  revertFailed,
  revertOverdue,
  stopAgain,
  swappedBack,
  wayBack,
} from "./lifecycle-return.ts";
import type {
  AgentEffect,
  AgentEvent,
  AgentState,
  BootTime,
  Context,
  EventKind,
  In,
  Of,
  Outcome,
  Phase,
} from "./lifecycle-state.ts";

/**
 * One upgrade of a device: `step` decides, the agent performs. The old version drives it up to the
 * swap, and the new one goes on from the journal. Every phase × every event stands in `table`; a
 * cell that does nothing names its reason.
 */

type Handler<P extends Phase, K extends EventKind> = (
  state: In<P>,
  event: Of<K>,
  context: Context,
) => Outcome;
interface Ignored {
  readonly ignored: string;
}
type Row<P extends Phase> = { readonly [K in EventKind]: Handler<P, K> | Ignored };
export type Table = { readonly [P in Phase]: Row<P> };

const ignored = (reason: string): Ignored => ({ ignored: reason });

const noUpgrade = ignored("no upgrade is under way");
const isOver = ignored("the upgrade is over");
const noCandidate = ignored("no candidate runs yet");
const notFetching = ignored("nothing is being fetched");
const notProving = ignored("the file is not being proven");
const isReady = ignored("the candidate is ready already");
const notCompared = ignored("heartbeats are compared in probation alone");
const notSwapping = ignored("no link is being changed");
const notHashing = ignored("the file is not being hashed");
const notGoingBack = ignored("nothing is gone back to");
const isOld = ignored("the roles are the old version's, which is proven");
const oldServes = ignored("the old version is the canonical one, and no upgrade replaces it yet");
const noOrder = ignored("no order is under way");
const noDeadline = ignored("nothing is waited for");
const nothingLeft = ignored("only who goes back asks what the version before it has left");
const onItsWayBack = ignored("it is on its way back already");

/** Answers and signs that come before, or without, what they speak of. */
const nothingAsked = {
  accepted: notFetching,
  progress: notFetching,
  fetched: notFetching,
  proved: notProving,
  "candidate-ready": isReady,
  heard: notCompared,
  intact: notHashing,
  swapped: notSwapping,
  "way-back": notGoingBack,
  "former-ended": nothingLeft,
};

/** An upgrade may begin. */
const resting = {
  ...nothingAsked,
  marker: take,
  "candidate-ready": noUpgrade,
  "candidate-ended": noUpgrade,
  failed: noOrder,
  roles: isOld,
  faulted: noUpgrade,
  "note-failed": unwritten,
  time: noDeadline,
};

const over = {
  ...resting,
  "candidate-ready": isOver,
  "candidate-ended": goneAtLast,
  faulted: isOver,
  time: stopAgain,
};

/** `current` leads to the old version, and so does every way out. */
const beforeSwap = {
  ...nothingAsked,
  roles: isOld,
  faulted: oldServes,
  "note-failed": unwrittenBeforeSwap,
};

const preparing = {
  ...beforeSwap,
  marker: followPreparing,
  "candidate-ready": noCandidate,
  "candidate-ended": noCandidate,
  failed: preparingFailed,
  time: preparingOverdue,
};

const probation = {
  ...beforeSwap,
  marker: followProbation,
  "candidate-ended": candidateEnded,
  heard,
  failed: noOrder,
};

const afterSwap = {
  ...nothingAsked,
  marker: waitForNext,
  "candidate-ended": overlapEnded,
  faulted,
  "note-failed": unwritten,
};

/** Every phase × every event. */
export const table: Table = {
  idle: resting,
  staging: { ...preparing, accepted, progress: progressed, fetched },
  verifying: {
    ...preparing,
    proved,
    "candidate-ready": ready,
    "candidate-ended": candidateEnded,
  },
  "cutover-ready": { ...probation, time: probationOverdue },
  observed: { ...probation, time: probationOverdue },
  held: { ...probation, time: heldOverdue },
  "commit-seen": {
    ...beforeSwap,
    marker: waitForNext,
    "candidate-ended": candidateEndedAtCommit,
    intact,
    swapped,
    failed: commitFailed,
    time: commitOverdue,
  },
  swapped: {
    ...afterSwap,
    failed: restartRefused,
    roles: answered,
    "note-failed": unwrittenAtSwap,
    time: rolesOverdue,
  },
  canonical: { ...afterSwap, failed: noOrder, roles: lookedAgain, time: settled },
  reverting: {
    ...afterSwap,
    swapped: swappedBack,
    "way-back": wayBack,
    failed: revertFailed,
    roles: answeredAgain,
    faulted: onItsWayBack,
    "former-ended": formerEnded,
    time: revertOverdue,
  },
  // A candidate that does not go keeps an upgrade from being done.
  done: { ...over, "candidate-ended": isOver, time: noDeadline },
  aborted: over,
  "rolled-back": { ...over, "former-ended": formerEnded },
};

/** @param decisions for tests: a table from which something was taken away */
export function step(
  state: AgentState,
  event: AgentEvent,
  context: Context,
  decisions: Table = table,
): Outcome {
  if (isStale(state, event)) return stays(state);
  if (event.kind === "time" && state.noteAt !== undefined) {
    return context.now < state.noteAt ? stays(state) : writtenAgain(state);
  }
  const before = event.kind === "note-failed" ? { ...state, step: state.step - 1 } : state;
  const outcome = takeNext(decide(before, event, context, decisions), context, decisions);
  return isNoted(before, outcome.state) ? outcome : noted(outcome);
}

function decide(state: AgentState, event: AgentEvent, context: Context, decisions: Table): Outcome {
  const cell = decisions[state.life.phase][event.kind] as Handler<Phase, EventKind> | Ignored;
  if ("ignored" in cell) return stays(state);
  return cell(state as In<Phase>, event, context);
}

/** Late and doubled answers, and what another candidate does, say nothing in any phase. */
function isStale({ ticket, life }: AgentState, event: AgentEvent): boolean {
  if ("ticket" in event) return event.ticket !== ticket;
  if (!("instance" in event)) return false;
  const instance = "instance" in life ? life.instance : null;
  const ending = "ending" in life ? life.ending?.instance : undefined;
  return event.instance !== (instance ?? ending);
}

/** A marker that waited is taken when nothing of the upgrade before it is left. */
function takeNext(outcome: Outcome, context: Context, decisions: Table): Outcome {
  const { state, effects } = outcome;
  const { next, life, noteAt } = state;
  if (next === undefined || noteAt !== undefined) return outcome;
  if (!("ending" in life) || life.ending !== null) return outcome;
  const taken = decide(
    { ...state, next: undefined },
    { kind: "marker", marker: next },
    context,
    decisions,
  );
  return { state: taken.state, effects: [...effects, ...taken.effects] };
}

const isNoted = (before: AgentState, after: AgentState): boolean =>
  before.life === after.life &&
  before.floor === after.floor &&
  before.metadataVersion === after.metadataVersion &&
  before.current === after.current &&
  before.previous === after.previous;

/** Nothing is done before it stands in the journal but what is right in any case. */
export function noted({ state, effects }: Outcome): Outcome {
  const next = { ...state, step: state.step + 1, noteAt: undefined };
  const [first, rest] = [
    effects.filter(isAlwaysRight),
    effects.filter((one) => !isAlwaysRight(one)),
  ];
  return { state: next, effects: [...first, { kind: "note", journal: journalOf(next) }, ...rest] };
}

const isAlwaysRight = ({ kind }: AgentEffect) => kind === "abandon" || kind === "stop-candidate";

function writtenAgain(state: AgentState): Outcome {
  const next = { ...state, ticket: state.ticket + 1 };
  return noted({ state: next, effects: ordersOf(next) });
}

export function journalOf(state: AgentState): Journal {
  const { boot, floor, metadataVersion, current, previous, seen, life } = state;
  return {
    format: JOURNAL_FORMAT,
    step: state.step,
    ...{ boot, floor, metadataVersion, current, previous, life },
    seen: [...seen],
  };
}

/** When `time` is to be told at the latest; undefined: nothing is waited for. */
export function deadlineOf(state: AgentState): BootTime | undefined {
  return state.noteAt ?? lifeDeadline(state);
}

function lifeDeadline(state: AgentState): BootTime | undefined {
  const { life } = state;
  switch (life.phase) {
    case "idle":
      return undefined;
    case "cutover-ready":
    case "observed":
      return Math.min(
        life.readyAt + life.marker.limits.commit_ms,
        bothSilentAt({ ...state, life }),
      );
    case "held":
      return life.readyAt + 2 * life.marker.limits.commit_ms;
    case "commit-seen":
      return life.stage === "hashing" ? life.until : undefined;
    case "staging":
    case "verifying":
    case "swapped":
    case "reverting":
      return life.until;
    case "canonical":
      return life.settledAt;
    case "done":
    case "aborted":
    case "rolled-back":
      return life.ending?.until;
  }
}
