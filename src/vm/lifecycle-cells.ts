import {
  attach,
  begin,
  beginForgiven,
  call,
  connect,
  connectNetwork,
  crash,
  decide,
  detach,
  end,
  enter,
  fail,
  forgetCapture,
  guestOff,
  isArriving,
  isHeld,
  needsVmm,
  order,
  pendingOf,
  prepend,
  record,
  remove,
  rest,
  retryWait,
  settle,
  spawn,
  startRefused,
  stay,
  stopGuest,
  straggler,
  turnOff,
} from "./lifecycle-moves.ts";
import {
  CONNECT_RETRY,
  type Context,
  type In,
  type Instance,
  initialState,
  type MachineEffect,
  type MachineState,
  type Of,
  type Outcome,
  orderLimits,
  VMM_DIED,
} from "./lifecycle-state.ts";

/** The cells of the table: what an event means in a phase. */

type Starting = "preparing" | "preparing-network" | "starting" | "uncertain";
export type Living =
  | "creating"
  | "created"
  | "booting"
  | "running"
  | "pausing"
  | "paused"
  | "resuming"
  | "replacing"
  | "capturing"
  | "snapshotting"
  | "restoring"
  | "sending"
  | "receiving"
  | "arrived";
type Unwanted = Of<"shutdown" | "delete">;
type Wanting = Of<"boot" | "pause" | "resume">;

const wantedBy = { boot: "running", resume: "running", pause: "paused" } as const;

// What the operator wants.

export function create(
  _state: In<"absent" | "removed">,
  { wanted, capture: held, migration }: Of<"create">,
  context: Context,
): Outcome {
  const id = held ?? migration;
  const stage = held === undefined ? "arriving" : "held";
  const capture = id === undefined ? undefined : ({ id, source: undefined, stage } as const);
  return begin({ ...initialState, wanted, capture }, context);
}

export function boot(state: In<"off" | "failed">, _event: Of<"boot">, context: Context): Outcome {
  return beginForgiven(enter(state, { wanted: "running" }).state, context);
}

/** It is on its way anyway, and only goes elsewhere when it has come so far. */
export const want = (state: MachineState, { kind }: Wanting): Outcome =>
  isDeleted(state) ? stay(state) : enter(state, { wanted: wantedBy[kind] });

/** A delete is not taken back: what is wanted again is created again. */
const isDeleted = (state: MachineState) => state.wanted === "absent";

export const wantDetached = (state: In<"detached">, { kind }: Wanting): Outcome =>
  isDeleted(state)
    ? stay(state)
    : enter(state, { ...state, wanted: wantedBy[kind], stopBy: undefined });

/** What was captured is held for this: a new VMM follows in any case. */
export function wantAfterStop(state: In<"stopping" | "clearing">, _event: Of<"boot">): Outcome {
  if (isDeleted(state)) return stay(state);
  const why = state.why === "replace" ? state.why : ("wish" as const);
  return enter(state, { ...state, wanted: "running", why } as In<"stopping">);
}

/** A shutdown takes no delete back. */
const lessWanted = (state: MachineState, { kind }: Unwanted) =>
  kind === "delete" || state.wanted === "absent" ? ("absent" as const) : ("off" as const);

/** Who deletes, or is in a hurry, gives up what was captured; an orderly shutdown needs it. */
function unwant(state: MachineState, event: Unwanted): Outcome {
  const unwanted = enter(state, { wanted: lessWanted(state, event) }).state;
  const isGivenUp = event.hurry || event.kind === "delete";
  return isGivenUp && isHeld(state) ? forgetCapture(unwanted) : stay(unwanted);
}

export const unwantLater = (state: In<Starting>, event: Unwanted): Outcome => unwant(state, event);

export function unwantAbandoned(state: In<"preparing">, event: Unwanted): Outcome {
  const unwanted = unwant(state, event);
  if (unwanted.state.wanted === state.wanted) return unwanted;
  const abandon: MachineEffect = { kind: "abandon", invocation: state.invocation };
  return { state: unwanted.state, effects: [...unwanted.effects, abandon] };
}

