import {
  begunCapture,
  bootedByHand,
  connectionLost,
  died,
  isAnswer,
  isUnwantedNow,
  takeOver,
} from "./lifecycle-cells.ts";
import {
  attach,
  enter,
  order,
  prepend,
  record,
  restore,
  settle,
  stay,
  straggler,
} from "./lifecycle-moves.ts";
import {
  CONNECT_RETRY,
  type Context,
  type In,
  type Instance,
  type MachineEvent,
  type MachineState,
  type Of,
  type Outcome,
  orderLimits,
} from "./lifecycle-state.ts";

/**
 * The cells of a replacement. A new VMM is made ready beside the old one, whose guest goes on until
 * there is somebody to take it: what goes wrong before that changes nothing for the guest.
 */

type Former = In<"running" | "paused">;

export function replace(state: Former, _event: Of<"replace">, context: Context): Outcome {
  if (state.capture !== undefined || state.beside !== undefined) return stay(state);
  const { instance, phase: guest } = state;
  const invocation = context.nextInvocation;
  const replacing = {
    phase: "replacing",
    instance,
    guest,
    since: state.phase === "running" ? state.since : context.now,
    successor: { invocation, instance: undefined },
    answerBy: context.now + orderLimits.spawn,
    retryAt: undefined,
  } as const;
  return enter(state, { ...replacing, beside: invocation, reason: undefined }, [
    { kind: "spawn", invocation, beginning: { kind: "beside", former: instance } },
    record({ what: "start-requested", invocation }),
  ]);
}

/** The machine as it is without a successor. */
function formerOf(state: In<"replacing">): Former {
  const { instance, guest, since } = state;
  const former =
    guest === "running"
      ? ({ phase: "running", instance, since } as const)
      : ({ phase: "paused", instance } as const);
  return enter(state, former).state as Former;
}

/** What is as it would be without a successor, who is ended then. */
export function ofFormer<E extends MachineEvent>(
  cell: (state: Former, event: E, context: Context) => Outcome,
): (state: In<"replacing">, event: E, context: Context) => Outcome {
  return (state, event, context) => {
    const former = formerOf(state);
    const { state: next, effects } = cell(former, event, context);
    return { state: next === former ? state : next, effects };
  };
}

/** Nothing was taken from the old VMM: all is as it was. */
function giveUp(state: In<"replacing">, reason: string, context: Context): Outcome {
  const former = enter(formerOf(state), { reason }).state;
  if (former.phase === former.wanted) return stay(former);
  return settle(former, state.instance, state.guest, context);
}

export function successorSpawned(
  state: In<"replacing">,
  event: Of<"spawned">,
  context: Context,
): Outcome {
  const { successor } = state;
  const { invocation, processId, startTicks } = event;
  if (invocation !== successor.invocation) return straggler(state, event, context);
  if (successor.instance !== undefined) return stay(state);
  const instance: Instance = { invocation, processId, startTicks, startedAt: context.now };
  const answerBy = context.now + orderLimits.connect;
  const known = { ...state, successor: { invocation, instance }, answerBy };
  const told = record({ what: "started", invocation, processId });
  return prepend([told], attach(known, instance));
}

export function successorRefused(
  state: In<"replacing">,
  event: Of<"spawn-refused">,
  context: Context,
): Outcome {
  const { invocation, refusal } = event;
  const { successor } = state;
  if (invocation !== successor.invocation || successor.instance !== undefined) return stay(state);
  const told = record({ what: "start-refused", invocation, refusal });
  return prepend([told], giveUp(state, refusal.message, context));
}

const isOfSuccessor = (
  { successor, ticket }: In<"replacing">,
  event: Of<"attached" | "attach-refused">,
): boolean => event.invocation === successor.instance?.invocation && event.ticket === ticket;

/** It waits: now the guest is paused, and its state is taken. */
export function successorAttached(
  state: In<"replacing">,
  event: Of<"attached">,
  context: Context,
): Outcome {
  const successor = state.successor.instance;
  if (successor === undefined || !isOfSuccessor(state, event)) return stay(state);
  const { invocation, guest } = event;
  const told = record({ what: "attached", invocation, guest });
  if (guest !== "incoming" && guest !== "empty") {
    const reason = `its new VMM was to wait for a state, and says that its guest is ${guest}`;
    return prepend([told], giveUp(state, reason, context));
  }
  const pending = begunCapture(state, context);
  return prepend([told], pauseFirst(pending, state, successor, context));
}

function pauseFirst(
  pending: MachineState,
  { guest, instance }: In<"replacing">,
  successor: Instance,
  context: Context,
): Outcome {
  if (guest === "paused") return takeState(pending, instance, successor, context);
  const { ticket, effect } = order(pending, "pause", instance);
  const answerBy = context.now + orderLimits.call;
  const pausing = { phase: "capturing", stage: "pausing", instance, successor } as const;
  return enter(pending, { ...pausing, answerBy, ticket }, [effect]);
}

function takeState(
  state: MachineState,
  instance: Instance,
  successor: Instance,
  context: Context,
): Outcome {
  if (state.capture === undefined) return settle(state, instance, "paused", context);
  const ticket = state.ticket + 1;
  const answerBy = context.now + orderLimits.capture;
  const capturing = { phase: "capturing", stage: "capturing", instance, successor } as const;
  return enter(state, { ...capturing, answerBy, ticket }, [
    { kind: "capture", instance, ticket, capture: state.capture.id },
  ]);
}

