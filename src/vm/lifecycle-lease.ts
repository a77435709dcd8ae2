import type { Milliseconds } from "../units/units.ts";
import { masterLimits } from "./protocol-master.ts";

/**
 * For how long this worker may have machines whose fencing is its watchdog (duties 6 to 8 of
 * protocol-master.ts), and what becomes of the watchdog. Pure. All times are of the clock that goes
 * on while a host is suspended, in milliseconds since the boot.
 *
 * What a master stands on: none of those machines runs later than the lease and the watchdog's own
 * time after a report that it received. A report was received after it was sent, so the lease
 * counts from when the last answered one was SENT. Within it the watchdog is fed. After it, it is
 * fed only once nothing is at stake: this worker ends the VMMs of those machines itself, and if it
 * cannot, or is not there to do it, the host is reset.
 */

/** What a worker that follows this one in the same boot has to know. */
export interface LeaseNote {
  /** When the last answered report was sent; null when none was. */
  readonly heardAt: number | null;
  readonly leaseTime: Milliseconds;
  /** The device of a watchdog on which a master may count; null while none may. */
  readonly watchdog: string | null;
}

export type WatchdogPhase =
  /** None, and no master was told of one since it was told of none. */
  | { readonly phase: "off"; readonly retryAt: number | undefined }
  /** A master may count on it, and nobody feeds it: another worker left it, or it was refused. */
  | { readonly phase: "unheld"; readonly retryAt: number; readonly wasRefused: boolean }
  /** isNew: no master was told of it yet. */
  | { readonly phase: "arming"; readonly isNew: boolean }
  | {
      readonly phase: "armed";
      readonly timeout: Milliseconds;
      readonly fedAt: number;
      /** One that was made never to stop is fed for ever, or resets the host. */
      readonly canStop: boolean;
      /** It is to be disarmed: reports say so, and one of those is to be answered first. */
      readonly isEnding: boolean;
    };

export interface LeaseState {
  readonly heardAt: number | undefined;
  /** That of the wire, or what its master said where that is less. */
  readonly leaseTime: Milliseconds;
  /** The device that is to be armed; undefined for none. */
  readonly wanted: string | undefined;
  /** Of `unheld`, `arming` and `armed`. */
  readonly device: string | undefined;
  readonly watchdog: WatchdogPhase;
}

export type LeaseEvent =
  /** note: of the worker before, in this boot; undefined when there is none. */
  | {
      readonly kind: "begun";
      readonly wanted: string | undefined;
      readonly note: LeaseNote | undefined;
    }
  /** saidNone: the report said that no watchdog is armed. */
  | {
      readonly kind: "answered";
      readonly sentAt: number;
      readonly saidNone: boolean;
      readonly leaseTime: Milliseconds;
    }
  | { readonly kind: "armed"; readonly timeout: Milliseconds; readonly canStop: boolean }
  | { readonly kind: "arm-refused" }
  | { readonly kind: "feed-refused" }
  /** The worker is going to end, and its machines run on. */
  | { readonly kind: "ending" }
  /** Time has passed, or a machine has come or gone. */
  | { readonly kind: "look" };

export type LeaseEffect =
  /** To be on the disk before any effect that follows; what cannot be written ends them. */
  | { readonly kind: "note"; readonly note: LeaseNote }
  | { readonly kind: "arm"; readonly device: string }
  | { readonly kind: "feed" }
  | { readonly kind: "disarm" };

export interface LeaseContext {
  readonly now: number;
  /** A machine whose fencing is the watchdog may have a VMM here. */
  readonly isAtStake: boolean;
}

export interface LeaseOutcome {
  readonly state: LeaseState;
  readonly effects: readonly LeaseEffect[];
}

/** A watchdog that was refused is tried again. */
export const ARM_AGAIN_AFTER: Milliseconds = 10_000;
/** So often is it fed within its time: one feeding that comes late is not yet a reset. */
const FEEDINGS = 6;

