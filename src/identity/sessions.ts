import type { MonotonicTime } from "../units/units.ts";
import type { AuthorityCore } from "./authority-core.ts";
import type { SessionEnd } from "./lifecycle-host.ts";
import {
  type EndedSession,
  SessionBook,
  type SessionFacts,
  type SessionState,
} from "./lifecycle-session.ts";
import { limits } from "./protocol.ts";
import { IdentityRefusal } from "./refusal.ts";

export interface SessionView {
  readonly session: string;
  readonly host: string;
  readonly boot: string;
  readonly from: string;
  readonly phase: SessionState["phase"];
  /** Milliseconds. */
  readonly age: number;
  readonly idle: number;
}

interface Open {
  readonly facts: SessionFacts;
  /** Of its token. */
  readonly hash: string;
  readonly ending: AbortController;
}

type Predicate = (facts: SessionFacts) => boolean;

/** Sessions of hosts, and the signal by which everything that is done in one ends with it. */
export class Sessions {
  readonly #core: AuthorityCore;
  readonly #book: SessionBook;
  readonly #open = new Map<string, Open>();

  constructor(core: AuthorityCore) {
    this.#core = core;
    this.#book = new SessionBook((ended) => this.#onEnd(ended));
  }

  get count(): number {
    return this.#book.count;
  }

  /** @param hash of its token. @throws IdentityRefusal too-many */
  open(hash: string, facts: SessionFacts): void {
    if (!this.#book.open(hash, facts)) {
      throw new IdentityRefusal("too-many", {
        expected: `at most ${limits.sessions} sessions`,
        received: "one more",
      });
    }
    this.#open.set(facts.id, { facts, hash, ending: new AbortController() });
    const { host, id, from } = facts;
    this.#core.events.add({ kind: "session-opened", host, session: id, from });
  }

  use(hash: string): ReturnType<SessionBook["use"]> {
    return this.#book.use(hash, this.#now());
  }

  /** A connection of this session said something, which counts as a use of its token. */
  heard(session: string): ReturnType<SessionBook["use"]> | undefined {
    const open = this.#open.get(session);
    return open === undefined ? undefined : this.use(open.hash);
  }

  facts(session: string): SessionFacts | undefined {
    return this.#open.get(session)?.facts;
  }

  /** Aborted when the session ends; at once for one that is none. */
  signal(session: string): AbortSignal {
    return this.#open.get(session)?.ending.signal ?? AbortSignal.abort();
  }

  of(host?: string): readonly SessionView[] {
    const now = this.#now();
    return this.#book.list(host).map(({ facts, state }) => ({
      session: facts.id,
      host: facts.host,
      boot: facts.boot,
      from: facts.from,
      phase: state.phase,
      age: now - facts.opened,
      idle: state.phase === "ended" ? 0 : now - state.used,
    }));
  }

  /** Boot ids other than this one whose sessions answer a ping now. */
  async answering(host: string, boot: string): Promise<readonly string[]> {
    const others = this.#book.list(host).filter(({ facts, state }) => {
      return facts.boot !== boot && state.phase === "live";
    });
    const asked = others.map(async ({ facts }) => {
      const answers = await this.#core.options.answersPing(facts.id).catch(() => false);
      return answers ? [facts.boot] : [];
    });
    return [...new Set((await Promise.all(asked)).flat())];
  }

  end(host: string, isMeant: Predicate, reason: SessionEnd): void {
    this.#book.end(isMeant, reason, { host, now: this.#now() });
  }

  endAll(reason: SessionEnd): void {
    for (const { facts } of [...this.#open.values()]) this.end(facts.host, () => true, reason);
  }

  supersede(host: string, isMeant: Predicate): void {
    this.#book.supersede(isMeant, { host, now: this.#now() });
  }

  /** Ends what has come to its time. @returns when to call it again */
  passTime(): MonotonicTime | undefined {
    return this.#book.passTime(this.#now());
  }

  #onEnd({ facts, reason }: EndedSession): void {
    const { host, id } = facts;
    const open = this.#open.get(id);
    this.#open.delete(id);
    this.#core.events.add({ kind: "session-ended", host, session: id, reason });
    open?.ending.abort(new Error(`The session of ${host} has ended: ${reason}`));
  }

  #now(): MonotonicTime {
    return this.#core.options.clock.monotonic();
  }
}
