import { formatDuration, type Milliseconds } from "../units/units.ts";
import {
  answer,
  type Context,
  type DaemonEffect,
  type DaemonEvent,
  type DaemonState,
  type Decision,
  type Incoming,
  type Outcome,
  type Participant,
  record,
  refuse,
  type Subscription,
  stay,
  type Update,
  type UpdateOrder,
  withGiven,
  writable,
} from "./lifecycle-state.ts";
import { COMMITTING, ENTERING_KERNEL, OWN_SESSION, type WireError } from "./protocol.ts";

/** Updates: from the accepted command to the call that enters the new kernel, or back. */

type Of<K extends DaemonEvent["kind"]> = Extract<DaemonEvent, { kind: K }>;

/** The kernel makes a session in microseconds; a holder that cannot within this is broken. */
export const CREATION_LIMIT: Milliseconds = 30_000;

export const NO_DEVICE = "this kernel has no /dev/liveupdate, so no update can be";
export const DEVICE_MEND = "hostler doctor live-update says what it lacks";

/** There is one update at most; undefined when there is none. */
export function refuseSecondUpdate({ update }: DaemonState): WireError | undefined {
  if (update === undefined) return undefined;
  const message = `An update is under way: ${update.id}, ${update.phase}`;
  const isAborting = update.phase === "aborting";
  const mend = isAborting ? ": it is being rolled back." : ", or end it by luoctl abort.";
  return { kind: "busy", message, hint: `Wait for its end${mend}` };
}

/** Why an update cannot begin; undefined when it can. */
export function refuseUpdate(state: DaemonState, order: UpdateOrder): WireError | undefined {
  const second = refuseSecondUpdate(state);
  if (second !== undefined) return second;
  if (!state.device) {
    const message = "This kernel has no /dev/liveupdate: no update can be, and no dry run";
    return { kind: "no-device", message, hint: `${DEVICE_MEND}.` };
  }
  if (state.unsaved !== undefined) {
    const message = "An update cannot begin that a luod after this one would know nothing of";
    return { kind: "unsaved", message, hint: state.unsaved };
  }
  if (!state.loaded && !order.dryRun) {
    const message = "No kernel is loaded";
    return { kind: "not-loaded", message, hint: "Load one by luoctl load." };
  }
  if (state.unreadable !== undefined && !order.discardUnclaimed && !order.dryRun) {
    const message = `Sessions of the last update may wait: ${state.unreadable}`;
    const hint = "Start the luod that understands them, or say --discard-unclaimed.";
    return { kind: "unclaimed", message, hint };
  }
  const unclaimed = [...state.incoming.values()].filter(isAwaited);
  if (unclaimed.length > 0 && !order.discardUnclaimed && !order.dryRun) {
    const names = unclaimed.map(({ name }) => name).slice(0, 10);
    const count = `${unclaimed.length} sessions of the last update wait for their clients`;
    return {
      kind: "unclaimed",
      message: `${count}: ${names.join(", ")}`,
      hint: "Have them claimed, finish them by luoctl finish, or say --discard-unclaimed.",
    };
  }
  return undefined;
}

/** Nobody has it, and somebody may come for it. */
function isAwaited({ stage, forsaken }: Incoming): boolean {
  return stage === "unclaimed" || stage === "retrieving" || (stage === "claimed" && forsaken);
}

/** Begins an update with all who are subscribed now. */
export function beginUpdate(state: DaemonState, event: Of<"update">, context: Context): Decision {
  const { order } = event;
  if (refuseUpdate(state, order) !== undefined) return stay(state);
  const taking = [...state.subscriptions.values()].filter(
    ({ bare }) => !order.dryRun || order.includeBare || !bare,
  );
  const leftOut = [...state.subscriptions.values()].filter((one) => !taking.includes(one));
  const without = leftOut.map(({ id }) => ({ id, reason: "bare: needs --include-bare" }));
  const update: Update = {
    id: context.nextUpdate,
    phase: "preserving",
    dryRun: order.dryRun,
    acceptedAt: context.now,
    readyAt: undefined,
    participants: new Map(taking.map((subscription) => [subscription.id, newcomer(subscription)])),
    without,
    outgoing: new Map(taking.flatMap(({ sessions }) => sessions.map((name) => [name, "creating"]))),
    commit: undefined,
    end: undefined,
  };
  const what = order.dryRun ? "dry-run-accepted" : "update-accepted";
  const detail = `${taking.length} clients`;
  const effects: DaemonEffect[] = [
    record({ what, update: update.id, detail }),
    ...without.map(({ id, reason }) =>
      record({ what: "left-out", update: update.id, client: id, detail: reason }),
    ),
    ...[...update.outgoing.keys()].map((session) => ({ kind: "create-session" as const, session })),
  ];
  return settle({ state: { ...state, update }, effects }, context);
}

