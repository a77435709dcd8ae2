import type { Milliseconds, MonotonicTime, ProcessId } from "../units/units.ts";
import { type ClientEvent, limits, type WireError } from "./protocol.ts";

/** What is known, what can happen and what is to be done: the words of the daemon's decisions. */

/** An id that takes part in updates for as long as its connection stands. */
export interface Subscription {
  readonly id: string;
  readonly connection: number;
  readonly user: number;
  readonly processId: ProcessId;
  /** It said no HELLO: it knows only the words of luo-agent. */
  readonly bare: boolean;
  /** When it fails, the whole update is rolled back. */
  readonly required: boolean;
  /** In which it is ready. */
  readonly deadline: Milliseconds;
  /** The kernel's names of its sessions. */
  readonly sessions: readonly string[];
}

/** A subscription in an update. */
export interface Participant {
  readonly subscription: Subscription;
  readonly stage: "creating" | "preserving" | "ready" | "left-out";
  /** When it was given its sessions, and by when it must be ready. */
  readonly begun: MonotonicTime | undefined;
  readonly readyBy: MonotonicTime | undefined;
  readonly readyAfter: Milliseconds | undefined;
  readonly bytes: number | undefined;
  /** For people: its progress, or why it was left out. */
  readonly detail: string | undefined;
}

/** What an update came to without a new kernel. */
export type Outcome = "aborted" | "dry-run" | "refused-by-kernel";

/** An update under way, from the accepted command to its end or to the new kernel. */
export interface Update {
  readonly id: string;
  readonly phase: "preserving" | "barrier" | "committing" | "aborting";
  readonly dryRun: boolean;
  readonly acceptedAt: MonotonicTime;
  /** When the last client was ready. */
  readonly readyAt: MonotonicTime | undefined;
  readonly participants: ReadonlyMap<string, Participant>;
  /** Who was subscribed at its begin and is no participant, and why. */
  readonly without: readonly { readonly id: string; readonly reason: string }[];
  /** Every session of it that may exist. */
  readonly outgoing: ReadonlyMap<string, "creating" | "open" | "dropping">;
  /** While it is committing: what it waits for. */
  readonly commit: "registry" | "preparation" | "kernel" | undefined;
  /** While it is aborting. */
  readonly end: { readonly outcome: Outcome; readonly reason: string } | undefined;
}

/** Who has a duplicate of a session that came. */
export interface SessionHolder {
  readonly connection: number;
  readonly bare: boolean;
}

/** Who waits for a session that is being retrieved. */
export interface Claimer extends SessionHolder {
  readonly request: number | undefined;
}

/** A session that came over a kexec. */
export interface Incoming {
  /** As the kernel knows it. */
  readonly name: string;
  readonly id: string;
  /** The part of the name behind the id; "" for none. */
  readonly part: string;
  readonly user: number;
  readonly stage: "unclaimed" | "retrieving" | "claimed" | "finishing" | "lost";
  readonly waiting: readonly Claimer[];
  /** Connections that hold a duplicate of it. */
  readonly holders: readonly SessionHolder[];
  /** Its client has claimed it, and is gone without a word that it has finished. */
  readonly forsaken: boolean;
  /** When it is finished although nobody said so. */
  readonly finishBy: MonotonicTime | undefined;
  /** Why it is being finished. */
  readonly reason: string | undefined;
}

export interface DaemonState {
  readonly subscriptions: ReadonlyMap<string, Subscription>;
  /** A kernel is loaded. */
  readonly loaded: boolean;
  /** This kernel has live update, and has it on. */
  readonly device: boolean;
  readonly update: Update | undefined;
  readonly incoming: ReadonlyMap<string, Incoming>;
  /** The registry's session of the last kexec is held. */
  readonly registryHeld: boolean;
  /** Why it is not known what came over the last kexec, when that is so. */
  readonly unreadable: string | undefined;
  /**
   * Sessions of updates that are over, of which a client may still have its own duplicate, the
   * oldest first: what of them comes over a kexec all the same is nobody's.
   */
  readonly given: readonly string[];
  /** Why the state file cannot be written, and the mend, when that is so. */
  readonly unsaved: string | undefined;
  /** The update that this kernel came from. */
  readonly restoredFrom: string | undefined;
  /** What the last update without a new kernel came to. */
  readonly last:
    | { readonly id: string; readonly outcome: Outcome; readonly reason: string }
    | undefined;
}