export function unwantAtRest(
  state: In<"off" | "failed" | "backing-off">,
  event: Unwanted,
): Outcome {
  const { state: unwanted, effects } = unwant(state, event);
  if (isHeld(unwanted)) return { state: unwanted, effects };
  const next = unwanted.wanted === "absent" ? remove(unwanted) : turnOff(unwanted, wasShutDown);
  return prepend(effects, next);
}

const wasShutDown = "it was shut down";

/** A new VMM, whose guest has never run: nothing is lost with it. */
export function connectingUnwanted(
  state: In<"connecting" | "creating" | "restoring">,
  event: Unwanted,
  context: Context,
): Outcome {
  const { state: unwanted, effects } = unwant(state, event);
  if (isHeld(unwanted)) return { state: unwanted, effects };
  const ended = end(unwanted, state.instance, { why: "wish", stage: "kill" }, context);
  return prepend(effects, ended);
}

export function unwantRunning(
  state: In<"created" | "running" | "paused">,
  event: Unwanted,
  context: Context,
): Outcome {
  const unwanted = unwant(state, event).state;
  if (event.hurry) return end(unwanted, state.instance, { why: "wish", stage: "kill" }, context);
  return stopGuest(unwanted, state.instance, state.phase, context);
}

/** An order is under way: its answer is awaited before the guest is asked, but in a hurry. */
export function unwantBusy(state: In<Living>, event: Unwanted, context: Context): Outcome {
  const unwanted = unwant(state, event).state;
  if (!event.hurry) return stay(unwanted);
  const given = forgetCapture(unwanted);
  const ended = end(given.state, state.instance, { why: "wish", stage: "kill" }, context);
  return prepend(given.effects, ended);
}

export function detachedUnwanted(
  state: In<"detached">,
  event: Unwanted,
  context: Context,
): Outcome {
  if (event.hurry) {
    const given = forgetCapture(unwant(state, event).state);
    const ended = end(given.state, state.instance, { why: "wish", stage: "kill" }, context);
    return prepend(given.effects, ended);
  }
  const stopBy = state.stopBy ?? context.now + context.rules.shutdownGrace;
  return enter(state, { ...state, wanted: lessWanted(state, event), stopBy });
}

export function stoppingUnwanted(
  state: In<"stopping">,
  event: Unwanted,
  context: Context,
): Outcome {
  const { state: unwanted, effects } = unwant(state, event);
  if (!event.hurry || state.stage === "kill") return { state: unwanted, effects };
  const { instance, why } = state;
  return prepend(effects, end(unwanted, instance, { why, stage: "kill" }, context));
}

export const clearingUnwanted = (state: In<"clearing">, event: Unwanted): Outcome =>
  unwant(state, event);

export function resume(state: In<"paused">, _event: Of<"resume">, context: Context): Outcome {
  return call(enter(state, { wanted: "running" }).state, "resume", state.instance, context);
}

export function snapshot(
  state: In<"running" | "paused">,
  event: Of<"snapshot">,
  context: Context,
): Outcome {
  if (state.capture !== undefined) return stay(state);
  const pending = begunCapture(state, context);
  const { instance } = state;
  if (state.phase === "paused") return save(pending, instance, event.snapshot, context);
  const { ticket, effect } = order(pending, "pause", instance);
  const answerBy = context.now + orderLimits.call;
  const pausing = { phase: "snapshotting", stage: "pausing", instance, answerBy, ticket } as const;
  return enter(pending, { ...pausing, snapshot: event.snapshot }, [effect]);
}

/** Noted before the VMM is asked: it may give its state, and end, unseen. */
export function begunCapture(
  state: In<"running" | "paused" | "replacing">,
  context: Context,
): MachineState {
  const id = context.nextInvocation;
  const capture = { id, source: state.instance.invocation, stage: "pending" } as const;
  return enter(state, { capture }).state;
}

function save(state: MachineState, instance: Instance, name: string, context: Context): Outcome {
  if (state.capture === undefined) return settle(state, instance, "paused", context);
  const ticket = state.ticket + 1;
  const answerBy = context.now + orderLimits.snapshot;
  const saving = { phase: "snapshotting", stage: "saving", snapshot: name } as const;
  return enter(state, { ...saving, instance, answerBy, ticket }, [
    { kind: "snapshot", instance, ticket, snapshot: name, capture: state.capture.id },
  ]);
}

