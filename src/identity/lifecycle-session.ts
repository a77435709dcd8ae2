import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import type { SessionEnd } from "./lifecycle-host.ts";
import { limits } from "./protocol.ts";

/** Nonces and sessions: both live in memory, end by the monotonic clock, and are bounded. Pure. */

/** What a session is for; its token is known by its hash alone. */
export interface SessionFacts {
  readonly id: string;
  readonly host: string;
  /** The key that opened it. */
  readonly key: string;
  readonly boot: string;
  readonly from: string;
  readonly opened: MonotonicTime;
}

export type SessionState =
  | { readonly phase: "live"; readonly used: MonotonicTime }
  /** A newer boot id of the host has opened its own: should this one speak, it is a clone. */
  | { readonly phase: "superseded"; readonly used: MonotonicTime }
  | { readonly phase: "ended"; readonly reason: SessionEnd };

export type SessionEvent =
  | { readonly kind: "use" }
  | { readonly kind: "supersede" }
  | { readonly kind: "end"; readonly reason: SessionEnd }
  | { readonly kind: "time" };

export interface SessionStep {
  readonly state: SessionState;
  /** What a use is answered with. */
  readonly admitted: boolean;
  /** It was used although it was superseded. */
  readonly clone?: true;
}

/** @param opened when it was opened: a session has an end, however much it is used */
export function stepSession(
  state: SessionState,
  event: SessionEvent,
  context: { readonly opened: MonotonicTime; readonly now: MonotonicTime },
): SessionStep {
  if (state.phase === "ended") return { state, admitted: false };
  const { now, opened } = context;
  if (now - opened >= limits.sessionLifetime) return ended("lifetime");
  if (now - state.used >= limits.sessionIdle) return ended("idle");
  switch (event.kind) {
    case "end":
      return ended(event.reason);
    case "time":
      return { state, admitted: false };
    case "supersede":
      return { state: { phase: "superseded", used: state.used }, admitted: false };
    case "use":
      if (state.phase === "superseded") return { ...ended("superseded"), clone: true };
      return { state: { phase: "live", used: now }, admitted: true };
  }
}

const ended = (reason: SessionEnd): SessionStep => {
  return { state: { phase: "ended", reason }, admitted: false };
};

/** When a session ends if nothing happens in it. */
export function sessionDeadline(
  state: SessionState,
  opened: MonotonicTime,
): MonotonicTime | undefined {
  if (state.phase === "ended") return undefined;
  return Math.min(opened + limits.sessionLifetime, state.used + limits.sessionIdle);
}

/** Nonces that were given out, and wait for their one use. */
export class NonceBook {
  /** In the order of their making, so that the oldest stands first. */
  readonly #made = new Map<string, MonotonicTime>();
  readonly #limit: number;

  constructor(limit: number = limits.nonces) {
    this.#limit = limit;
  }

  get count(): number {
    return this.#made.size;
  }

  /** Over the limit the oldest goes: to crowd one out takes `limits.nonces` within its use. */
  add(nonce: string, now: MonotonicTime): void {
    for (const [old, made] of this.#made) {
      if (this.#made.size < this.#limit && now - made < limits.nonceLifetime) break;
      this.#made.delete(old);
    }
    this.#made.set(nonce, now);
  }

  /** @returns whether it is good, which it is only once */
  spend(nonce: string, now: MonotonicTime): boolean {
    const made = this.#made.get(nonce);
    this.#made.delete(nonce);
    return made !== undefined && now - made < (limits.nonceLifetime as Milliseconds);
  }
}

interface Kept {
  readonly facts: SessionFacts;
  state: SessionState;
}

/** What a book did to sessions, for whoever has to end their connections. */
export interface EndedSession {
  readonly facts: SessionFacts;
  readonly reason: SessionEnd;
}

export type SessionUse =
  | { readonly kind: "admitted"; readonly facts: SessionFacts }
  | { readonly kind: "clone"; readonly facts: SessionFacts }
  | { readonly kind: "unknown" };

/** All sessions of an authority, by the hash of their token. */
export class SessionBook {
  readonly #byHash = new Map<string, Kept>();
  readonly #ofHost = new Map<string, Set<string>>();
  readonly #onEnd: (ended: EndedSession) => void;

