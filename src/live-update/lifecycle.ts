import type { MonotonicTime } from "../units/units.ts";
import {
  claim,
  clientFinished,
  holderGone,
  operatorFinishes,
  restorationDeadline,
  restorationTime,
  restored,
  retrieved,
  retrieveRefused,
  sessionFinished,
} from "./lifecycle-restoration.ts";
import {
  answer,
  type Context,
  type DaemonEvent,
  type DaemonState,
  type Decision,
  record,
  refuse,
  type Subscription,
  stay,
  type Update,
  writable,
} from "./lifecycle-state.ts";
import {
  beginUpdate,
  clientAborts,
  clientProgress,
  clientReady,
  commitFails,
  commitGoesOn,
  leftBehind,
  operatorAborts,
  participantGone,
  sessionCreated,
  sessionDropped,
  sessionRefused,
  stateFileChanged,
  updateDeadline,
  updateTime,
} from "./lifecycle-update.ts";
import { limits, type phases } from "./protocol.ts";

/**
 * The daemon's decisions. Two things go on side by side: an update, of which there is one at most,
 * and the restoration of what the last kexec brought. Pure: time is an argument.
 */

type Of<K extends DaemonEvent["kind"]> = Extract<DaemonEvent, { kind: K }>;
type Handler<K extends DaemonEvent["kind"]> = (
  state: DaemonState,
  event: Of<K>,
  context: Context,
) => Decision;
export type Handlers = { readonly [K in DaemonEvent["kind"]]: Handler<K> };

function subscribe(state: DaemonState, event: Of<"subscribe">, context: Context): Decision {
  const { subscription, request, update } = event;
  const { id, connection, bare } = subscription;
  const other = state.subscriptions.get(id);
  if (other !== undefined && other.connection !== connection) {
    const holder = `another connection, of process ${other.processId}`;
    const message = `The id ${id} is subscribed by ${holder}`;
    const hint = "Two clients cannot have one id: give this one another.";
    const error = { kind: "taken", message, expected: "an id that is free", received: id, hint };
    return { state, effects: refuse({ connection, request, bare }, error) };
  }
  const sharing = sharesSession(state, subscription);
  if (sharing !== undefined) {
    const message = `The id ${sharing.id} has a session of the same name as one of ${id}`;
    const error = { kind: "taken", message, hint: "Give one of the two another name." };
    return { state, effects: refuse({ connection, request, bare }, error) };
  }
  if (other === undefined && state.subscriptions.size >= limits.subscriptions) {
    const expected = `at most ${limits.subscriptions} subscriptions`;
    const message = `Refused: expected ${expected}, received one more`;
    return {
      state,
      effects: refuse({ connection, request, bare }, { kind: "limit", message, expected }),
    };
  }
  if (other !== undefined && state.update?.participants.get(id)?.subscription === other) {
    const message = `The id ${id} takes part in an update, and cannot be changed during it`;
    return { state, effects: refuse({ connection, request, bare }, { kind: "busy", message }) };
  }
  const subscriptions = writable(state.subscriptions, context);
  subscriptions.set(id, subscription);
  const effects = [...answer(connection, request), record({ what: "subscribed", client: id })];
  if (update === undefined || update === state.restoredFrom) {
    return { state: { ...state, subscriptions }, effects };
  }
  const renewed = renew(state.update, subscription, update);
  if (renewed !== undefined) {
    return { state: { ...state, subscriptions, update: renewed }, effects };
  }
  const reason = whyOver(state, update);
  const message = { event: "ABORTED" as const, id, update, reason };
  return {
    state: { ...state, subscriptions },
    effects: [...effects, { kind: "send", connection, message }],
  };
}

/**
 * Who has a session of the same name: "a" with a part "b" and "a/b" without one would be one for
 * the kernel.
 */
function sharesSession(state: DaemonState, subscription: Subscription): Subscription | undefined {
  for (const session of subscription.sessions) {
    const words = session.split("/");
    for (let length = words.length; length > 0; length -= 1) {
      const other = state.subscriptions.get(words.slice(0, length).join("/"));
      if (other === undefined || other.id === subscription.id) continue;
      if (other.sessions.includes(session)) return other;
    }
  }
  return undefined;
}

