import { isAnswer, type Living } from "./lifecycle-cells.ts";
import {
  begin,
  crash,
  detach,
  end,
  enter,
  needsVmm,
  prepend,
  record,
  remove,
  settle,
  stay,
} from "./lifecycle-moves.ts";
import {
  type Context,
  type In,
  type Instance,
  initialState,
  type MachineEffect,
  type MachineState,
  type Note,
  type Of,
  type Outcome,
} from "./lifecycle-state.ts";

/**
 * The cells of a machine that goes from one host to another. At every moment one of both may let
 * its guest run, or none: the giver's note "given" is on its disk before the taker hears of it, and
 * the taker's note that it is its own before its guest runs. Where one of both falls silent in
 * between, the other one waits for an operator.
 */

// The host that has it.

export function migrate(state: In<"running" | "paused">, { migration }: Of<"migrate">): Outcome {
  if (state.capture !== undefined || state.beside !== undefined) return stay(state);
  const { instance } = state;
  const ticket = state.ticket + 1;
  return enter(state, { phase: "sending", instance, migration, ticket }, [
    { kind: "send", instance, ticket, migration },
    record({ what: "sending", migration }),
  ]);
}

/** Whoever does not want it here any more does not want it elsewhere either. */
export function unwantSending(
  state: In<"sending">,
  event: Of<"shutdown" | "delete">,
  unwanted: Outcome,
): Outcome {
  if (unwanted.state.wanted === state.wanted && !event.hurry) return unwanted;
  const abandon: MachineEffect = { kind: "abandon-send", migration: state.migration };
  return prepend([abandon], unwanted);
}

/** All of it is there, and its guest stands still: from here on it is the other host's. */
export function sent(state: In<"sending">, event: Of<"done">, context: Context): Outcome {
  if (!isAnswer(state, event)) return stay(state);
  const { instance, migration } = state;
  if (!needsVmm(state)) {
    const reason = "it was sent, and is not wanted any more";
    const abandon: MachineEffect = { kind: "abandon-send", migration };
    return prepend([abandon], detach(state, instance, { reason, cause: "lost" }, context));
  }
  const wanted = state.wanted === "paused" ? ("paused" as const) : ("running" as const);
  return enter(state, { phase: "given", instance, migration, isUndecided: false }, [
    record({ what: "given", migration }),
    { kind: "hand-over", migration, wanted },
  ]);
}

/** It runs there: what is here of it goes, and its guest does not run once more. */
export function givenAway(state: In<"given">, event: Of<"taken">, context: Context): Outcome {
  return event.migration === state.migration ? leave(state, context) : stay(state);
}

/** The operator says that the other host has it. As long as that can be asked, it is. */
export function deleteGiven(state: In<"given">, _event: Of<"delete">, context: Context): Outcome {
  return state.isUndecided ? leave(state, context) : stay(state);
}

function leave(state: In<"given">, context: Context): Outcome {
  const { instance, migration } = state;
  const told = record({ what: "given-away", migration });
  const reason = "it was given to another host";
  const unwanted = enter(state, { ...state, wanted: "absent", reason }).state;
  if (instance === undefined) return prepend([told], remove(unwanted));
  const ended = end(unwanted, instance, { why: "elsewhere", stage: "kill" }, context);
  return prepend([told], ended);
}

/** It is known not to run there. */
export function notTaken(state: In<"given">, event: Of<"not-taken">, context: Context): Outcome {
  if (event.migration !== state.migration) return stay(state);
  return takeBack(state, event.reason, context);
}

export function claimGiven(state: In<"given">, _event: Of<"claim">, context: Context): Outcome {
  if (!state.isUndecided) return stay(state);
  return takeBack(state, "an operator said that it is this host's", context);
}

function takeBack(state: In<"given">, reason: string, context: Context): Outcome {
  const { instance, migration } = state;
  const told = record({ what: "taken-back", migration, reason });
  const known = enter(state, { begunBy: "rule" }).state;
  // Its disks are as they were when its guest stood still.
  if (instance === undefined) return prepend([told], begin(known, context));
  return prepend([told], detach(known, instance, { reason, cause: "lost" }, context));
}

export function undecided(
  state: In<"given" | "arrived">,
  { migration, reason }: Of<"undecided">,
): Outcome {
  if (migration !== migrationOf(state)) return stay(state);
  const told = record({ what: "undecided", migration, reason });
  const change = { ...state, isUndecided: true, reason: `${reason}; ${whoDecides}` };
  return enter(state, change as In<"given">, [told]);
}

const whoDecides =
  "nobody knows whose it is: where it is not to run, hostler vm delete; then hostler vm migrate " +
  "--resume-here on the other host";

const migrationOf = (state: In<"given" | "arrived">) =>
  state.phase === "given" ? state.migration : state.capture?.id;