// How a start goes.

export function prepared(state: In<"preparing">, event: Of<"prepared">, context: Context): Outcome {
  const { invocation } = event;
  if (invocation !== state.invocation) return stay(state);
  const ready = enter(state, { prepared: true }).state;
  const told = record({ what: "prepared", invocation });
  if (!needsVmm(ready)) return prepend([told], rest(ready, context));
  return prepend([told], connectNetwork(ready, invocation));
}

export function networkReady(
  state: In<"preparing-network">,
  event: Of<"network-ready">,
  context: Context,
): Outcome {
  const { invocation } = event;
  if (invocation !== state.invocation) return stay(state);
  const told = record({ what: "network-ready", invocation });
  if (!needsVmm(state)) return prepend([told], rest(state, context));
  return prepend([told], spawn(state, invocation, context));
}

const refusedWhat = {
  "prepare-refused": "prepare-refused",
  "network-refused": "network-refused",
  "spawn-refused": "start-refused",
} as const;

export function refusedStart(
  state: In<"preparing" | "preparing-network" | "starting">,
  event: Of<"prepare-refused" | "network-refused" | "spawn-refused">,
  context: Context,
): Outcome {
  const { invocation, refusal } = event;
  if (invocation !== state.invocation) return stay(state);
  // Abandoned for a wish that was taken back meanwhile: that is no failure.
  if (refusal.code === "ECANCELED") return rest(state, context);
  const told = record({ what: refusedWhat[event.kind], invocation, refusal });
  return prepend([told], startRefused(state, refusal, context));
}

/** Nobody can say whether it was spawned: its invocation is looked for before anything else. */
export function spawnOverdue(
  state: In<"starting">,
  _event: Of<"deadline">,
  context: Context,
): Outcome {
  return context.now < state.answerBy ? stay(state) : search(state, state.invocation);
}

export function search(state: MachineState, invocation: string): Outcome {
  return enter(state, { phase: "uncertain", invocation }, [
    { kind: "find", invocation },
    record({ what: "uncertain", invocation }),
  ]);
}

export function notFound(
  state: In<"uncertain">,
  event: Of<"not-found">,
  context: Context,
): Outcome {
  return event.invocation === state.invocation ? rest(state, context) : stay(state);
}

/** Its VMM lives: it is asked how it is, or ended when nobody wants it any more. */
export function found(
  state: In<"starting" | "uncertain">,
  event: Of<"spawned" | "found">,
  context: Context,
): Outcome {
  const { invocation, processId, startTicks } = event;
  if (invocation !== state.invocation) return straggler(state, event, context);
  const instance: Instance = { invocation, processId, startTicks, startedAt: context.now };
  const isRestart = state.begunBy === "rule" && state.lastInvocation !== undefined;
  const restarts = state.restarts + (isRestart ? 1 : 0);
  const arrived = enter(state, { lastInvocation: invocation, restarts, begunBy: "rule" }).state;
  const what = event.kind === "spawned" ? "started" : "found";
  const told = record({ what, invocation, processId });
  if (needsVmm(state)) return prepend([told], connect(arrived, instance, context));
  return prepend([told], end(arrived, instance, { why: "wish", stage: "kill" }, context));
}

export function attached(
  state: In<"connecting" | "detached">,
  event: Of<"attached">,
  context: Context,
): Outcome {
  const { invocation, ticket, guest } = event;
  const { instance } = state;
  if (invocation !== instance.invocation || ticket !== state.ticket) return stay(state);
  const told = record({ what: "attached", invocation, guest });
  if (state.phase === "detached") return prepend([told], reattached(state, event, context));
  // A new VMM has made its machine by itself, or has none yet: to be told to make it is no harm.
  const isNew = ["off", "created", "empty"].includes(guest) && !isHeld(state) && !isArriving(state);
  if (!isNew) return prepend([told], settle(state, instance, guest, context));
  return prepend([told], call(state, "create", instance, context));
}

