import { monotonicNow } from "../event-loop/clock.ts";
import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import { closedStore } from "./memory-store.ts";
import { MirroredBucket } from "./mirrored-bucket.ts";
import {
  type Capabilities,
  checkPattern,
  type Entry,
  isOneKey,
  type LinkState,
  type PutOptions,
  type Revision,
  type Store,
  StoreError,
  type WatchEvent,
  type WatchOptions,
} from "./store.ts";

/** Going over one of the last three is `unavailable`, and nothing was written. */
export const relayLimits = {
  /** Requests that the store behind it is asked at once; further ones wait. */
  requestsAtOnce: 256,
  waitingRequests: 16_384,
  /** Milliseconds until one that waited is not sent any more: what it says may be old. */
  longestWait: 5_000,
  /** Of single keys, over all clients. */
  watchers: 65_536,
} as const;

export interface RelayParts {
  readonly store: Store;
  /** Buckets whose single keys many watch: one watch of each stands for all of them. */
  readonly mirrored: readonly string[];
  /** A watch of a whole bucket has ended: nobody hears anything of it any more. */
  readonly onLost: (reason: unknown) => void;
  readonly now?: () => MonotonicTime;
}

interface WaitingRequest {
  readonly since: MonotonicTime;
  readonly begin: () => void;
  readonly refuse: (error: StoreError) => void;
}

/**
 * Stands before a store that is elsewhere, for many who write a key of their own and watch another
 * one. A watch of a single key that goes on after a revision is told all anew, by `reset`: a store
 * in NATS may give revisions again. Its link is the one of the store behind it.
 */
export class RelayStore implements Store {
  readonly #parts: RelayParts;
  readonly #now: () => MonotonicTime;
  readonly #mirrors: ReadonlyMap<string, MirroredBucket>;
  readonly #waiting: WaitingRequest[] = [];
  readonly #closed = new AbortController();
  #requests = 0;

  constructor(parts: RelayParts) {
    this.#parts = parts;
    this.#now = parts.now ?? monotonicNow;
    const { signal } = this.#closed;
    this.#mirrors = new Map(
      parts.mirrored.map((bucket) => {
        const mirror = new MirroredBucket();
        mirror.follow(parts.store.watch(bucket, "", { signal })).then(
          () => this.#lost(bucket, closedStore()),
          (error: unknown) => this.#lost(bucket, error),
        );
        return [bucket, mirror];
      }),
    );
  }

  get capabilities(): Capabilities {
    return this.#parts.store.capabilities;
  }

  async get(bucket: string, key: string): Promise<Entry | undefined> {
    return await this.#inTurn(() => this.#parts.store.get(bucket, key));
  }

  async put(bucket: string, key: string, value: string, options: PutOptions): Promise<Revision> {
    return await this.#write(bucket, () => this.#parts.store.put(bucket, key, value, options));
  }

  async delete(bucket: string, key: string, options: PutOptions): Promise<Revision> {
    return await this.#write(bucket, () => this.#parts.store.delete(bucket, key, options));
  }

  async *watch(
    bucket: string,
    pattern: string,
    options: WatchOptions = {},
  ): AsyncGenerator<WatchEvent, void> {
    const mirror = this.#mirrors.get(bucket);
    if (mirror === undefined || !isOneKey(pattern)) {
      yield* this.#parts.store.watch(bucket, pattern, options);
      return;
    }
    checkPattern(bucket, pattern);
    if (this.#watchers >= relayLimits.watchers) {
      const message = `The store has ${relayLimits.watchers} watchers, and takes no more.`;
      throw new StoreError(message, { kind: "unavailable" });
    }
    yield* mirror.watch(pattern, options);
  }

  link(signal: AbortSignal): AsyncIterable<LinkState> {
    return this.#parts.store.link(signal);
  }

  /**
   * Nothing is written any more, and watches tell nothing more: they wait for their own end, which
   * comes with whoever watches. One that ended here would be taken for a store that refuses it.
   */
  retire(): void {
    this.#closed.abort();
    for (const { refuse } of this.#waiting.splice(0)) refuse(closedStore());
  }

  /** The store behind it stays open. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.retire();
    for (const mirror of this.#mirrors.values()) mirror.end();
  }

  get #watchers(): number {
    return [...this.#mirrors.values()].reduce((sum, { watchers }) => sum + watchers, 0);
  }

  #lost(bucket: string, reason: unknown): void {
    if (this.#closed.signal.aborted) return;
    this.#mirrors.get(bucket)?.end(reason instanceof StoreError ? reason : closedStore());
    this.#parts.onLost(reason);
  }

  async #write(bucket: string, write: () => Promise<Revision>): Promise<Revision> {
    const revision = await this.#inTurn(write);
    this.#mirrors.get(bucket)?.wrote(revision);
    return revision;
  }

  async #inTurn<T>(ask: () => Promise<T>): Promise<T> {
    if (this.#closed.signal.aborted) throw closedStore();
    if (this.#requests >= relayLimits.requestsAtOnce) await this.#turn();
    else this.#requests += 1;
    try {
      return await ask();
    } finally {
      this.#requests -= 1;
      this.#next();
    }
  }

  /** Waits until another one is over, whose place it takes. @throws StoreError unavailable */
  async #turn(): Promise<void> {
    if (this.#waiting.length >= relayLimits.waitingRequests) {
      const message = `${relayLimits.waitingRequests} requests wait for the store already.`;
      throw new StoreError(message, { kind: "unavailable" });
    }
    const { promise, resolve: begin, reject: refuse } = Promise.withResolvers<void>();
    this.#waiting.push({ since: this.#now(), begin, refuse });
    await promise;
  }

  #next(): void {
    const oldest = this.#now() - relayLimits.longestWait;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      if (next.since >= oldest) {
        this.#requests += 1;
        next.begin();
        return;
      }
      next.refuse(tooLate(relayLimits.longestWait));
    }
  }
}

const tooLate = (time: Milliseconds) =>
  new StoreError(`The request was not sent within ${time} ms: too many stand before it.`, {
    kind: "unavailable",
  });