function newcomer(subscription: Subscription): Participant {
  return {
    subscription,
    stage: "creating",
    begun: undefined,
    readyBy: undefined,
    readyAfter: undefined,
    bytes: undefined,
    detail: undefined,
  };
}

const isUnderWay = (update: Update | undefined): update is Update =>
  update !== undefined && (update.phase === "preserving" || update.phase === "barrier");

const takesPart = ({ stage }: Participant) => stage !== "left-out";

function withParticipant(
  update: Update,
  changed: { readonly participant: Participant; readonly change: Partial<Participant> },
  context: Context,
): Update {
  const { participant, change } = changed;
  const participants = writable(update.participants, context);
  participants.set(participant.subscription.id, { ...participant, ...change });
  return { ...update, participants };
}

function withOutgoing(
  update: Update,
  changes: Iterable<readonly [string, "creating" | "open" | "dropping" | "gone"]>,
  context: Context,
): Update {
  const outgoing = writable(update.outgoing, context);
  for (const [session, stage] of changes) {
    if (stage === "gone") outgoing.delete(session);
    else outgoing.set(session, stage);
  }
  return { ...update, outgoing };
}

/** Goes on where nothing is waited for any more. */
function settle(decision: Decision, context: Context): Decision {
  const { state, effects } = decision;
  const { update } = state;
  if (update === undefined) return decision;
  if (update.phase === "aborting") {
    return update.outgoing.size === 0 ? endUpdate(state, effects) : decision;
  }
  if (!isUnderWay(update)) return decision;
  let isReady = true;
  for (const { stage } of update.participants.values()) {
    if (stage === "creating") return decision;
    if (stage === "preserving") isReady = false;
  }
  if (isReady && isWithoutLeftOvers(update)) return whenReady(decision, update, context);
  if (update.phase === "preserving") {
    const barrier = record({ what: "barrier", update: update.id });
    const waiting = { ...update, phase: "barrier" as const };
    return { state: { ...state, update: waiting }, effects: [...effects, barrier] };
  }
  return decision;
}

/** What a client that goes without was given is closed: a new kernel would keep it for ever. */
function isWithoutLeftOvers(update: Update): boolean {
  const taking = [...update.participants.values()].filter(takesPart);
  const wanted = new Set(taking.flatMap(({ subscription }) => subscription.sessions));
  return [...update.outgoing.keys()].every((session) => wanted.has(session));
}

/** Every client that takes part is ready. */
function whenReady({ state, effects }: Decision, update: Update, context: Context): Decision {
  const readyAt = context.now;
  const took = formatDuration(readyAt - update.acceptedAt);
  const all = record({ what: "all-ready", update: update.id, detail: `after ${took}` });
  const ready = { ...update, readyAt };
  const told = { state: { ...state, update: ready }, effects: [...effects, all] };
  if (update.dryRun) return abort(told, "dry-run", "it was a dry run", context);
  const committing: Update = { ...ready, phase: "committing", commit: "registry" };
  const said = record({ what: COMMITTING, update: update.id });
  return {
    state: { ...state, update: withOutgoing(committing, [[OWN_SESSION, "creating"]], context) },
    effects: [...told.effects, said, { kind: "preserve-registry" }],
  };
}