function reattached(
  state: In<"detached">,
  { guest, captured: isWhole }: Of<"attached">,
  context: Context,
): Outcome {
  const { instance, capture } = state;
  // It has given its machine away, and does not run on.
  if (isWhole && capture?.stage === "pending") return takeOver(state, instance, capture, context);
  if (state.cause === "refused") {
    const reason = state.reason ?? "it did not do what it was told";
    if (guest === "created" && needsVmm(state)) return crash(state, instance, reason, context);
    // A guest that cannot be woken cannot be asked to shut down either: its VMM is.
    const isAsleep = guest === "paused" && !needsVmm(state);
    if (isAsleep) {
      const given = forgetCapture(state);
      const ended = end(given.state, instance, { why: "wish", stage: "quit" }, context);
      return prepend(given.effects, ended);
    }
  }
  // What it did not do is worth knowing; that it did not answer for a while is over.
  const known = state.cause === "refused" ? state : { ...state, reason: undefined };
  return settle(believed(known, guest), instance, guest, context);
}

/** What the VMM says now is what somebody wanted of it, or all that can be had of it. */
function believed(state: In<"detached">, guest: string): MachineState {
  const isMoved = state.cause !== "lost" && needsVmm(state);
  if (!isMoved || (guest !== "running" && guest !== "paused")) return state;
  return enter(state, { wanted: guest }).state;
}

export function connectRefused(
  state: In<"connecting">,
  event: Of<"attach-refused">,
  context: Context,
): Outcome {
  const isLate = event.invocation !== state.instance.invocation || event.ticket !== state.ticket;
  if (isLate) return stay(state);
  const reason = event.refusal.message;
  return enter(state, { ...state, reason, retryAt: context.now + CONNECT_RETRY });
}

export function connectLost(
  state: In<"connecting">,
  event: Of<"connection-lost">,
  context: Context,
): Outcome {
  if (event.invocation !== state.instance.invocation) return stay(state);
  return enter(state, { ...state, reason: event.reason, retryAt: context.now + CONNECT_RETRY });
}

export function connectOverdue(
  state: In<"connecting">,
  _event: Of<"deadline">,
  context: Context,
): Outcome {
  const { instance, retryAt, answerBy } = state;
  if (context.now >= answerBy) {
    const why = state.reason === undefined ? "" : `: ${state.reason}`;
    return crash(state, instance, `its VMM does not answer${why}`, context);
  }
  if (retryAt === undefined || context.now < retryAt) return stay(state);
  const asked = attach(state, instance);
  return enter(asked.state, { ...asked.state, retryAt: undefined } as In<"connecting">, [
    ...asked.effects,
  ]);
}

// What a VMM answers.

type Asked = In<Exclude<Living, "created" | "running" | "paused" | "arrived">> | In<"stopping">;

export const isAnswer = (state: Asked, event: Of<"done" | "refused">): boolean =>
  event.invocation === state.instance.invocation && event.ticket === state.ticket;

export function created(state: In<"creating">, event: Of<"done">, context: Context): Outcome {
  if (!isAnswer(state, event)) return stay(state);
  const told = record({ what: "created", invocation: event.invocation });
  return prepend([told], settle(state, state.instance, "created", context));
}

export function booted(state: In<"booting">, event: Of<"done">, context: Context): Outcome {
  if (!isAnswer(state, event)) return stay(state);
  const told = record({ what: "booted", invocation: event.invocation });
  const known = enter(state, { reason: undefined }).state;
  return prepend([told], settle(known, state.instance, "running", context));
}

export function paused(state: In<"pausing">, event: Of<"done">, context: Context): Outcome {
  if (!isAnswer(state, event)) return stay(state);
  const told = record({ what: "paused", invocation: event.invocation });
  return prepend([told], settle(state, state.instance, "paused", context));
}

export function resumed(state: In<"resuming">, event: Of<"done">, context: Context): Outcome {
  if (!isAnswer(state, event)) return stay(state);
  const told = record({ what: "resumed", invocation: event.invocation });
  const known = enter(state, { reason: undefined }).state;
  return prepend([told], settle(known, state.instance, "running", context));
}

