import type { MonotonicTime } from "../units/units.ts";
import {
  answer,
  type Claimer,
  type Context,
  type DaemonEffect,
  type DaemonEvent,
  type DaemonState,
  type Decision,
  type Incoming,
  record,
  refuse,
  stay,
} from "./lifecycle-state.ts";
import { sessionNameOf } from "./protocol.ts";

/** Sessions that came over a kexec: claimed by their clients, finished, or kept. */

type Of<K extends DaemonEvent["kind"]> = Extract<DaemonEvent, { kind: K }>;

function withIncoming(state: DaemonState, one: Incoming): DaemonState {
  const incoming = new Map(state.incoming);
  incoming.set(one.name, one);
  return { ...state, incoming };
}

const policyEnd = ({ now, unclaimedTime }: Context): MonotonicTime | undefined =>
  unclaimedTime === undefined ? undefined : now + unclaimedTime;

export function restored(state: DaemonState, event: Of<"restored">, context: Context): Decision {
  const incoming = new Map<string, Incoming>();
  const { offeredAt = context.now } = event;
  for (const session of event.sessions) {
    // A daemon that is started again gives nobody a new time; who had claimed has to come again.
    const since = session.stage === "unclaimed" ? offeredAt : context.now;
    const end = policyEnd({ ...context, now: since });
    const finishBy = session.stage === "finishing" ? undefined : end;
    const empty = { waiting: [], holders: [], forsaken: false, reason: undefined };
    incoming.set(session.name, { ...session, ...empty, finishBy });
  }
  const { registryHeld, from: restoredFrom, unreadable } = event;
  const said = record({
    what: "restoring",
    ...(restoredFrom === undefined ? {} : { update: restoredFrom }),
    detail: unreadable ?? `${incoming.size} sessions`,
  });
  const next = { ...state, incoming, registryHeld, restoredFrom, unreadable };
  const unfinished = [...incoming.values()].filter(({ stage }) => stage === "finishing");
  const finishes = unfinished.map(({ name }) => ({
    kind: "finish-session" as const,
    session: name,
  }));
  return release({ state: next, effects: [said, ...finishes] });
}

/** With nothing left to settle, the registry has served. */
function release({ state, effects }: Decision): Decision {
  const open = [...state.incoming.values()].some(({ stage }) => stage !== "lost");
  if (open || !state.registryHeld || state.unreadable !== undefined) return { state, effects };
  const done = record({ what: "restored", detail: "every session is settled" });
  return {
    state: { ...state, registryHeld: false },
    effects: [...effects, done, { kind: "release-registry" }],
  };
}

function hand(one: Incoming, { connection, request }: Claimer): DaemonEffect {
  const { id, part, name } = one;
  const asked = request === undefined ? {} : { request };
  return {
    kind: "send",
    connection,
    message: { event: "CLAIMED", ...asked, id, session: part },
    session: { direction: "incoming", name },
  };
}

export function claim(state: DaemonState, event: Of<"claim">, context: Context): Decision {
  const { claimer, id, part, user } = event;
  const name = sessionNameOf(id, part);
  const one = state.incoming.get(name) ?? claimedUnseen(state, event);
  if (one?.id !== id || one.stage === "lost" || one.stage === "finishing") {
    const message = `No session ${name} waits to be claimed`;
    const received = one === undefined ? "an unknown one" : `one that is ${one.stage}`;
    const known = [...state.incoming.values()].filter((other) => other.user === user);
    const expected = `one of ${known.map((other) => other.name).join(", ") || "none"}`;
    return { state, effects: refuse(claimer, { kind: "unknown", message, expected, received }) };
  }
  if (user !== 0 && user !== one.user) {
    const message = `Session ${name} was preserved by another user`;
    const error = {
      kind: "refused",
      message,
      expected: `user ${one.user}`,
      received: `user ${user}`,
    };
    return { state, effects: refuse(claimer, error) };
  }
  const said = record({ what: "claim", client: id, session: name });
  if (one.stage === "claimed") {
    const next = claimedBy(one, [claimer], context);
    return { state: withIncoming(state, next), effects: [hand(one, claimer), said] };
  }
  const waiting = [...one.waiting, claimer];
  const asked: DaemonEffect[] =
    one.stage === "unclaimed" ? [{ kind: "retrieve-session", session: name }] : [];
  const next: Incoming = { ...one, stage: "retrieving", waiting, finishBy: undefined };
  return { state: withIncoming(state, next), effects: [...asked, said] };
}

/**
 * Without a registry nobody knows whose a session is: root may still take it, by its name. Who has
 * none of that name is told by the kernel.
 */
function claimedUnseen(state: DaemonState, event: Of<"claim">): Incoming | undefined {
  const { id, part, user } = event;
  if (state.unreadable === undefined || user !== 0) return undefined;
  const name = sessionNameOf(id, part);
  const empty = { waiting: [], holders: [], forsaken: false, reason: undefined };
  return { name, id, part, user, stage: "unclaimed", finishBy: undefined, ...empty };
}

/** A bare client never says that it has finished: the policy's time counts for it as well. */
function claimedBy(one: Incoming, claimers: readonly Claimer[], context: Context): Incoming {
  const known = new Map([...one.holders, ...claimers].map((holder) => [holder.connection, holder]));
  const holders = [...known.values()].map(({ connection, bare }) => ({ connection, bare }));
  const finishBy = holders.every(({ bare }) => bare)
    ? (one.finishBy ?? policyEnd(context))
    : undefined;
  return { ...one, stage: "claimed", waiting: [], holders, forsaken: false, finishBy };
}