/** Takes everything back: all are told, every session of the update is closed. */
function abort(
  { state, effects }: Decision,
  outcome: Outcome,
  reason: string,
  context: Context,
): Decision {
  const { update } = state;
  if (update === undefined) return { state, effects };
  const open = [...update.outgoing].filter(([, stage]) => stage === "open");
  const dropping = withOutgoing(
    { ...update, phase: "aborting", commit: undefined, end: { outcome, reason } },
    open.map(([session]) => [session, "dropping"] as const),
    context,
  );
  const told = [...update.participants.values()]
    .filter(takesPart)
    .flatMap((participant) => tellAborted(participant, update.id, reason));
  const said = record({ what: "aborting", update: update.id, detail: reason });
  const drops = open.map(([session]) => ({ kind: "drop-session" as const, session }));
  const decision = {
    state: { ...state, update: dropping },
    effects: [...effects, said, ...told, ...drops],
  };
  return settle(decision, context);
}

/** A bare client understands nothing but the end of its connection. */
function tellAborted(participant: Participant, update: string, reason: string): DaemonEffect[] {
  const { id, connection, bare } = participant.subscription;
  // It was given nothing yet, so there is nothing to take back.
  if (participant.stage === "creating") return [];
  if (bare) return [{ kind: "hang-up", connection }];
  return [{ kind: "send", connection, message: { event: "ABORTED", id, update, reason } }];
}

function endUpdate(state: DaemonState, effects: readonly DaemonEffect[]): Decision {
  const { update } = state;
  if (update?.end === undefined) return { state, effects };
  const { id } = update;
  const { outcome, reason } = update.end;
  const last = { id, outcome, reason };
  const given = [...update.participants.values()].flatMap(({ begun, subscription }) =>
    begun === undefined ? [] : subscription.sessions,
  );
  return {
    state: { ...withGiven(state, given), update: undefined, last },
    effects: [
      ...effects,
      record({ what: outcome, update: id, detail: reason }),
      { kind: "end-update", update, outcome, reason },
    ],
  };
}

/** One client cannot: it goes without, or nobody goes. */
function fail(
  decision: Decision,
  participant: Participant,
  reason: string,
  context: Context,
): Decision {
  const { state, effects } = decision;
  const { update } = state;
  if (update === undefined) return decision;
  const { id, required, sessions } = participant.subscription;
  if (required) return abort(decision, "aborted", `${id} is required: ${reason}`, context);
  const open = sessions.filter((session) => update.outgoing.get(session) === "open");
  const without = withParticipant(
    update,
    { participant, change: { stage: "left-out", detail: reason } },
    context,
  );
  const next = withOutgoing(
    without,
    open.map((session) => [session, "dropping"] as const),
    context,
  );
  const said = record({ what: "left-out", update: update.id, client: id, detail: reason });
  const drops = open.map((session) => ({ kind: "drop-session" as const, session }));
  const told = tellAborted(participant, update.id, reason);
  return settle(
    { state: { ...state, update: next }, effects: [...effects, said, ...told, ...drops] },
    context,
  );
}

/** Whose a session is: it is named by its id, or by its id and a part behind a slash. */
function participantWith(update: Update, session: string): Participant | undefined {
  for (let end = session.length; end > 0; end = session.lastIndexOf("/", end - 1)) {
    const participant = update.participants.get(session.slice(0, end));
    if (participant?.subscription.sessions.includes(session) === true) return participant;
  }
  return undefined;
}

export function sessionCreated(
  state: DaemonState,
  event: Of<"session-created">,
  context: Context,
): Decision {
  const { update } = state;
  const { session } = event;
  const drop: DaemonEffect = { kind: "drop-session", session };
  const stage = update?.outgoing.get(session);
  // Said twice: what a client works with is not closed for that.
  if (stage === "open") return stay(state);
  if (update === undefined || stage !== "creating") return { state, effects: [drop] };
  const participant = participantWith(update, session);
  const isWanted = isUnderWay(update) && participant !== undefined && takesPart(participant);
  const isOwn = session === OWN_SESSION && update.phase === "committing";
  if (!isWanted && !isOwn) {
    const next = withOutgoing(update, [[session, "dropping"]], context);
    return { state: { ...state, update: next }, effects: [drop] };
  }
  const opened = withOutgoing(update, [[session, "open"]], context);
  if (participant === undefined) return stay({ ...state, update: opened });
  return delegate({ ...state, update: opened }, opened, participant, context);
}