const off = { phase: "off", retryAt: undefined } as const;

export const initialLease: LeaseState = {
  heardAt: undefined,
  leaseTime: masterLimits.leaseTime,
  wanted: undefined,
  device: undefined,
  watchdog: off,
};

/** Within it, whatever the master decides counts on this worker being there. */
export function isFresh({ heardAt, leaseTime }: LeaseState, now: number): boolean {
  return heardAt !== undefined && now < heardAt + leaseTime;
}

/** Whether a machine whose fencing is the watchdog may have a VMM now. */
export function mayRunFenced(state: LeaseState, now: number): boolean {
  return state.watchdog.phase === "off" || isFresh(state, now);
}

/** Whether a movable machine may be started: a master has heard of this boot. */
export const isHeard = ({ heardAt }: LeaseState): boolean => heardAt !== undefined;

/** What a report says: null where none is armed, or the one that is is about to be disarmed. */
export function reportedTimeout({ watchdog }: LeaseState): Milliseconds | null {
  return watchdog.phase === "armed" && !watchdog.isEnding ? watchdog.timeout : null;
}

/** When `look` is due; undefined while time alone changes nothing. */
export function leaseDeadline(
  state: LeaseState,
  { now, isAtStake }: LeaseContext,
): number | undefined {
  const { heardAt, leaseTime, watchdog } = state;
  const mayFeed = !isAtStake || isFresh(state, now);
  const times: number[] = [];
  if (heardAt !== undefined && watchdog.phase !== "off") times.push(heardAt + leaseTime);
  if (watchdog.phase === "armed" && mayFeed) times.push(nextFeeding(watchdog));
  if (watchdog.phase === "unheld" && mayFeed) times.push(watchdog.retryAt);
  if (watchdog.phase === "off" && watchdog.retryAt !== undefined) times.push(watchdog.retryAt);
  const coming = times.filter((time) => time > now);
  return coming.length === 0 ? undefined : Math.min(...coming);
}

const nextFeeding = ({ fedAt, timeout }: { readonly fedAt: number; readonly timeout: number }) =>
  fedAt + timeout / FEEDINGS;

export function stepLease(
  state: LeaseState,
  event: LeaseEvent,
  context: LeaseContext,
): LeaseOutcome {
  switch (event.kind) {
    case "begun":
      return begin(event);
    case "answered":
      return hear(state, event, context);
    case "armed":
      return arm(state, event, context);
    case "arm-refused":
      return refuse(state, context);
    case "feed-refused":
      return unhold(state, context);
    case "ending":
      return end(state, context);
    case "look":
      return look(state, context);
  }
}

const stay = (state: LeaseState): LeaseOutcome => ({ state, effects: [] });

/** A worker's file of this boot that is gone may have said anything: a watchdog may count down. */
function begin({ wanted, note }: LeaseEvent & { kind: "begun" }): LeaseOutcome {
  const heardAt = note?.heardAt ?? undefined;
  const device = note === undefined ? wanted : (note.watchdog ?? undefined);
  const unheld = { phase: "unheld", retryAt: 0, wasRefused: false } as const;
  const leaseTime = note?.leaseTime ?? masterLimits.leaseTime;
  return stay({
    heardAt,
    leaseTime,
    wanted,
    device,
    watchdog: device === undefined ? off : unheld,
  });
}

function hear(
  state: LeaseState,
  { sentAt, saidNone, leaseTime }: LeaseEvent & { kind: "answered" },
  context: LeaseContext,
): LeaseOutcome {
  const heardAt = Math.max(state.heardAt ?? sentAt, sentAt);
  // A shorter one is kept to; a longer one would be against the wire.
  const heard = { ...state, heardAt, leaseTime: Math.min(leaseTime, masterLimits.leaseTime) };
  const { watchdog, wanted } = state;
  const ended = { ...heard, device: undefined, watchdog: off } as const;
  if (watchdog.phase === "armed" && watchdog.isEnding && saidNone) {
    // The note last: whoever is killed in between finds a device that counts no more, and arms it.
    return { state: ended, effects: [{ kind: "disarm" }, note(ended)] };
  }
  // Nobody counts on it any more; whether it still counts down, nobody here can say.
  const isGivenUp = watchdog.phase === "unheld" && watchdog.wasRefused && wanted === undefined;
  if (isGivenUp && saidNone) return { state: ended, effects: [note(ended)] };
  const looked = look(heard, context);
  const isNoted = looked.effects.some(({ kind }) => kind === "note");
  return isNoted ? looked : { ...looked, effects: [note(looked.state), ...looked.effects] };
}