export const initialState: DaemonState = {
  subscriptions: new Map(),
  loaded: false,
  // Until it was looked at: nobody is served before that.
  device: true,
  update: undefined,
  incoming: new Map(),
  registryHeld: false,
  unreadable: undefined,
  given: [],
  unsaved: undefined,
  restoredFrom: undefined,
  last: undefined,
};

/** What an operator orders; refused beforehand by `refuseUpdate` where it cannot be. */
export interface UpdateOrder {
  readonly dryRun: boolean;
  readonly includeBare: boolean;
  readonly discardUnclaimed: boolean;
}

/** A refusal of the kernel or of the holder. */
export interface SessionRefusal {
  readonly code: string;
  readonly message: string;
}

export type DaemonEvent =
  | {
      readonly kind: "subscribe";
      readonly subscription: Subscription;
      readonly request: number | undefined;
      /** The update that it knows of from before its connection was lost. */
      readonly update: string | undefined;
    }
  | {
      readonly kind: "unsubscribe";
      readonly connection: number;
      readonly id: string;
      readonly request: number | undefined;
    }
  | { readonly kind: "disconnected"; readonly connection: number }
  | {
      readonly kind: "ready";
      readonly connection: number;
      readonly id: string | undefined;
      readonly request: number | undefined;
      readonly bytes: number | undefined;
      /** The update that it speaks of, when it says so: its word may come late. */
      readonly update: string | undefined;
    }
  | {
      readonly kind: "progress";
      readonly request: number | undefined;
      readonly connection: number;
      readonly id: string | undefined;
      readonly bytes: number | undefined;
      readonly detail: string;
    }
  | {
      readonly kind: "client-aborts";
      readonly connection: number;
      readonly id: string | undefined;
      readonly request: number | undefined;
      readonly reason: string;
    }
  | {
      readonly kind: "claim";
      readonly claimer: Claimer;
      readonly id: string;
      readonly part: string;
      readonly user: number;
    }
  | {
      readonly kind: "client-finished";
      readonly connection: number;
      readonly id: string;
      readonly part: string | undefined;
      readonly request: number | undefined;
    }
  | { readonly kind: "kernel"; readonly loaded: boolean; readonly device: boolean }
  /** The state file can, or cannot, be written: with its mend. */
  | { readonly kind: "state-file"; readonly problem: string | undefined }
  | { readonly kind: "update"; readonly order: UpdateOrder }
  | { readonly kind: "operator-aborts"; readonly reason: string }
  | { readonly kind: "operator-finishes"; readonly id: string }
  | { readonly kind: "session-created"; readonly session: string }
  | {
      readonly kind: "session-refused";
      readonly session: string;
      readonly refusal: SessionRefusal;
    }
  | { readonly kind: "session-dropped"; readonly session: string }
  | { readonly kind: "registry-preserved" }
  | { readonly kind: "registry-refused"; readonly refusal: SessionRefusal }
  /** Hooks take their time: theirs may have been an update that is over. */
  | { readonly kind: "prepared"; readonly update: string }
  | { readonly kind: "preparation-failed"; readonly update: string; readonly reason: string }
  | { readonly kind: "kernel-refused"; readonly refusal: SessionRefusal }
  | {
      readonly kind: "restored";
      readonly from: string | undefined;
      readonly sessions: readonly Pick<Incoming, "name" | "id" | "part" | "user" | "stage">[];
      readonly registryHeld: boolean;
      /** When a daemon of this boot offered them first; undefined for now. */
      readonly offeredAt: MonotonicTime | undefined;
      /** Why the registry is not understood: what it speaks of is left alone. */
      readonly unreadable: string | undefined;
    }
  /** A daemon before this one left these sessions of an update that was under way. */
  | {
      readonly kind: "left-behind";
      readonly update: string;
      readonly sessions: readonly string[];
    }
  | { readonly kind: "retrieved"; readonly session: string }
  | {
      readonly kind: "retrieve-refused";
      readonly session: string;
      readonly refusal: SessionRefusal;
    }
  | { readonly kind: "session-finished"; readonly session: string }
  | { readonly kind: "time" };