  constructor(onEnd: (ended: EndedSession) => void) {
    this.#onEnd = onEnd;
  }

  get count(): number {
    return this.#byHash.size;
  }

  /** @returns false when there are too many already */
  open(hash: string, facts: SessionFacts): boolean {
    if (this.#byHash.size >= limits.sessions) this.passTime(facts.opened);
    if (this.#byHash.size >= limits.sessions) return false;
    const own = this.#ofHost.get(facts.host) ?? new Set<string>();
    this.#ofHost.set(facts.host, own);
    for (const oldest of own) {
      if (own.size < limits.sessionsOfHost) break;
      this.#apply(oldest, { kind: "end", reason: "replaced" }, facts.opened);
    }
    // The last one that ended took the set along.
    this.#ofHost.set(facts.host, own);
    own.add(hash);
    this.#byHash.set(hash, { facts, state: { phase: "live", used: facts.opened } });
    return true;
  }

  use(hash: string, now: MonotonicTime): SessionUse {
    const kept = this.#byHash.get(hash);
    if (kept === undefined) return { kind: "unknown" };
    const step = this.#apply(hash, { kind: "use" }, now);
    if (step.admitted) return { kind: "admitted", facts: kept.facts };
    return step.clone === true ? { kind: "clone", facts: kept.facts } : { kind: "unknown" };
  }

  /** Ends what the predicate picks. */
  end(
    isMeant: (facts: SessionFacts) => boolean,
    reason: SessionEnd,
    at: { readonly host: string; readonly now: MonotonicTime },
  ): void {
    for (const hash of [...(this.#ofHost.get(at.host) ?? [])]) {
      const kept = this.#byHash.get(hash);
      if (kept !== undefined && isMeant(kept.facts)) {
        this.#apply(hash, { kind: "end", reason }, at.now);
      }
    }
  }

  supersede(
    isMeant: (facts: SessionFacts) => boolean,
    at: { readonly host: string; readonly now: MonotonicTime },
  ): void {
    for (const hash of [...(this.#ofHost.get(at.host) ?? [])]) {
      const kept = this.#byHash.get(hash);
      if (kept !== undefined && isMeant(kept.facts)) {
        this.#apply(hash, { kind: "supersede" }, at.now);
      }
    }
  }

  /** Ends what has come to its time. @returns when to call it again */
  passTime(now: MonotonicTime): MonotonicTime | undefined {
    let next: MonotonicTime | undefined;
    for (const [hash, kept] of [...this.#byHash]) {
      this.#apply(hash, { kind: "time" }, now);
      const deadline = sessionDeadline(kept.state, kept.facts.opened);
      if (deadline !== undefined) next = Math.min(next ?? deadline, deadline);
    }
    return next;
  }

  list(host?: string): readonly { readonly facts: SessionFacts; readonly state: SessionState }[] {
    const hashes = host === undefined ? this.#byHash.keys() : (this.#ofHost.get(host) ?? []);
    return [...hashes].flatMap((hash) => {
      const kept = this.#byHash.get(hash);
      return kept === undefined ? [] : [kept];
    });
  }

  #apply(hash: string, event: SessionEvent, now: MonotonicTime): SessionStep {
    const kept = this.#byHash.get(hash);
    if (kept === undefined) return ended("closed");
    const step = stepSession(kept.state, event, { opened: kept.facts.opened, now });
    kept.state = step.state;
    if (step.state.phase === "ended") {
      this.#byHash.delete(hash);
      const own = this.#ofHost.get(kept.facts.host);
      own?.delete(hash);
      if (own?.size === 0) this.#ofHost.delete(kept.facts.host);
      this.#onEnd({ facts: kept.facts, reason: step.state.reason });
    }
    return step;
  }
}
