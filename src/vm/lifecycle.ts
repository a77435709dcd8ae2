import type { MonotonicTime } from "../units/units.ts";
import { adopted } from "./lifecycle-adoption.ts";
import {
  attached,
  attachOverdue,
  attachRefused,
  besideEnded,
  boot,
  booted,
  bootedByHand,
  callRefused,
  captureLost,
  captureLostAtRest,
  captureLostConnecting,
  captureRefused,
  cleared,
  clearingUnwanted,
  connectingUnwanted,
  connectionLost,
  connectLost,
  connectOverdue,
  connectRefused,
  create,
  created,
  createLost,
  createOverdue,
  detachedUnwanted,
  died,
  discardAgain,
  discarded,
  discardRefused,
  forgotten,
  found,
  networkReady,
  notFound,
  observed,
  orderOverdue,
  paused,
  prepared,
  quit,
  refusedStart,
  reset,
  restored,
  resume,
  resumed,
  snapshot,
  snapshotted,
  spawnOverdue,
  startingRefused,
  stopOverdue,
  stoppingUnwanted,
  stopRefused,
  toldOff,
  toldOffCapturing,
  toldPanic,
  toldPanicCapturing,
  unhealthy,
  unwantAbandoned,
  unwantAtRest,
  unwantBusy,
  unwantLater,
  unwantRunning,
  want,
  wantAfterStop,
  wantDetached,
} from "./lifecycle-cells.ts";
import {
  arrivedLost,
  claimArrived,
  claimGiven,
  deleteGiven,
  diedGiven,
  dropArriving,
  givenAway,
  handedOver,
  migrate,
  notTaken,
  received,
  receivingLost,
  sent,
  undecided,
  unwantSending,
  withdrawn,
} from "./lifecycle-migration.ts";
import { begin, beginForgiven, call, straggler } from "./lifecycle-moves.ts";
import {
  captured,
  diedWhileCapturing,
  diedWhileReplacing,
  endUnused,
  lostWhileCapturing,
  lostWhileReplacing,
  ofFormer,
  replace,
  spawnedWhileCapturing,
  successorAttached,
  successorOverdue,
  successorRefused,
  successorSpawned,
  successorUnreached,
  toldWhileReplacing,
} from "./lifecycle-replacing.ts";
import type {
  Context,
  EventKind,
  In,
  Instance,
  MachineEvent,
  MachineState,
  Note,
  Of,
  Outcome,
  Phase,
  Wish,
} from "./lifecycle-state.ts";

/**
 * The life of one virtual machine under a worker: `step` decides, the worker performs. Every
 * phase × every event stands in `table`; a cell that does nothing names its reason.
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

const noMachine = ignored("there is no such machine");
const exists = ignored("there is a machine of this name");
const noGuest = ignored("no guest runs");
const noStart = ignored("no start is under way");
const notPreparing = ignored("nothing is being prepared");
const notLooked = ignored("its invocation is not being looked for");
const notAttaching = ignored("nobody is attaching to its VMM");
const notAttached = ignored("its VMM has not answered; that it does decides");
const noOrder = ignored("no order to its VMM is under way");
const noVmm = ignored("no VMM has it");
const notClearing = ignored("nothing of a VMM is being cleared");
const notRemoving = ignored("nothing of it is being removed");
const noDeadline = ignored("nothing is waited for in this phase");
const knownAlready = ignored("this worker knows it already");
const answerDecides = ignored("the answer to the order decides");
const isStopping = ignored("it is being stopped");
const isDead = ignored("its VMM is dead");
const isBusy = ignored("its state is being taken, or given to a VMM");
const notBooted = ignored("it has not been booted");
const isRemoving = ignored("it is being removed");
const isOnItsWay = ignored("it is on its way there");
const forgottenBefore = ignored("what was captured before it is forgotten already");
const notWatched = ignored("its health is asked for only while it runs");
const noCapture = ignored("nothing of it was captured");
const noBeside = ignored("no other VMM of it is to be ended");
const noMigration = ignored("it is on its way to no other host, and from none");
const notWaiting = ignored("nobody but this host may have it");
const isGiven = ignored("it was given to another host");
const isComing = ignored("another host has it yet, and sends it");
const isTheirs = ignored("it is another host's until that gives it");

/** What the worker hears in a phase in which no VMM has the machine, and none is to come. */
const noVmmEvents = {
  adopted: knownAlready,
  prepared: notPreparing,
  "prepare-refused": notPreparing,
  "network-ready": notPreparing,
  "network-refused": notPreparing,
  spawned: straggler,
  "spawn-refused": noStart,
  found: notLooked,
  "not-found": notLooked,
  attached: notAttaching,
  "attach-refused": notAttaching,
  done: noOrder,
  refused: noOrder,
  "connection-lost": noVmm,
  booted: noVmm,
  paused: noVmm,
  resumed: noVmm,
  "guest-off": noVmm,
  "guest-reset": noVmm,
  "guest-panic": noVmm,
  observed: noVmm,
  died: noVmm,
  cleared: notClearing,
  "capture-lost": noCapture,
  forgotten,
  "beside-ended": besideEnded,
  discarded: notRemoving,
  "discard-refused": notRemoving,
  unhealthy: notWatched,
  taken: noMigration,
  "not-taken": noMigration,
  "handed-over": noMigration,
  withdrawn: noMigration,
  undecided: noMigration,
  claim: notWaiting,
  deadline: noDeadline,
};