export const isUnwantedNow = (state: MachineState) =>
  state.wanted === "absent" || state.wanted === "off";

/** Its state is held: the VMM that gave it does not run on, and is ended for the new one. */
export function takeOver(
  state: MachineState,
  instance: Instance,
  capture: NonNullable<MachineState["capture"]>,
  context: Context,
): Outcome {
  const told = record({ what: "captured", capture: capture.id });
  const held = enter(state, { capture: { ...capture, stage: "held" } }).state;
  const given = held.wanted === "absent" ? forgetCapture(held) : stay(held);
  const why = isHeld(given.state) ? "replace" : "wish";
  const ended = end(given.state, instance, { why, stage: "kill" }, context);
  return prepend([told, ...given.effects], ended);
}

export function snapshotted(
  state: In<"snapshotting">,
  event: Of<"done">,
  context: Context,
): Outcome {
  if (!isAnswer(state, event) || state.capture === undefined) return stay(state);
  const { instance, capture } = state;
  if (state.stage === "pausing") {
    if (isUnwantedNow(state)) return settle(state, instance, "paused", context);
    return save(state, instance, state.snapshot, context);
  }
  const { invocation } = event;
  const told = record({ what: "snapshotted", invocation, snapshot: state.snapshot });
  const next =
    event.machine === "taken"
      ? takeOver(state, instance, capture, context)
      : settle(state, instance, "paused", context);
  return prepend([told], next);
}

/** The new VMM has the machine: what was captured is not needed, and is old from now on. */
export function restored(state: In<"restoring">, event: Of<"done">, context: Context): Outcome {
  if (!isAnswer(state, event)) return stay(state);
  const told = record({ what: "restored", invocation: event.invocation });
  const known = enter(state, { reason: undefined, failures: 0 }).state;
  return prepend([told], settle(known, state.instance, "paused", context));
}

export const toldRefusal = ({ invocation, call: what, refusal }: Of<"refused">) =>
  record({ what: "call-refused", invocation, call: what, refusal });

/**
 * Nothing is lost with this VMM: no guest ran in it, and what was to be restored is held; what
 * another host was to send, that host has yet.
 */
export function startingRefused(
  state: In<"creating" | "restoring" | "receiving">,
  event: Of<"refused">,
  context: Context,
): Outcome {
  if (!isAnswer(state, event)) return stay(state);
  const failed = crash(state, state.instance, event.refusal.message, context);
  return prepend([toldRefusal(event)], failed);
}

/** It may have been done before, and the answer lost: the VMM is asked how its guest is. */
export function callRefused(
  state: In<"booting" | "pausing" | "resuming">,
  event: Of<"refused">,
  context: Context,
): Outcome {
  if (!isAnswer(state, event)) return stay(state);
  const doubt = { reason: event.refusal.message, cause: "refused" } as const;
  return prepend([toldRefusal(event)], detach(state, state.instance, doubt, context));
}

/** A VMM that lives and holds its guest goes on with it: it is asked whether it does. */
export function captureRefused(
  state: In<"capturing" | "snapshotting" | "sending">,
  event: Of<"refused">,
  context: Context,
): Outcome {
  if (!isAnswer(state, event)) return stay(state);
  const doubt = { reason: event.refusal.message, cause: "lost" } as const;
  return prepend([toldRefusal(event)], detach(state, state.instance, doubt, context));
}

const noAnswer = "its VMM does not answer";

/** The guest may run: nothing is ended for a VMM that is slow. */
export function orderOverdue(
  state: In<"booting" | "pausing" | "resuming" | "capturing" | "snapshotting">,
  _event: Of<"deadline">,
  context: Context,
): Outcome {
  if (context.now < state.answerBy) return stay(state);
  return detach(state, state.instance, { reason: noAnswer, cause: "lost" }, context);
}

/** Its guest has never run, or its state is held: nothing is lost with this VMM. */
export function createOverdue(
  state: In<"creating" | "restoring">,
  _event: Of<"deadline">,
  context: Context,
): Outcome {
  return context.now < state.answerBy
    ? stay(state)
    : crash(state, state.instance, noAnswer, context);
}