export function successorUnreached(
  state: In<"replacing">,
  event: Of<"attach-refused">,
  context: Context,
): Outcome {
  if (!isOfSuccessor(state, event)) return stay(state);
  return retryLater(state, event.refusal.message, context);
}

const retryLater = (state: In<"replacing">, reason: string, context: Context): Outcome =>
  enter(state, { ...state, reason, retryAt: context.now + CONNECT_RETRY });

export function successorOverdue(
  state: In<"replacing">,
  _event: Of<"deadline">,
  context: Context,
): Outcome {
  const { answerBy, retryAt, successor } = state;
  if (context.now >= answerBy) {
    const what = successor.instance === undefined ? "was not started" : "does not answer";
    const why = state.reason === undefined ? "" : `: ${state.reason}`;
    return giveUp(state, `its new VMM ${what}${why}`, context);
  }
  if (successor.instance === undefined) return stay(state);
  if (retryAt === undefined || context.now < retryAt) return stay(state);
  return attach({ ...state, retryAt: undefined }, successor.instance);
}

export function lostWhileReplacing(
  state: In<"replacing">,
  event: Of<"connection-lost">,
  context: Context,
): Outcome {
  if (event.invocation === state.successor.instance?.invocation) {
    return retryLater(state, event.reason, context);
  }
  return ofFormer(connectionLost)(state, event, context);
}

export function diedWhileReplacing(
  state: In<"replacing">,
  event: Of<"died">,
  context: Context,
): Outcome {
  if (event.invocation !== state.successor.invocation) {
    return ofFormer(died)(state, event, context);
  }
  const why = state.reason === undefined ? "" : `: ${state.reason}`;
  return giveUp(state, `its new VMM ended before it could wait${why}`, context);
}

/** Somebody else steers the VMM, unless it says what is so already. */
export function toldWhileReplacing(
  state: In<"replacing">,
  event: Of<"booted" | "paused" | "resumed">,
  context: Context,
): Outcome {
  const isPaused = event.kind === "paused";
  if (isPaused === (state.guest === "paused")) return stay(state);
  return ofFormer(bootedByHand)(state, event, context);
}

// Once its guest is paused.

export function captured(state: In<"capturing">, event: Of<"done">, context: Context): Outcome {
  if (!isAnswer(state, event) || state.capture === undefined) return stay(state);
  const { instance, capture, successor } = state;
  if (state.stage === "pausing") {
    const isOver = isUnwantedNow(state) || successor === undefined;
    if (isOver) return settle(state, instance, "paused", context);
    return takeState(state, instance, successor, context);
  }
  const isGoing = successor !== undefined && state.wanted !== "absent";
  if (!isGoing) return takeOver(state, instance, capture, context);
  const told = record({ what: "captured", capture: capture.id });
  // From here on the new VMM is the machine's, and the old one is to be ended.
  const taken = enter(state, {
    capture: { ...capture, stage: "held" },
    beside: instance.invocation,
    lastInvocation: successor.invocation,
  }).state;
  const ends = { kind: "end-beside", invocation: instance.invocation } as const;
  return prepend([told, ends], restore(taken, successor, capture.id, context));
}

export function diedWhileCapturing(
  state: In<"capturing">,
  event: Of<"died">,
  context: Context,
): Outcome {
  if (event.invocation !== state.successor?.invocation) return died(state, event, context);
  return loseSuccessor(state, "its new VMM ended before it had the machine");
}

export function lostWhileCapturing(
  state: In<"capturing">,
  event: Of<"connection-lost">,
  context: Context,
): Outcome {
  if (event.invocation !== state.successor?.invocation) {
    return connectionLost(state, event, context);
  }
  return loseSuccessor(state, event.reason);
}

/** What is asked of the old VMM goes on: it may have given its state already. */
const loseSuccessor = (state: In<"capturing">, reason: string): Outcome =>
  enter(state, { ...state, successor: undefined, reason });

/** A word that came twice, or of a start that was given up. */
export function spawnedWhileCapturing(
  state: In<"capturing">,
  event: Of<"spawned">,
  context: Context,
): Outcome {
  const isKnown = event.invocation === state.successor?.invocation;
  return isKnown ? stay(state) : straggler(state, event, context);
}

/** Whoever is made ready beside the VMM that has the machine. */
function successorOf(state: MachineState): string | undefined {
  return "successor" in state ? state.successor?.invocation : undefined;
}

/** A successor whom a decision leaves without a machine is ended, whatever the decision was. */
export function endUnused(before: MachineState, outcome: Outcome): Outcome {
  const invocation = successorOf(before);
  const { state } = outcome;
  const isUsed =
    successorOf(state) === invocation ||
    ("instance" in state && state.instance?.invocation === invocation);
  if (invocation === undefined || isUsed) return outcome;
  const reason = state.reason ?? "it is not needed any more";
  return prepend(
    [
      { kind: "end-beside", invocation },
      record({ what: "replacement-given-up", invocation, reason }),
    ],
    outcome,
  );
}