/** There is none: only a create, or what an earlier worker left, makes one. */
const nothing = {
  create,
  boot: noMachine,
  pause: noMachine,
  resume: noMachine,
  shutdown: noMachine,
  delete: noMachine,
  replace: noMachine,
  snapshot: noMachine,
  migrate: noMachine,
  ...noVmmEvents,
  claim: noMachine,
  forgotten: noCapture,
  "beside-ended": noBeside,
};

/** A start is under way, and no VMM is known. */
const beginning = {
  create: exists,
  boot: want,
  pause: want,
  resume: want,
  shutdown: unwantLater,
  delete: unwantLater,
  replace: noGuest,
  snapshot: noGuest,
  migrate: noGuest,
  ...noVmmEvents,
  "capture-lost": captureLost,
};

/** Nothing of the machine lives; its files are there. */
const atRest = {
  create: exists,
  boot,
  pause: noGuest,
  resume: noGuest,
  shutdown: unwantAtRest,
  delete: unwantAtRest,
  replace: noGuest,
  snapshot: noGuest,
  migrate: noGuest,
  ...noVmmEvents,
};

/** A VMM has the machine, and its connection stands. */
const living = {
  ...noVmmEvents,
  create: exists,
  boot: isOnItsWay,
  pause: want,
  resume: want,
  shutdown: unwantBusy,
  delete: unwantBusy,
  replace: isBusy,
  snapshot: isBusy,
  migrate: isBusy,
  "connection-lost": connectionLost,
  booted: answerDecides,
  paused: answerDecides,
  resumed: answerDecides,
  "guest-off": toldOff,
  "guest-reset": reset,
  "guest-panic": toldPanic,
  observed: answerDecides,
  died,
};

const row = { absent: { ...nothing, adopted }, removed: nothing };