export function createLost(
  state: In<"creating" | "restoring">,
  event: Of<"connection-lost">,
  context: Context,
): Outcome {
  if (event.invocation !== state.instance.invocation) return stay(state);
  return crash(state, state.instance, event.reason, context);
}

// What a VMM tells of itself.

export function connectionLost(
  state: In<Living>,
  event: Of<"connection-lost">,
  context: Context,
): Outcome {
  if (event.invocation !== state.instance.invocation) return stay(state);
  return detach(state, state.instance, { reason: event.reason, cause: "lost" }, context);
}

/** Somebody else has steered it, or the word is late: the VMM itself is asked. */
export function bootedByHand(
  state: In<"created" | "running" | "paused">,
  event: Of<"booted" | "paused" | "resumed">,
  context: Context,
): Outcome {
  if (event.invocation !== state.instance.invocation) return stay(state);
  const reason = `its VMM says "${event.kind}", and nobody here had asked for it`;
  return detach(state, state.instance, { reason, cause: "doubted" }, context);
}

/** The answer may be from before the last order: the VMM is asked once more, and then believed. */
export function observed(
  state: In<"created" | "running" | "paused">,
  event: Of<"observed">,
  context: Context,
): Outcome {
  const { invocation, guest } = event;
  if (invocation !== state.instance.invocation || guest === state.phase) return stay(state);
  const reason = `its guest is ${guest}, and nobody told`;
  return detach(state, state.instance, { reason, cause: "doubted" }, context);
}

export function toldOff(state: In<Living>, event: Of<"guest-off">, context: Context): Outcome {
  if (event.invocation !== state.instance.invocation) return stay(state);
  return guestOff(state, state.instance, event.by, context);
}

/** A guest that is paused does nothing: what ends then is the VMM that has given it away. */
export function toldOffCapturing(
  state: In<"capturing" | "snapshotting">,
  event: Of<"guest-off">,
  context: Context,
): Outcome {
  if (state.stage !== "pausing") return stay(state);
  const { invocation, by } = event;
  if (invocation !== state.instance.invocation) return stay(state);
  const given = forgetCapture(state);
  return prepend(given.effects, guestOff(given.state, state.instance, by, context));
}

export function reset(state: In<Living>, event: Of<"guest-reset">): Outcome {
  const { invocation } = event;
  if (invocation !== state.instance.invocation) return stay(state);
  return { state, effects: [record({ what: "guest-reset", invocation })] };
}

export function toldPanic(state: In<Living>, event: Of<"guest-panic">, context: Context): Outcome {
  const { invocation } = event;
  if (invocation !== state.instance.invocation) return stay(state);
  const told = record({ what: "guest-panic", invocation });
  const given = forgetCapture(state);
  const failed = crash(given.state, state.instance, "its guest panicked", context);
  return prepend([told, ...given.effects], failed);
}

/** As for a guest that is off: once it is paused, its state is worth more than a late word. */
export function toldPanicCapturing(
  state: In<"capturing" | "snapshotting">,
  event: Of<"guest-panic">,
  context: Context,
): Outcome {
  return state.stage === "pausing" ? toldPanic(state, event, context) : stay(state);
}

/** Asked to shut down within its grace; where nothing may start it again, it is left as it is. */
export function unhealthy(state: In<"running">, event: Of<"unhealthy">, context: Context): Outcome {
  const { instance } = state;
  if (event.invocation !== instance.invocation || context.rules.restart === "never") {
    return stay(state);
  }
  const why = event.wasHealthy ? "crash" : "unhealthy";
  const reason = `it is unhealthy: ${event.reason}`;
  const known = enter(state, { reason }).state;
  const rules = { ...context.rules, shutdownGrace: event.grace };
  return end(known, instance, { why, stage: "button" }, { ...context, rules });
}

// A VMM that does not answer.

export function attachRefused(
  state: In<"detached">,
  event: Of<"attach-refused">,
  context: Context,
): Outcome {
  const { invocation, ticket, refusal } = event;
  if (invocation !== state.instance.invocation || ticket !== state.ticket) return stay(state);
  return attachLater(state, refusal, context);
}

