import type { Revision, Store } from "../store/store.ts";
import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import { IdentityEventBook } from "./event-book.ts";
import type { IdentityKey } from "./host-key.ts";
import { NonceBook } from "./lifecycle-session.ts";
import type { Reading } from "./lifecycle-time.ts";
import { type Challenge, limits, PROTOCOL_VERSION } from "./protocol.ts";
import { IdentityRefusal } from "./refusal.ts";
import { isSignedBy, newSecret, type Random } from "./secrets.ts";

/** Facts that are noted once and stay, whatever older backup of the store is restored. */
export interface Ledger {
  /** Durable when it returns; the same again is harmless. */
  spend(what: Spending): Promise<unknown>;
  isSpent(what: Spending): Promise<boolean> | boolean;
}

export interface Spending {
  /**
   * enrolment: a token's id. host-key: a fingerprint. operator-token: a hash. operator: the name
   * of one who was revoked.
   */
  readonly kind: "enrolment" | "host-key" | "operator-token" | "operator";
  readonly id: string;
  /**
   * The store's revision when it was issued: a ledger that a restore has brought to another
   * machine takes whatever is older than that restore for spent.
   */
  readonly issued: Revision;
}

/**
 * Keys and tokens of operators are good until they are revoked, so that a restore on another
 * machine must not take all of them for spent.
 */
export const lasting = { issued: Number.MAX_SAFE_INTEGER } as const;

export interface IdentityClock {
  /** This boot, as the kernel names it. */
  readonly boot: string;
  monotonic(): MonotonicTime;
  /** Milliseconds since 1970. */
  wall(): Milliseconds;
}

export interface AuthorityOptions {
  /** Where the authority's own key and its certificates are. */
  readonly folder: string;
  /** "https://NAME:PORT", as enrolment tokens tell it to hosts. */
  readonly address: string;
  /** Names and addresses that stand in its certificates. */
  readonly names: readonly string[];
  /** It has `identityBuckets`. */
  readonly store: Store;
  readonly ledger: Ledger;
  readonly clock: IdentityClock;
  readonly random: Random;
  /**
   * Whether a session's connection answers a ping now; it settles in some seconds, whatever
   * happens. Where a session has no connection it gives false.
   */
  answersPing(session: string): Promise<boolean>;
  /** Kill points of the build for fault tests. */
  onStep?(step: AuthorityStep): void;
  /** Something went wrong that no caller is told of. */
  onTrouble(message: string): void;
}

/** What is persisted, one after the other: after each of these a process may die. */
export const authoritySteps = [
  "token-used",
  "token-spent",
  "host-enrolled",
  "keys-spent",
  "host-stored",
  "operator-tokens-spent",
  "operator-stored",
  "pins-stored",
  "certificate-written",
] as const;
export type AuthorityStep = (typeof authoritySteps)[number];

/** What all parts of an authority share. */
export class AuthorityCore {
  readonly options: AuthorityOptions;
  readonly key: IdentityKey;
  readonly events: IdentityEventBook;
  readonly #nonces = new NonceBook();
  #isShown: (pin: string) => boolean = () => false;
  /** The last of those that nothing else goes on beside. */
  #turn: Promise<unknown> = Promise.resolve();
  /** By host, the last of those that what is about other hosts goes on beside. */
  readonly #turns = new Map<string, Promise<unknown>>();
  #waiting = 0;

  constructor(options: AuthorityOptions, key: IdentityKey) {
    this.options = options;
    this.key = key;
    const run = Buffer.from(options.random(6)).toString("hex");
    this.events = new IdentityEventBook(run, options.clock.wall);
  }

  now(): Reading {
    const { clock } = this.options;
    return { boot: clock.boot, monotonic: clock.monotonic(), wall: clock.wall() };
  }

  step(step: AuthorityStep): void {
    this.options.onStep?.(step);
  }

  /** 128 bits of chance. */
  readonly newId = (): string => Buffer.from(this.options.random(16)).toString("hex");

  /** Which certificates are shown is another part's to say. */
  setShown(isShown: (pin: string) => boolean): void {
    this.#isShown = isShown;
  }

  challenge(): Challenge {
    const nonce = newSecret(this.options.random);
    this.#nonces.add(nonce, this.options.clock.monotonic());
    return {
      version: PROTOCOL_VERSION,
      nonce,
      authority: this.key.fingerprint,
      lifetime: limits.nonceLifetime,
    };
  }

  /**
   * Whether who speaks has the key, now, over a connection on which it saw our certificate.
   * @throws IdentityRefusal
   */
  checkProof(proof: {
    readonly nonce: string;
    readonly certificate: string;
    readonly signatures: readonly { text: string; signature: string; spki: string }[];
  }): void {
    this.checkNonce(proof.nonce);
    this.checkSignatures(proof);
  }

  /** It is good only once, also where all that follows is refused. */
  checkNonce(nonce: string): void {
    if (this.#nonces.spend(nonce, this.options.clock.monotonic())) return;
    throw new IdentityRefusal("nonce-spent", {
      expected: "a nonce that was given out just now",
      received: "another one, or the same again",
    });
  }

  checkSignatures(proof: {
    readonly certificate: string;
    readonly signatures: readonly { text: string; signature: string; spki: string }[];
  }): void {
    if (!this.#isShown(proof.certificate)) {
      throw new IdentityRefusal("certificate-other", {
        expected: "the hash of the certificate that this server shows",
        received: proof.certificate,
      });
    }
    for (const signed of proof.signatures) {
      if (isSignedBy(signed)) continue;
      throw new IdentityRefusal("signature-wrong", {
        expected: "a signature by the key over what was asked",
        received: "another one",
      });
    }
  }

  /**
   * One change after the other, so that what one decides by is not changed by another meanwhile.
   * Other processes are held to it by the store's revisions.
   */
  async inTurn<Result>(act: () => Promise<Result>): Promise<Result> {
    const before = [this.#turn, ...this.#turns.values()];
    return await this.#wait(before, act, (done) => {
      this.#turn = done;
    });
  }

  /**
   * As `inTurn`, for what is decided by one host's record alone: of different hosts side by side,
   * so that their writes share what makes them durable. With one for each, a fleet whose operator
   * was started anew waited for as many of the disk's as it has hosts.
   */
  async inTurnOf<Result>(host: string, act: () => Promise<Result>): Promise<Result> {
    const own = this.#turns.get(host);
    const before = own === undefined ? [this.#turn] : [this.#turn, own];
    return await this.#wait(before, act, (done) => {
      this.#turns.set(host, done);
      void done.then(() => {
        if (this.#turns.get(host) === done) this.#turns.delete(host);
      });
    });
  }

  /** @throws IdentityRefusal too-many */
  async #wait<Result>(
    before: readonly Promise<unknown>[],
    act: () => Promise<Result>,
    enter: (done: Promise<void>) => void,
  ): Promise<Result> {
    if (this.#waiting >= limits.changes) {
      throw new IdentityRefusal("too-many", {
        expected: `at most ${limits.changes} changes that wait`,
        received: "one more",
      });
    }
    this.#waiting += 1;
    const done = Promise.withResolvers<void>();
    enter(done.promise);
    try {
      await Promise.all(before);
      return await act();
    } finally {
      this.#waiting -= 1;
      done.resolve();
    }
  }
}