/** Every phase × every event. */
export const table: Table = {
  ...row,
  preparing: {
    ...beginning,
    shutdown: unwantAbandoned,
    delete: unwantAbandoned,
    prepared,
    "prepare-refused": refusedStart,
  },
  "preparing-network": {
    ...beginning,
    "network-ready": networkReady,
    "network-refused": refusedStart,
  },
  starting: {
    ...beginning,
    spawned: found,
    "spawn-refused": refusedStart,
    deadline: spawnOverdue,
  },
  uncertain: {
    ...beginning,
    spawned: found,
    "spawn-refused": ignored("the search for its invocation decides, whatever came late"),
    found,
    "not-found": notFound,
  },
  connecting: {
    ...living,
    boot: want,
    shutdown: connectingUnwanted,
    delete: connectingUnwanted,
    replace: noGuest,
    snapshot: noGuest,
    migrate: noGuest,
    attached,
    "attach-refused": connectRefused,
    "connection-lost": connectLost,
    booted: notAttached,
    paused: notAttached,
    resumed: notAttached,
    "guest-off": notAttached,
    "guest-reset": notAttached,
    "guest-panic": notAttached,
    observed: notAttached,
    "capture-lost": captureLostConnecting,
    deadline: connectOverdue,
  },
  creating: {
    ...living,
    boot: want,
    shutdown: connectingUnwanted,
    delete: connectingUnwanted,
    replace: noGuest,
    snapshot: noGuest,
    migrate: noGuest,
    done: created,
    refused: startingRefused,
    "connection-lost": createLost,
    "guest-off": noGuest,
    "guest-reset": noGuest,
    "guest-panic": noGuest,
    deadline: createOverdue,
  },
  created: {
    ...living,
    boot: (state, _event, context) =>
      call({ ...state, wanted: "running" }, "boot", state.instance, context),
    pause: notBooted,
    resume: notBooted,
    shutdown: unwantRunning,
    delete: unwantRunning,
    replace: notBooted,
    snapshot: notBooted,
    migrate: notBooted,
    booted: bootedByHand,
    paused: bootedByHand,
    resumed: bootedByHand,
    "guest-off": noGuest,
    "guest-reset": noGuest,
    "guest-panic": noGuest,
    observed,
    forgotten: noCapture,
  },
  booting: { ...living, done: booted, refused: callRefused, deadline: orderOverdue },
  running: {
    ...living,
    boot: ignored("it runs"),
    pause: (state, _event, context) =>
      call({ ...state, wanted: "paused" }, "pause", state.instance, context),
    resume: ignored("it runs"),
    shutdown: unwantRunning,
    delete: unwantRunning,
    replace,
    snapshot,
    migrate,
    booted: ignored("it runs"),
    paused: bootedByHand,
    resumed: ignored("it runs"),
    observed,
    unhealthy,
  },
  pausing: { ...living, done: paused, refused: callRefused, deadline: orderOverdue },
  paused: {
    ...living,
    boot: ignored("it was booted, and is paused"),
    pause: ignored("it is paused"),
    resume,
    shutdown: unwantRunning,
    delete: unwantRunning,
    replace,
    snapshot,
    migrate,
    booted: bootedByHand,
    paused: ignored("it is paused"),
    resumed: bootedByHand,
    observed,
  },
  resuming: { ...living, done: resumed, refused: callRefused, deadline: orderOverdue },
  replacing: {
    ...living,
    boot: ignored("its VMM is being replaced"),
    shutdown: ofFormer(unwantRunning),
    delete: ofFormer(unwantRunning),
    spawned: successorSpawned,
    "spawn-refused": successorRefused,
    attached: successorAttached,
    "attach-refused": successorUnreached,
    "connection-lost": lostWhileReplacing,
    booted: toldWhileReplacing,
    paused: toldWhileReplacing,
    resumed: toldWhileReplacing,
    "guest-off": ofFormer(toldOff),
    "guest-panic": ofFormer(toldPanic),
    observed: ofFormer(observed),
    died: diedWhileReplacing,
    forgotten: noCapture,
    "beside-ended": ignored("the VMM beside it is not to be ended"),
    deadline: successorOverdue,
  },
  capturing: {
    ...living,
    spawned: spawnedWhileCapturing,
    "connection-lost": lostWhileCapturing,
    died: diedWhileCapturing,
    "beside-ended": (state, event) =>
      state.successor === undefined ? besideEnded(state, event) : { state, effects: [] },
    done: captured,
    refused: captureRefused,
    "guest-off": toldOffCapturing,
    "guest-panic": toldPanicCapturing,
    forgotten: forgottenBefore,
    deadline: orderOverdue,
  },
  snapshotting: {
    ...living,
    done: snapshotted,
    refused: captureRefused,
    "guest-off": toldOffCapturing,
    "guest-panic": toldPanicCapturing,
    forgotten: forgottenBefore,
    deadline: orderOverdue,
  },
  restoring: {
    ...living,
    shutdown: connectingUnwanted,
    delete: connectingUnwanted,
    done: restored,
    refused: startingRefused,
    "connection-lost": createLost,
    "guest-off": answerDecides,
    "guest-reset": answerDecides,
    "guest-panic": answerDecides,
    forgotten: forgottenBefore,
    "capture-lost": captureLostConnecting,
    deadline: createOverdue,
  },
  sending: {
    ...living,
    shutdown: (state, event, context) =>
      unwantSending(state, event, unwantBusy(state, event, context)),
    delete: (state, event, context) =>
      unwantSending(state, event, unwantBusy(state, event, context)),
    done: sent,
    refused: captureRefused,
    forgotten: forgottenBefore,
  },
  given: {
    ...noVmmEvents,
    create: exists,
    boot: isGiven,
    pause: isGiven,
    resume: isGiven,
    shutdown: isGiven,
    delete: deleteGiven,
    replace: isGiven,
    snapshot: isGiven,
    migrate: isGiven,
    claim: claimGiven,
    taken: givenAway,
    "not-taken": notTaken,
    undecided,
    "connection-lost": isGiven,
    booted: isGiven,
    paused: isGiven,
    resumed: isGiven,
    "guest-off": isGiven,
    "guest-reset": isGiven,
    "guest-panic": isGiven,
    observed: isGiven,
    died: diedGiven,
    forgotten: noCapture,
  },
  receiving: {
    ...living,
    boot: isComing,
    pause: isComing,
    resume: isComing,
    shutdown: dropArriving,
    delete: dropArriving,
    replace: isComing,
    snapshot: isComing,
    migrate: isComing,
    done: received,
    refused: startingRefused,
    "connection-lost": receivingLost,
    booted: isComing,
    paused: isComing,
    resumed: isComing,
    "guest-off": isComing,
    "guest-reset": isComing,
    "guest-panic": isComing,
    observed: isComing,
    forgotten: noCapture,
  },
  arrived: {
    ...living,
    boot: isTheirs,
    pause: isTheirs,
    resume: isTheirs,
    shutdown: dropArriving,
    delete: dropArriving,
    replace: isTheirs,
    snapshot: isTheirs,
    migrate: isTheirs,
    claim: claimArrived,
    "handed-over": handedOver,
    withdrawn,
    undecided,
    "connection-lost": arrivedLost,
    booted: isTheirs,
    paused: isTheirs,
    resumed: isTheirs,
    "guest-off": isTheirs,
    "guest-reset": isTheirs,
    "guest-panic": isTheirs,
    observed: isTheirs,
    forgotten: noCapture,
  },
  detached: {
    ...living,
    boot: wantDetached,
    pause: wantDetached,
    resume: wantDetached,
    shutdown: detachedUnwanted,
    delete: detachedUnwanted,
    replace: ignored("its VMM does not answer"),
    snapshot: ignored("its VMM does not answer"),
    migrate: ignored("its VMM does not answer"),
    attached,
    "attach-refused": attachRefused,
    "connection-lost": ignored("it is asked again in any case"),
    booted: notAttached,
    paused: notAttached,
    resumed: notAttached,
    "guest-off": notAttached,
    "guest-reset": notAttached,
    "guest-panic": notAttached,
    observed: notAttached,
    deadline: attachOverdue,
  },
  stopping: {
    ...living,
    boot: wantAfterStop,
    pause: isStopping,
    resume: isStopping,
    shutdown: stoppingUnwanted,
    delete: stoppingUnwanted,
    replace: isStopping,
    snapshot: isStopping,
    migrate: isStopping,
    done: ignored("the order was taken; its end is told otherwise"),
    refused: stopRefused,
    "connection-lost": ignored("it is being stopped, and its death is told otherwise"),
    booted: isStopping,
    paused: isStopping,
    resumed: isStopping,
    "guest-off": quit,
    "guest-reset": isStopping,
    "guest-panic": quit,
    observed: isStopping,
    "capture-lost": captureLost,
    deadline: stopOverdue,
  },
  clearing: {
    ...living,
    boot: wantAfterStop,
    pause: isDead,
    resume: isDead,
    shutdown: clearingUnwanted,
    delete: clearingUnwanted,
    replace: isDead,
    snapshot: isDead,
    migrate: isDead,
    "connection-lost": isDead,
    booted: isDead,
    paused: isDead,
    resumed: isDead,
    "guest-off": isDead,
    "guest-reset": isDead,
    "guest-panic": isDead,
    observed: isDead,
    died: isDead,
    cleared,
    "capture-lost": captureLost,
  },
  off: { ...atRest, shutdown: ignored("it is off") },
  failed: atRest,
  "backing-off": {
    ...atRest,
    boot: beginForgivenWanted,
    "capture-lost": captureLostAtRest,
    deadline: (state, _event, context) =>
      context.now < state.until ? { state, effects: [] } : begin(state, context),
  },
  removing: {
    ...noVmmEvents,
    create: isRemoving,
    boot: isRemoving,
    pause: isRemoving,
    resume: isRemoving,
    shutdown: isRemoving,
    delete: isRemoving,
    replace: isRemoving,
    snapshot: isRemoving,
    migrate: isRemoving,
    claim: isRemoving,
    discarded,
    "discard-refused": discardRefused,
    deadline: discardAgain,
  },
};