/** Told again when the reason is another, so that a VMM that hangs for days is one line. */
function attachLater(
  state: In<"detached">,
  refusal: Of<"attach-refused">["refusal"],
  context: Context,
): Outcome {
  const attempts = state.attempts + 1;
  const retryAt = context.now + retryWait(attempts, context.random);
  const reason = refusal.message;
  const { invocation } = state.instance;
  const isNew = attempts === 1 || reason !== state.reason;
  const told = record({ what: "attach-refused", invocation, attempts, refusal });
  return enter(state, { ...state, attempts, retryAt, reason }, isNew ? [told] : []);
}

export function attachOverdue(
  state: In<"detached">,
  _event: Of<"deadline">,
  context: Context,
): Outcome {
  const { instance, retryAt, answerBy, stopBy } = state;
  const { now } = context;
  if (stopBy !== undefined && now >= stopBy) {
    const given = forgetCapture(state);
    const ended = end(given.state, instance, { why: "wish", stage: "kill" }, context);
    return prepend(given.effects, ended);
  }
  if (retryAt === undefined) {
    if (now < answerBy) return stay(state);
    return attachLater(state, { message: noAnswer, code: "ETIMEDOUT", lasts: false }, context);
  }
  if (now < retryAt) return stay(state);
  const asked = attach(state, instance);
  const { ticket } = asked.state;
  const again = { ...state, ticket, retryAt: undefined, answerBy: now + orderLimits.attach };
  return enter(state, again, asked.effects);
}

// How it ends.

/** The guest, or the VMM, is off before its time: the next stage need not wait. */
export function quit(
  state: In<"stopping">,
  event: Of<"guest-off" | "guest-panic">,
  context: Context,
): Outcome {
  if (event.invocation !== state.instance.invocation || state.stage !== "button") {
    return stay(state);
  }
  return end(state, state.instance, { why: state.why, stage: "quit" }, context);
}

export function stopRefused(
  state: In<"stopping">,
  event: Of<"refused">,
  context: Context,
): Outcome {
  if (!isAnswer(state, event) || state.stage === "kill") return stay(state);
  return prepend([toldRefusal(event)], nextStage(state, context));
}

export function stopOverdue(
  state: In<"stopping">,
  _event: Of<"deadline">,
  context: Context,
): Outcome {
  if (state.until === undefined || context.now < state.until) return stay(state);
  return nextStage(state, context);
}

function nextStage(state: In<"stopping">, context: Context): Outcome {
  const stage = state.stage === "button" ? "quit" : "kill";
  return end(state, state.instance, { why: state.why, stage }, context);
}

/** Its VMM is dead; whatever it left behind is ended before anything follows. */
export function died(
  state: In<Living | "connecting" | "detached" | "stopping">,
  event: Of<"died">,
  context: Context,
): Outcome {
  const { instance } = state;
  const { invocation, ending } = event;
  if (invocation !== instance.invocation) return stay(state);
  const ranFor = context.now - instance.startedAt;
  const effects: MachineEffect[] = [
    clear(state, instance),
    record({ what: "died", invocation, ranFor }),
  ];
  if (ending !== undefined) effects.push(record({ what: "ended", invocation, ending }));
  const why = whyDied(state, ending);
  const reason = state.phase === "stopping" ? state.reason : reasonOf(why);
  const clearing = { phase: "clearing", instance, why, diedAt: context.now } as const;
  return enter(state, { ...clearing, lastEnding: ending, reason }, effects);
}

export const clear = (state: MachineState, instance: Instance): MachineEffect => ({
  kind: "clear",
  instance,
  capture: pendingOf(state),
});

const reasonOf = (why: string) => (why === "off" ? "its VMM ended in an orderly way" : VMM_DIED);

/** A VMM that ends with status 0 by itself has run a guest that shut itself down. */
function whyDied(
  state: In<Living | "connecting" | "detached" | "stopping">,
  ending: Of<"died">["ending"],
) {
  if (state.phase === "stopping") return state.why;
  if (!needsVmm(state)) return "wish" as const;
  const fresh = ["connecting", "creating", "restoring", "created", "receiving", "arrived"];
  const ranGuest = !fresh.includes(state.phase);
  const isOrderly = ending?.kind === "exited" && ending.status === 0;
  return isOrderly && ranGuest && pendingOf(state) === undefined ? ("off" as const) : "crash";
}