/** Gives a client its sessions, once all of them are there. */
function delegate(
  state: DaemonState,
  update: Update,
  participant: Participant,
  context: Context,
): Decision {
  const { subscription } = participant;
  const { id, connection, sessions, bare, deadline } = subscription;
  if (!sessions.every((session) => update.outgoing.get(session) === "open")) return stay(state);
  const change = {
    stage: "preserving" as const,
    begun: context.now,
    readyBy: context.now + deadline,
  };
  const sends = sessions.map((name): DaemonEffect => {
    const words = { update: update.id, deadline_ms: deadline, dry_run: update.dryRun };
    const message = {
      event: "START_PRESERVATION" as const,
      ...(bare ? {} : { id, session: name === id ? "" : name.slice(id.length + 1), ...words }),
    };
    return { kind: "send", connection, message, session: { direction: "outgoing", name } };
  });
  const said = record({ what: "delegated", update: update.id, client: id });
  const next = withParticipant(update, { participant, change }, context);
  return settle({ state: { ...state, update: next }, effects: [...sends, said] }, context);
}

export function sessionRefused(
  state: DaemonState,
  event: Of<"session-refused">,
  context: Context,
): Decision {
  const { update } = state;
  const { session, refusal } = event;
  if (update?.outgoing.get(session) !== "creating") return stay(state);
  const gone = { ...state, update: withOutgoing(update, [[session, "gone"]], context) };
  const participant = participantWith(update, session);
  if (!isUnderWay(update) || participant === undefined || !takesPart(participant)) {
    return settle(stay(gone), context);
  }
  const reason = `its session ${session} cannot be made: ${refusal.message} (${refusal.code})`;
  return fail(stay(gone), participant, reason, context);
}

export function sessionDropped(
  state: DaemonState,
  event: Of<"session-dropped">,
  context: Context,
): Decision {
  const { update } = state;
  if (update?.outgoing.get(event.session) !== "dropping") return stay(state);
  const next = withOutgoing(update, [[event.session, "gone"]], context);
  return settle(stay({ ...state, update: next }), context);
}

/** Whom a client speaks of: the id that it names, or the only one of its connection. */
function participantOf(
  update: Update,
  event: { readonly connection: number; readonly id: string | undefined },
): Participant | undefined {
  const { connection, id } = event;
  if (id !== undefined) {
    const named = update.participants.get(id);
    return named?.subscription.connection === connection ? named : undefined;
  }
  let found: Participant | undefined;
  for (const participant of update.participants.values()) {
    if (participant.subscription.connection !== connection) continue;
    if (found !== undefined) return undefined;
    found = participant;
  }
  return found;
}

const isBare = (state: DaemonState, connection: number) =>
  [...state.subscriptions.values()].some((one) => one.connection === connection && one.bare);

/** Its word crossed ours, that the update is aborted; or it says it again. */
function hasCrossed(
  state: DaemonState,
  participant: Participant | undefined,
  connection: number,
): boolean {
  if (participant !== undefined) {
    return participant.stage !== "creating" || !isUnderWay(state.update);
  }
  const takesPartWith = [...(state.update?.participants.values() ?? [])].some(
    ({ subscription }) => subscription.connection === connection,
  );
  return state.last !== undefined && !takesPartWith;
}

/** A word about an update that luod has not asked this client for. */
function refuseUnasked(
  state: DaemonState,
  event: { readonly connection: number; readonly request: number | undefined } & {
    readonly id: string | undefined;
  },
  word: "READY" | "PROGRESS" | "ABORT",
): DaemonEffect[] {
  const { connection, request, id } = event;
  const error = {
    kind: "not-asked",
    message: `${word} without a START_PRESERVATION`,
    expected: `${word} after START_PRESERVATION, with an id where there are several`,
    received: `${word} for ${id ?? "the only id of this connection"}`,
  };
  return refuse({ connection, request, bare: isBare(state, connection) }, error);
}