/**
 * Decides what an event means in a state: the new state, and what is to be done, in order. When
 * what the next worker must know has changed, that is noted first.
 */
export function step(
  state: MachineState,
  event: MachineEvent,
  context: Context,
  decisions: Table = table,
): Outcome {
  const cells = decisions[state.phase] as Record<EventKind, Ignored | Handler<Phase, EventKind>>;
  const cell = cells[event.kind];
  if ("ignored" in cell) return { state, effects: [] };
  const outcome = endUnused(state, cell(state as never, event as never, context));
  const note = noteOf(outcome.state);
  if (JSON.stringify(note) === JSON.stringify(noteOf(state))) return outcome;
  return { state: outcome.state, effects: [{ kind: "note", note }, ...outcome.effects] };
}

/** @returns why this wish does nothing now, for whoever has it; undefined when it does something */
export function whyRefused(state: MachineState, kind: Wish["kind"]): string | undefined {
  const isStart = kind === "boot" || kind === "pause" || kind === "resume";
  const isDeleted = state.wanted === "absent" && !["absent", "removed"].includes(state.phase);
  if (isStart && isDeleted) return "it is being deleted";
  const isCapture = kind === "replace" || kind === "snapshot" || kind === "migrate";
  const needsRoom = kind === "replace" || kind === "migrate";
  if (needsRoom && state.beside !== undefined && isSteady(state)) {
    return "the VMM that was beside it last is being ended";
  }
  const isSpent = state.capture !== undefined && isSteady(state);
  if (isCapture && isSpent) return "what was captured last is being forgotten";
  const isAsked = (state.phase === "given" || state.phase === "arrived") && !state.isUndecided;
  const isHeldBack = kind === "claim" || (kind === "delete" && state.phase === "given");
  if (isHeldBack && isAsked) return "the other host is there, and decides with this one";
  const cell: object = table[state.phase][kind];
  return "ignored" in cell ? String(cell.ignored) : undefined;
}