export function retrieved(state: DaemonState, event: Of<"retrieved">, context: Context): Decision {
  const one = state.incoming.get(event.session);
  if (one?.stage !== "retrieving") return stay(state);
  const next = claimedBy(one, one.waiting, context);
  const said = record({ what: "claimed", client: one.id, session: one.name });
  const hands = one.waiting.map((claimer) => hand(one, claimer));
  return { state: withIncoming(state, next), effects: [...hands, said] };
}

export function retrieveRefused(
  state: DaemonState,
  event: Of<"retrieve-refused">,
  context: Context,
): Decision {
  const one = state.incoming.get(event.session);
  if (one?.stage !== "retrieving") return stay(state);
  const { code, message } = event.refusal;
  // Nothing of that name came over: it was finished before, or never preserved. Or it was being
  // retrieved by a holder that died, and with that it is finished.
  const isLost = code === "ENOENT" || code === "ESTALE";
  const error = {
    kind: isLost ? "lost" : "kernel",
    message: `Cannot retrieve ${one.name}: ${message}`,
  };
  const effects = one.waiting.flatMap((claimer) => refuse(claimer, error));
  const next: Incoming = isLost
    ? { ...one, stage: "lost", waiting: [] }
    : { ...one, stage: "unclaimed", waiting: [], finishBy: policyEnd(context) };
  const what = isLost ? "lost" : "claim-failed";
  const said = record({ what, client: one.id, session: one.name, detail: `${message} (${code})` });
  return release({ state: withIncoming(state, next), effects: [...effects, said] });
}

function finish(decision: Decision, one: Incoming, reason: string): Decision {
  const { state, effects } = decision;
  if (one.stage === "finishing" || one.stage === "lost") return decision;
  const error = { kind: "finished", message: `${one.name} is being finished: ${reason}` };
  const told = one.waiting.flatMap((claimer) => refuse(claimer, error));
  const next: Incoming = { ...one, stage: "finishing", waiting: [], finishBy: undefined, reason };
  const said = record({ what: "finishing", client: one.id, session: one.name, detail: reason });
  return {
    state: withIncoming(state, next),
    effects: [...effects, ...told, said, { kind: "finish-session", session: one.name }],
  };
}

export function clientFinished(state: DaemonState, event: Of<"client-finished">): Decision {
  const { connection, request, id, part } = event;
  const own = [...state.incoming.values()].filter(
    (one) => one.id === id && (part === undefined || one.part === part),
  );
  const held = own.filter(
    ({ stage, holders }) =>
      stage === "claimed" && holders.some((holder) => holder.connection === connection),
  );
  if (held.length === 0) {
    const message = `This connection has claimed no session of ${id}`;
    const expected = "FINISHED after CLAIM, on the same connection";
    const error = { kind: "not-claimed", message, expected, received: `FINISHED of ${id}` };
    return { state, effects: refuse({ connection, request, bare: false }, error) };
  }
  const effects = answer(connection, request);
  return held.reduce<Decision>(
    (decision, one) => finish(decision, one, "its client has finished"),
    { state, effects },
  );
}

export function operatorFinishes(state: DaemonState, event: Of<"operator-finishes">): Decision {
  const own = [...state.incoming.values()].filter(
    (one) => one.id === event.id || one.name === event.id,
  );
  return own.reduce<Decision>(
    (decision, one) => finish(decision, one, "the operator said so"),
    stay(state),
  );
}

export function sessionFinished(state: DaemonState, event: Of<"session-finished">): Decision {
  const one = state.incoming.get(event.session);
  if (one?.stage !== "finishing") return stay(state);
  const incoming = new Map(state.incoming);
  incoming.delete(one.name);
  const { id, part: session, reason = "it is finished" } = one;
  // A bare one does not know the word.
  const effects: DaemonEffect[] = one.holders
    .filter(({ bare }) => !bare)
    .map(({ connection }) => ({
      kind: "send",
      connection,
      message: { event: "FINISHED", id, session, reason },
    }));
  effects.push(record({ what: "finished", client: id, session: one.name, detail: reason }));
  return release({ state: { ...state, incoming }, effects });
}

/** A client that is gone may come back and claim again, within the policy's time. */
export function holderGone(state: DaemonState, connection: number, context: Context): DaemonState {
  const touched = [...state.incoming.values()].filter(
    (one) =>
      one.holders.some((holder) => holder.connection === connection) ||
      one.waiting.some((claimer) => claimer.connection === connection),
  );
  return touched.reduce((current, one) => {
    const holders = one.holders.filter((holder) => holder.connection !== connection);
    const waiting = one.waiting.filter((claimer) => claimer.connection !== connection);
    const isAlone = one.stage === "claimed" && holders.every(({ bare }) => bare);
    const finishBy = isAlone ? (one.finishBy ?? policyEnd(context)) : one.finishBy;
    const left = one.holders.find((holder) => holder.connection === connection);
    const isForsaken = isAlone && holders.length === 0 && left?.bare === false;
    const forsaken = one.forsaken || isForsaken;
    return withIncoming(current, { ...one, holders, waiting, forsaken, finishBy });
  }, state);
}

export function restorationTime(state: DaemonState, context: Context): Decision {
  const due = [...state.incoming.values()].filter(
    ({ finishBy }) => finishBy !== undefined && finishBy <= context.now,
  );
  return due.reduce<Decision>(
    (decision, one) => finish(decision, one, "nobody claimed it in the policy's time"),
    stay(state),
  );
}

/** When a session wants to hear of time. */
export function restorationDeadline(state: DaemonState): number | undefined {
  const times = [...state.incoming.values()].flatMap(({ finishBy }) => finishBy ?? []);
  return times.length === 0 ? undefined : Math.min(...times);
}