/** A client that was ready before the commit is in it, and is told on its new connection. */
function renew(
  update: Update | undefined,
  subscription: Subscription,
  known: string,
): Update | undefined {
  if (update?.phase !== "committing" || update.id !== known) return undefined;
  const participant = update.participants.get(subscription.id);
  if (participant?.stage !== "ready" || participant.subscription.user !== subscription.user) {
    return undefined;
  }
  const { connection, processId, bare } = subscription;
  const participants = new Map(update.participants);
  const renewed = { ...participant.subscription, connection, processId, bare };
  participants.set(subscription.id, { ...participant, subscription: renewed });
  return { ...update, participants };
}

/**
 * Why there is nothing of that update: its part in it ended with its former connection, or all. The
 * last one alone is remembered; whatever the others came to, nothing of them is kept.
 */
function whyOver(state: DaemonState, update: string): string {
  if (state.last?.id === update) return state.last.reason;
  if (state.update?.id === update) return state.update.end?.reason ?? "its connection ended";
  return "no such update is known";
}

function unsubscribe(state: DaemonState, event: Of<"unsubscribe">, context: Context): Decision {
  const { connection, id, request } = event;
  const subscription = state.subscriptions.get(id);
  if (subscription?.connection !== connection) {
    const message = `The id ${id} is not subscribed by this connection`;
    return {
      state,
      effects: refuse({ connection, request, bare: false }, { kind: "unknown", message }),
    };
  }
  const subscriptions = writable(state.subscriptions, context);
  subscriptions.delete(id);
  const effects = [...answer(connection, request), record({ what: "unsubscribed", client: id })];
  const next = { state: { ...state, subscriptions }, effects };
  return participantGone(next, { subscription, reason: "it unsubscribed" }, context);
}

function disconnected(state: DaemonState, event: Of<"disconnected">, context: Context): Decision {
  const { connection } = event;
  const gone = [...state.subscriptions.values()].filter((one) => one.connection === connection);
  const subscriptions = writable(state.subscriptions, context);
  for (const { id } of gone) subscriptions.delete(id);
  const left = holderGone({ ...state, subscriptions }, connection, context);
  return gone.reduce<Decision>(
    (decision, subscription) => {
      const said = record({ what: "disconnected", client: subscription.id });
      const told = { state: decision.state, effects: [...decision.effects, said] };
      return participantGone(told, { subscription, reason: "its connection ended" }, context);
    },
    { state: left, effects: [] },
  );
}

function time(state: DaemonState, _event: Of<"time">, context: Context): Decision {
  const first = updateTime(state, context);
  const second = restorationTime(first.state, context);
  return { state: second.state, effects: [...first.effects, ...second.effects] };
}

/** What is done at each event. */
export const handlers: Handlers = {
  subscribe,
  unsubscribe,
  disconnected,
  ready: clientReady,
  progress: clientProgress,
  "client-aborts": clientAborts,
  claim,
  "client-finished": clientFinished,
  kernel: (state, { loaded, device }) => stay({ ...state, loaded, device }),
  "state-file": stateFileChanged,
  update: beginUpdate,
  "operator-aborts": operatorAborts,
  "operator-finishes": operatorFinishes,
  "session-created": sessionCreated,
  "session-refused": sessionRefused,
  "session-dropped": sessionDropped,
  "registry-preserved": commitGoesOn,
  "registry-refused": commitFails,
  prepared: commitGoesOn,
  "preparation-failed": commitFails,
  "kernel-refused": commitFails,
  restored,
  "left-behind": leftBehind,
  retrieved,
  "retrieve-refused": retrieveRefused,
  "session-finished": sessionFinished,
  time,
};

/** Decides what an event means: the new state, and what is to be done, in order. */
export function step(
  state: DaemonState,
  event: DaemonEvent,
  context: Context,
  decisions: Handlers = handlers,
): Decision {
  const handler = decisions[event.kind] as Handler<DaemonEvent["kind"]>;
  return handler(state, event, context);
}

/** When the state wants to hear of time, if at all. */
export function nextDeadline(state: DaemonState): MonotonicTime | undefined {
  const times = [updateDeadline(state.update), restorationDeadline(state)];
  const known = times.filter((moment) => moment !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

/** The one word for all of it. */
export function phaseOf(state: DaemonState): (typeof phases)[number] {
  if (state.update !== undefined) return state.update.phase;
  const isRestoring = [...state.incoming.values()].some(({ stage }) => stage !== "lost");
  if (isRestoring || state.unreadable !== undefined) return "restoring";
  return state.loaded ? "loaded" : "idle";
}