const isSteady = ({ phase }: MachineState) => phase === "running" || phase === "paused";

const stageOf: { readonly [P in Phase]: Note["stage"] } = {
  absent: "absent",
  preparing: "preparing",
  "preparing-network": "preparing",
  starting: "starting",
  uncertain: "starting",
  connecting: "living",
  creating: "living",
  created: "living",
  booting: "living",
  running: "living",
  pausing: "living",
  paused: "living",
  resuming: "living",
  replacing: "living",
  capturing: "living",
  snapshotting: "living",
  restoring: "living",
  sending: "living",
  given: "given",
  receiving: "living",
  arrived: "arrived",
  detached: "living",
  stopping: "ending",
  clearing: "clearing",
  "backing-off": "waiting",
  off: "off",
  failed: "failed",
  removing: "removing",
  removed: "removed",
};

/** What the worker after this one has to know of a machine. */
export function noteOf(state: MachineState): Note {
  const { wanted, prepared, restarts, lastInvocation, beside, capture, reason } = state;
  const stage = stageOf[state.phase];
  const isStart = stage === "starting" && "invocation" in state;
  return {
    stage,
    wanted,
    prepared,
    restarts,
    invocation: isStart ? state.invocation : undefined,
    migration: state.phase === "given" ? state.migration : undefined,
    instance: instanceOf(state),
    why: "why" in state ? state.why : undefined,
    killing: state.phase === "stopping" && state.stage === "kill" ? true : undefined,
    lastInvocation,
    beside,
    capture,
    // How a VMM answers changes too often to be written down, and is found out anew.
    reason: stage === "living" ? undefined : reason,
  };
}

/** When the state wants to hear of time, if at all. */
export function deadlineOf(state: MachineState): MonotonicTime | undefined {
  switch (state.phase) {
    case "connecting":
    case "replacing":
      return Math.min(state.answerBy, state.retryAt ?? state.answerBy);
    case "detached":
      return Math.min(state.retryAt ?? state.answerBy, state.stopBy ?? Number.POSITIVE_INFINITY);
    case "stopping":
    case "backing-off":
      return state.until;
    case "removing":
      return state.retryAt;
    default:
      return "answerBy" in state ? state.answerBy : undefined;
  }
}

/** The VMM that is alive, or whose rest is being cleared. */
export function instanceOf(state: MachineState): Instance | undefined {
  return "instance" in state ? state.instance : undefined;
}

function beginForgivenWanted(
  state: In<"backing-off">,
  _event: Of<"boot">,
  context: Context,
): Outcome {
  return beginForgiven({ ...state, wanted: "running" }, context);
}
