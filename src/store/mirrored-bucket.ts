import type { Entry, Revision, StoreError, WatchEvent, WatchOptions } from "./store.ts";
import { limits } from "./wire/protocol.ts";
import { WatchQueue } from "./wire/watch-queue.ts";

/** A bucket as one watch of all its keys tells it, for any number of watches of single keys. */
export class MirroredBucket {
  #entries = new Map<string, Entry>();
  /** What a first list, or one after a reset, has told: it counts once it is whole. */
  #listing: Map<string, Entry> | undefined = new Map();
  #synced: Revision | undefined;
  /** The highest revision that was told. */
  #position: Revision = 0;
  /** The highest that was written from here. */
  #written: Revision = 0;
  /** Watches that were told nothing yet: of each its key, and what it has to know of at least. */
  readonly #starting = new Map<WatchQueue, { readonly key: string; readonly least: Revision }>();
  readonly #watches = new Map<string, Set<WatchQueue>>();
  #watchers = 0;
  #end: { readonly failure: StoreError | undefined } | undefined;

  get watchers(): number {
    return this.#watchers;
  }

  /** Returns when the watch has ended. @throws what it throws */
  async follow(watch: AsyncIterable<WatchEvent>): Promise<void> {
    for await (const event of watch) {
      if (event.kind === "reset") this.#listing = new Map();
      else if (event.kind === "entry") this.#take(event.entry);
      else this.#list(event.revision);
    }
  }

  /** A write has landed: watches that begin from now on know of it. */
  wrote(revision: Revision): void {
    this.#written = Math.max(this.#written, revision);
  }

  /** Events of one key: with `since` all anew, behind a `reset`. */
  async *watch(key: string, { since, signal }: WatchOptions): AsyncGenerator<WatchEvent, void> {
    // A single key waits once, so that nothing overflows but by a value that no store takes.
    const queue = new WatchQueue({ limit: limits.pendingBytes, onOverflow: () => {} });
    if (this.#end !== undefined) queue.end(this.#end.failure);
    if (since !== undefined) queue.reset();
    this.#starting.set(queue, { key, least: this.#written });
    const stop = () => queue.end();
    const isOver = () => signal?.aborted === true;
    signal?.addEventListener("abort", stop, { once: true });
    this.#add(key, queue);
    this.#start();
    try {
      if (isOver()) return;
      for await (const event of queue.events()) {
        if (isOver()) return;
        yield event;
      }
    } finally {
      signal?.removeEventListener("abort", stop);
      this.#remove(key, queue);
    }
  }

  /** Nothing follows for anybody. */
  end(failure?: StoreError): void {
    this.#end ??= { failure };
    for (const queues of this.#watches.values()) for (const queue of queues) queue.end(failure);
  }

  #take(entry: Entry): void {
    const into = this.#listing ?? this.#entries;
    if (entry.operation === "put") into.set(entry.key, entry);
    else into.delete(entry.key);
    if (this.#listing !== undefined) return;
    this.#position = Math.max(this.#position, entry.revision);
    for (const queue of this.#watches.get(entry.key) ?? []) queue.entry(entry);
    this.#start();
  }

  #list(revision: Revision): void {
    const isAgain = this.#synced !== undefined;
    this.#synced = revision;
    if (this.#listing === undefined) return;
    this.#entries = this.#listing;
    this.#listing = undefined;
    this.#position = revision;
    if (isAgain) {
      for (const [key, queues] of this.#watches) {
        for (const queue of queues) {
          queue.reset();
          this.#tell(queue, key, revision);
        }
      }
      // Of what was written before, revisions may come again.
      this.#starting.clear();
      this.#written = 0;
    }
    this.#start();
  }

  /** Tells those that wait for no more than is known. */
  #start(): void {
    if (this.#synced === undefined) return;
    for (const [queue, { key, least }] of this.#starting) {
      if (least > this.#position) continue;
      this.#starting.delete(queue);
      this.#tell(queue, key, this.#position);
    }
  }

  #tell(queue: WatchQueue, key: string, revision: Revision): void {
    const entry = this.#entries.get(key);
    if (entry !== undefined) queue.entry(entry);
    queue.synced(revision);
  }

  #add(key: string, queue: WatchQueue): void {
    this.#watchers += 1;
    const queues = this.#watches.get(key);
    if (queues === undefined) this.#watches.set(key, new Set([queue]));
    else queues.add(queue);
  }

  #remove(key: string, queue: WatchQueue): void {
    const queues = this.#watches.get(key);
    if (queues?.delete(queue) !== true) return;
    this.#watchers -= 1;
    this.#starting.delete(queue);
    if (queues.size === 0) this.#watches.delete(key);
  }
}