export function cleared(state: In<"clearing">, event: Of<"cleared">, context: Context): Outcome {
  if (event.invocation !== state.instance.invocation) return stay(state);
  const { capture } = state;
  if (capture?.stage !== "pending") return decide(state, context);
  if (!event.captured || isUnwantedNow(state)) {
    const given = forgetCapture(state);
    return prepend(given.effects, decide(given.state as In<"clearing">, context));
  }
  const held = { ...state, capture: { ...capture, stage: "held" }, why: "replace" } as const;
  const told = record({ what: "captured", capture: capture.id });
  return prepend([told], decide(held, context));
}

/** Nobody holds the state any more: what is left is a machine that crashed. */
export function captureLost(
  state: In<Starting | "stopping" | "clearing">,
  event: Of<"capture-lost">,
): Outcome {
  if (!isLost(state, event)) return stay(state);
  const lost = loseCapture(state, event);
  if (state.phase !== "stopping" && state.phase !== "clearing") return lost;
  const why = state.why === "replace" ? "crash" : state.why;
  return enter(lost.state, { ...lost.state, why } as In<"stopping">, lost.effects);
}

const isLost = (state: MachineState, { capture }: Of<"capture-lost">) =>
  isHeld(state) && state.capture?.id === capture;

function loseCapture(state: MachineState, event: Of<"capture-lost">): Outcome {
  const { capture, reason } = event;
  return enter(state, { capture: undefined, reason }, [
    record({ what: "capture-lost", capture, reason }),
  ]);
}

/** The VMM waits for what does not come. */
export function captureLostConnecting(
  state: In<"connecting" | "restoring">,
  event: Of<"capture-lost">,
  context: Context,
): Outcome {
  if (!isLost(state, event)) return stay(state);
  const lost = loseCapture(state, event);
  return prepend(lost.effects, crash(lost.state, state.instance, event.reason, context));
}

export function captureLostAtRest(
  state: In<"backing-off">,
  event: Of<"capture-lost">,
  context: Context,
): Outcome {
  if (!isLost(state, event)) return stay(state);
  const lost = loseCapture(state, event);
  if (!needsVmm(lost.state)) return prepend(lost.effects, rest(lost.state, context));
  if (context.rules.restart !== "never") return lost;
  return prepend(lost.effects, fail(lost.state, event.reason));
}

/** It may have been told before: an earlier worker's is forgotten once more. */
export function forgotten(state: MachineState, event: Of<"forgotten">): Outcome {
  const { capture } = state;
  if (capture?.stage !== "spent" || capture.id !== event.capture) return stay(state);
  return enter(state, { capture: undefined });
}

/** Told again by whoever was asked twice. */
export function besideEnded(state: MachineState, event: Of<"beside-ended">): Outcome {
  if (state.beside !== event.invocation) return stay(state);
  return enter(state, { beside: undefined });
}

export function discarded(state: In<"removing">, _event: Of<"discarded">): Outcome {
  const { ticket } = state;
  const removed = { ...initialState, phase: "removed", ticket } as const;
  return { state: removed, effects: [record({ what: "removed" })] };
}

export function discardRefused(
  state: In<"removing">,
  event: Of<"discard-refused">,
  context: Context,
): Outcome {
  if (state.retryAt !== undefined) return stay(state);
  const { refusal } = event;
  const failures = state.failures + 1;
  const retryAt = context.now + retryWait(failures, context.random);
  const change = { phase: "removing", retryAt, failures, reason: refusal.message } as const;
  return enter(state, change, [record({ what: "discard-refused", refusal })]);
}

export function discardAgain(
  state: In<"removing">,
  _event: Of<"deadline">,
  context: Context,
): Outcome {
  if (state.retryAt === undefined || context.now < state.retryAt) return stay(state);
  return enter(state, { phase: "removing", retryAt: undefined }, [{ kind: "discard" }]);
}