export type DaemonEffect =
  /** Has the holder create it; answered by session-created or session-refused. */
  | { readonly kind: "create-session"; readonly session: string }
  /** Closes every descriptor of an outgoing session that is ours; answered by session-dropped. */
  | { readonly kind: "drop-session"; readonly session: string }
  /** Preserves who takes part, in a session of our own. */
  | { readonly kind: "preserve-registry" }
  /** Runs the hooks, writes to disk what is not there. */
  | { readonly kind: "prepare-kexec"; readonly update: string }
  /** Enters the new kernel; comes back only as kernel-refused. */
  | { readonly kind: "enter-kernel" }
  | { readonly kind: "retrieve-session"; readonly session: string }
  /** Retrieves it if need be, finishes it, closes it; answered by session-finished. */
  | { readonly kind: "finish-session"; readonly session: string }
  /** The last session is settled: the registry's is finished and closed. */
  | { readonly kind: "release-registry" }
  /** A line to a client, with a duplicate of a session where it says so. */
  | {
      readonly kind: "send";
      readonly connection: number;
      readonly message: ClientEvent;
      readonly session?: { readonly direction: "outgoing" | "incoming"; readonly name: string };
    }
  | { readonly kind: "hang-up"; readonly connection: number }
  /** The update is over, and this kernel goes on. */
  | {
      readonly kind: "end-update";
      readonly update: Update;
      readonly outcome: Outcome;
      readonly reason: string;
    }
  | { readonly kind: "record"; readonly entry: HistoryEntry };
export type EffectKind = DaemonEffect["kind"];

/** What is told to whoever watches. */
export interface HistoryEntry {
  readonly what: string;
  readonly client?: string;
  readonly session?: string;
  readonly update?: string;
  readonly detail?: string;
}

/** What a decision may look at beside the state and the event. */
export interface Context {
  readonly now: MonotonicTime;
  /** The id that the next update would have. */
  readonly nextUpdate: string;
  /** How long a session that nobody claims is kept; undefined for ever. */
  readonly unclaimedTime: Milliseconds | undefined;
  /**
   * Maps that were made for the events of this turn, and that only they have seen: what changes in
   * them is changed in place. Without it every event gets copies.
   */
  readonly fresh?: Set<object>;
}

/** The map itself, where it was made in this turn; else a copy that is this turn's. */
export function writable<Key, Value>(
  map: ReadonlyMap<Key, Value>,
  { fresh }: Pick<Context, "fresh">,
): Map<Key, Value> {
  if (fresh?.has(map) === true) return map as Map<Key, Value>;
  const copy = new Map(map);
  fresh?.add(copy);
  return copy;
}

/** With these sessions at the end; the oldest are forgotten beyond the limit of subscriptions. */
export function withGiven(state: DaemonState, sessions: readonly string[]): DaemonState {
  if (sessions.length === 0) return state;
  const added = new Set(sessions);
  const others = state.given.filter((name) => !added.has(name));
  return { ...state, given: [...others, ...added].slice(-limits.subscriptions) };
}

export interface Decision {
  readonly state: DaemonState;
  readonly effects: readonly DaemonEffect[];
}

export const stay = (state: DaemonState): Decision => ({ state, effects: [] });

export const record = (entry: HistoryEntry): DaemonEffect => ({ kind: "record", entry });

/** The answer to a request of a client; a bare one gets none. */
export function answer(connection: number, request: number | undefined): DaemonEffect[] {
  if (request === undefined) return [];
  return [{ kind: "send", connection, message: { event: "OK", request } }];
}

/** A refusal: a client that said HELLO reads it, a bare one is hung up on after it. */
export function refuse(
  to: { readonly connection: number; readonly request: number | undefined; readonly bare: boolean },
  error: WireError,
): DaemonEffect[] {
  const { connection, request, bare } = to;
  const message: ClientEvent = {
    event: "ERROR",
    ...(request === undefined ? {} : { request }),
    error,
  };
  const sent: DaemonEffect = { kind: "send", connection, message };
  return bare ? [sent, { kind: "hang-up", connection }] : [sent];
}