const note = ({ heardAt, leaseTime, device }: LeaseState): LeaseEffect => ({
  kind: "note",
  note: { heardAt: heardAt ?? null, leaseTime, watchdog: device ?? null },
});

function arm(
  state: LeaseState,
  { timeout, canStop }: LeaseEvent & { kind: "armed" },
  { now }: LeaseContext,
): LeaseOutcome {
  if (state.watchdog.phase !== "arming") return stay(state);
  // One that the configuration does not name any more is fed until the master knows.
  const isEnding = canStop && state.wanted !== state.device;
  return stay({ ...state, watchdog: { phase: "armed", timeout, fedAt: now, canStop, isEnding } });
}

function refuse(state: LeaseState, { now }: LeaseContext): LeaseOutcome {
  const { watchdog } = state;
  if (watchdog.phase !== "arming") return stay(state);
  const retryAt = now + ARM_AGAIN_AFTER;
  if (!watchdog.isNew) {
    return stay({ ...state, watchdog: { phase: "unheld", retryAt, wasRefused: true } });
  }
  const none = { ...state, device: undefined, watchdog: { phase: "off", retryAt } } as const;
  return { state: none, effects: [note(none)] };
}

/** Its device says no: it counts down. It may be opened anew. */
function unhold(state: LeaseState, { now }: LeaseContext): LeaseOutcome {
  if (state.watchdog.phase !== "armed") return stay(state);
  const retryAt = now + ARM_AGAIN_AFTER;
  return stay({ ...state, watchdog: { phase: "unheld", retryAt, wasRefused: true } });
}

/** The master is told first; whoever does not answer leaves it armed. */
function end(state: LeaseState, context: LeaseContext): LeaseOutcome {
  const { watchdog } = state;
  const ending = { ...state, wanted: undefined };
  if (watchdog.phase !== "armed" || !watchdog.canStop) return stay(ending);
  return look({ ...ending, watchdog: { ...watchdog, isEnding: true } }, context);
}

function look(state: LeaseState, context: LeaseContext): LeaseOutcome {
  const { now, isAtStake } = context;
  const { watchdog, wanted } = state;
  const mayFeed = !isAtStake || isFresh(state, now);
  switch (watchdog.phase) {
    case "arming":
      return stay(state);
    case "armed": {
      if (!mayFeed || now < nextFeeding(watchdog)) return stay(state);
      return { state: { ...state, watchdog: { ...watchdog, fedAt: now } }, effects: [feed] };
    }
    case "unheld": {
      const { device } = state;
      // To open it feeds it.
      if (device === undefined || !mayFeed || now < watchdog.retryAt) return stay(state);
      const arming = { ...state, watchdog: { phase: "arming", isNew: false } } as const;
      return { state: arming, effects: [{ kind: "arm", device }] };
    }
    case "off": {
      const isDue = watchdog.retryAt === undefined || now >= watchdog.retryAt;
      if (wanted === undefined || !isDue || !isFresh(state, now)) return stay(state);
      const watching = { phase: "arming", isNew: true } as const;
      const arming = { ...state, device: wanted, watchdog: watching };
      // Noted before it counts: whoever follows must feed it.
      return { state: arming, effects: [note(arming), { kind: "arm", device: wanted }] };
    }
  }
}

const feed: LeaseEffect = { kind: "feed" };