export function clientReady(state: DaemonState, event: Of<"ready">, context: Context): Decision {
  const { connection, request, bytes } = event;
  const { update } = state;
  const participant = update === undefined ? undefined : participantOf(update, event);
  const isOfAnother = event.update !== undefined && event.update !== update?.id;
  if (!isUnderWay(update) || isOfAnother || participant?.stage !== "preserving") {
    if (isOfAnother || hasCrossed(state, participant, connection)) {
      return { state, effects: answer(connection, request) };
    }
    return { state, effects: refuseUnasked(state, event, "READY") };
  }
  const readyAfter = context.now - (participant.begun ?? context.now);
  const change = { stage: "ready" as const, readyAfter, bytes: bytes ?? participant.bytes };
  const next = withParticipant(update, { participant, change }, context);
  const detail = `after ${formatDuration(readyAfter)}`;
  const client = participant.subscription.id;
  const said = record({ what: "ready", update: update.id, client, detail });
  const effects = [...answer(connection, request), said];
  return settle({ state: { ...state, update: next }, effects }, context);
}

export function clientProgress(
  state: DaemonState,
  event: Of<"progress">,
  context: Context,
): Decision {
  const { update } = state;
  const participant = update === undefined ? undefined : participantOf(update, event);
  const effects = answer(event.connection, event.request);
  if (!isUnderWay(update) || participant?.stage !== "preserving") {
    if (hasCrossed(state, participant, event.connection)) return { state, effects };
    return { state, effects: refuseUnasked(state, event, "PROGRESS") };
  }
  const bytes = event.bytes ?? participant.bytes;
  const next = withParticipant(
    update,
    { participant, change: { bytes, detail: event.detail } },
    context,
  );
  const client = participant.subscription.id;
  const said = record({ what: "progress", update: update.id, client, detail: event.detail });
  return { state: { ...state, update: next }, effects: [...effects, said] };
}

export function clientAborts(
  state: DaemonState,
  event: Of<"client-aborts">,
  context: Context,
): Decision {
  const { update } = state;
  const participant = update === undefined ? undefined : participantOf(update, event);
  const effects = answer(event.connection, event.request);
  if (!isUnderWay(update) || participant === undefined || !takesPart(participant)) {
    if (hasCrossed(state, participant, event.connection)) return { state, effects };
    return { state, effects: refuseUnasked(state, event, "ABORT") };
  }
  return fail({ state, effects }, participant, `it aborts: ${event.reason}`, context);
}

/** A client that is gone before the commit has failed; after it, it has done its part. */
export function participantGone(
  decision: Decision,
  gone: { readonly subscription: Subscription; readonly reason: string },
  context: Context,
): Decision {
  const { subscription, reason } = gone;
  const { update } = decision.state;
  const participant = update?.participants.get(subscription.id);
  if (!isUnderWay(update) || participant?.subscription !== subscription) return decision;
  if (!takesPart(participant)) return decision;
  return fail(decision, participant, reason, context);
}

export function operatorAborts(
  state: DaemonState,
  event: Of<"operator-aborts">,
  context: Context,
): Decision {
  const { update } = state;
  if (update === undefined || update.phase === "aborting") return stay(state);
  if (update.commit === "kernel") return stay(state);
  return abort(stay(state), "aborted", event.reason, context);
}

/** The steps of the commit: registry, preparation, the kernel. */
export function commitGoesOn(
  state: DaemonState,
  event: Of<"registry-preserved" | "prepared">,
): Decision {
  const { update } = state;
  const awaited = event.kind === "prepared" ? "preparation" : "registry";
  if (update?.commit !== awaited) return stay(state);
  if (event.kind === "prepared" && event.update !== update.id) return stay(state);
  const isLast = event.kind === "prepared";
  const next: Update = { ...update, commit: isLast ? "kernel" : "preparation" };
  const what = isLast ? ENTERING_KERNEL : "preparing";
  return {
    state: { ...state, update: next },
    effects: [
      record({ what, update: update.id }),
      isLast ? { kind: "enter-kernel" } : { kind: "prepare-kexec", update: update.id },
    ],
  };
}

/** The step of the commit that each of these ends. */
const stepOf = {
  "registry-refused": "registry",
  "preparation-failed": "preparation",
  "kernel-refused": "kernel",
} as const;