export function diedGiven(state: In<"given">, event: Of<"died">, context: Context): Outcome {
  const { instance } = state;
  if (instance === undefined || event.invocation !== instance.invocation) return stay(state);
  const { invocation, ending } = event;
  const ranFor = context.now - instance.startedAt;
  const change = { ...state, instance: undefined, lastEnding: ending };
  return enter(state, change, [record({ what: "died", invocation, ranFor })]);
}

export function adoptGiven(note: Note, alive: Instance | undefined): Outcome {
  const { wanted, prepared, restarts, lastInvocation, migration = "" } = note;
  const reason = `the worker ended after it had given it; ${whoDecides}`;
  const common = { wanted, prepared, restarts, lastInvocation, reason } as const;
  const known = enter(initialState, common).state;
  const given = { phase: "given", instance: alive, migration, isUndecided: true } as const;
  return enter(known, given, [record({ what: "undecided", migration, reason })]);
}

// The host that is to have it.

export function received(state: In<"receiving">, event: Of<"done">): Outcome {
  const { capture, instance } = state;
  if (!isAnswer(state, event) || capture === undefined) return stay(state);
  const arrived = { phase: "arrived", instance, isUndecided: false, isAttached: true } as const;
  const migration = capture.id;
  return enter(state, arrived, [
    record({ what: "arrived", migration }),
    { kind: "confirm", migration, what: "arrived" },
  ]);
}

export function receivingLost(
  state: In<"receiving">,
  event: Of<"connection-lost">,
  context: Context,
): Outcome {
  if (event.invocation !== state.instance.invocation) return stay(state);
  return crash(state, state.instance, event.reason, context);
}

/** Whose it is does not hang on that: its VMM is asked when it is this host's. */
export function arrivedLost(state: In<"arrived">, event: Of<"connection-lost">): Outcome {
  if (event.invocation !== state.instance.invocation || !state.isAttached) return stay(state);
  return enter(state, { ...state, isAttached: false });
}

/** Nobody is to run it here: the other host has it, or is told that it was not taken. */
export function dropArriving(
  state: In<"receiving" | "arrived">,
  _event: Of<"shutdown" | "delete">,
  context: Context,
): Outcome {
  return drop(state, "it was deleted before it was this host's", context);
}

export function withdrawn(
  state: In<"arrived">,
  { migration, reason }: Of<"withdrawn">,
  context: Context,
): Outcome {
  if (migration !== migrationOf(state)) return stay(state);
  return prepend([record({ what: "withdrawn", migration, reason })], drop(state, reason, context));
}

function drop(state: In<Living>, reason: string, context: Context): Outcome {
  const unwanted = enter(state, { wanted: "absent", reason, capture: undefined }).state;
  return end(unwanted, state.instance, { why: "elsewhere", stage: "kill" }, context);
}

/** It is this host's, and noted to be: now it may run here. */
export function handedOver(
  state: In<"arrived">,
  { migration, wanted }: Of<"handed-over">,
  context: Context,
): Outcome {
  if (migration !== migrationOf(state)) return stay(state);
  return takeOver(state, migration, wanted, context);
}

export function claimArrived(state: In<"arrived">, _event: Of<"claim">, context: Context): Outcome {
  const { capture, wanted } = state;
  if (!state.isUndecided || capture === undefined) return stay(state);
  return takeOver(state, capture.id, wanted, context);
}

/** The giver hears of it after the note, and after its guest was told to run. */
function takeOver(
  state: In<"arrived">,
  migration: string,
  wanted: MachineState["wanted"],
  context: Context,
): Outcome {
  const { instance } = state;
  const change = { wanted, capture: undefined, reason: undefined, failures: 0 } as const;
  const own = enter(state, change).state;
  const told = record({ what: "taken-over", migration });
  const confirm: MachineEffect = { kind: "confirm", migration, what: "taken" };
  const reason = "its VMM was not asked while another host had it";
  const next = state.isAttached
    ? settle(own, instance, "paused", context)
    : detach(own, instance, { reason, cause: "lost" }, context);
  return { state: next.state, effects: [told, ...next.effects, confirm] };
}

export function adoptArrived(note: Note, alive: Instance): Outcome {
  const { wanted, prepared, restarts, capture } = note;
  const migration = capture?.id ?? "";
  const reason = `the worker ended before the other host had given it; ${whoDecides}`;
  const lastInvocation = alive.invocation;
  const known = enter(initialState, {
    wanted,
    prepared,
    restarts,
    lastInvocation,
    capture,
    reason,
  });
  const arrived = { phase: "arrived", isUndecided: true, isAttached: false } as const;
  const told = record({ what: "undecided", migration, reason });
  return enter(known.state, { ...arrived, instance: alive }, [told]);
}