export function commitFails(
  state: DaemonState,
  event: Of<"registry-refused" | "preparation-failed" | "kernel-refused">,
  context: Context,
): Decision {
  const { update } = state;
  if (update === undefined) return stay(state);
  if (event.kind === "preparation-failed" && event.update !== update.id) return stay(state);
  if (update.phase === "committing" && update.commit !== stepOf[event.kind]) return stay(state);
  // A registry that could not even be begun has left no session.
  const isUnmade = update.outgoing.get(OWN_SESSION) === "creating";
  const known =
    event.kind === "registry-refused" && isUnmade
      ? withOutgoing(update, [[OWN_SESSION, "gone"]], context)
      : update;
  const decision = stay({ ...state, update: known });
  if (update.phase !== "committing") return settle(decision, context);
  const outcome = event.kind === "kernel-refused" ? "refused-by-kernel" : "aborted";
  return abort(decision, outcome, failureOf(event), context);
}

function failureOf(event: Of<"registry-refused" | "preparation-failed" | "kernel-refused">) {
  if (event.kind === "preparation-failed") return event.reason;
  const { code, message } = event.refusal;
  if (event.kind === "registry-refused") {
    return `the registry cannot be preserved: ${message} (${code})`;
  }
  return `the kernel refused: ${message} (${code})`;
}

/** Whoever is not ready in time has failed; so has the holder that makes no session. */
export function updateTime(state: DaemonState, context: Context): Decision {
  const registryBy = registryDeadline(state.update);
  if (registryBy !== undefined && registryBy <= context.now) {
    const limit = formatDuration(CREATION_LIMIT);
    const reason = `the registry's session was not made within ${limit}`;
    return abort(stay(state), "aborted", reason, context);
  }
  let decision = stay(state);
  for (const id of state.update?.participants.keys() ?? []) {
    const { update } = decision.state;
    const participant = update?.participants.get(id);
    if (!isUnderWay(update) || participant === undefined) break;
    const { deadline } = participant.subscription;
    if (participant.stage === "preserving" && (participant.readyBy ?? 0) <= context.now) {
      const reason = `it was not ready within ${formatDuration(deadline)}`;
      decision = fail(decision, participant, reason, context);
    } else if (
      participant.stage === "creating" &&
      update.acceptedAt + CREATION_LIMIT <= context.now
    ) {
      const reason = `its sessions were not made within ${formatDuration(CREATION_LIMIT)}`;
      decision = fail(decision, participant, reason, context);
    }
  }
  return decision;
}

/**
 * A daemon after this one goes by the state file. What cannot be written there must not go on: it
 * is taken back, as long as the kernel is not being entered.
 */
export function stateFileChanged(
  state: DaemonState,
  { problem }: Of<"state-file">,
  context: Context,
): Decision {
  const known = { ...state, unsaved: problem };
  const isOver = state.update?.phase === "aborting" || state.update?.commit === "kernel";
  if (problem === undefined || isOver) return stay(known);
  return abort(stay(known), "aborted", `luod cannot go on with it: ${problem}`, context);
}

/** What a daemon that was killed left of an update: it is taken back. */
export function leftBehind(
  state: DaemonState,
  event: Of<"left-behind">,
  context: Context,
): Decision {
  if (state.update !== undefined) return stay(state);
  const reason = "the daemon was restarted";
  const update: Update = {
    id: event.update,
    phase: "preserving",
    dryRun: false,
    acceptedAt: context.now,
    readyAt: undefined,
    participants: new Map(),
    without: [],
    outgoing: new Map(event.sessions.map((session) => [session, "open"])),
    commit: undefined,
    end: undefined,
  };
  const known = withGiven(
    state,
    event.sessions.filter((session) => session !== OWN_SESSION),
  );
  return abort(stay({ ...known, update }), "aborted", reason, context);
}

/** By when the first step of a commit must be done: it is the holder's. */
function registryDeadline(update: Update | undefined): number | undefined {
  if (update?.phase !== "committing" || update.commit !== "registry") return undefined;
  return (update.readyAt ?? update.acceptedAt) + CREATION_LIMIT;
}

/** When an update wants to hear of time. */
export function updateDeadline(update: Update | undefined): number | undefined {
  if (!isUnderWay(update)) return registryDeadline(update);
  let first: number | undefined;
  for (const { stage, readyBy } of update.participants.values()) {
    const by = stage === "creating" ? update.acceptedAt + CREATION_LIMIT : readyBy;
    const isAwaited = stage === "creating" || stage === "preserving";
    if (isAwaited && by !== undefined && (first === undefined || by < first)) first = by;
  }
  return first;
}
