import {
  checkPattern,
  type Entry,
  isOneKey,
  matchesPattern,
  type Revision,
  StoreError,
  type WatchEvent,
  type WatchOptions,
} from "./store.ts";

export const watchLimits = {
  /** Watchers of one store in one process. */
  watchers: 131_072,
  /** Keys with news that wait for a watcher's next look; with more it reads the table again. */
  waitingKeys: 64,
  /** Entries that a watcher takes from the table at once. */
  entriesAtOnce: 128,
} as const;

/** Where the entries are. All calls are answered at once, so that nothing changes in between. */
export interface WatchSource {
  /** The latest entries of the keys that match, beyond a revision, in the order of revisions. */
  after(bucket: string, pattern: string, revision: Revision, limit: number): readonly Entry[];
  /** The last revision of the bucket. */
  last(bucket: string): Revision;
  /** The highest revision that retention has removed from the bucket. */
  floor(bucket: string): Revision;
  /** Whether everything up to this revision that a watcher may have seen still holds. */
  vouchesFor(bucket: string, since: Revision): boolean;
}

interface Watcher {
  readonly bucket: string;
  readonly pattern: string;
  /** What was told last. */
  cursor: Revision;
  /**
   * listing: it reads the table, beyond its cursor. live: it knows all of the table but what waits.
   */
  phase: "listing" | "live";
  readonly waiting: Map<string, Entry>;
  wake: () => void;
}

/**
 * The watchers of a store. One that keeps up is handed its news; one that does not keeps nothing
 * but a cursor, and reads on in the table, where a key has its latest entry alone. So a slow one
 * costs no memory, and is told several changes of a key as one.
 */
export class WatchHub {
  readonly #source: WatchSource;
  readonly #exact = new Map<string, Set<Watcher>>();
  readonly #wide = new Map<string, Set<Watcher>>();
  #count = 0;
  #closed = false;

  constructor(source: WatchSource) {
    this.#source = source;
  }

  get count(): number {
    return this.#count;
  }

  /** Tells what was written: entries in the order of their revisions, already in the table. */
  publish(entries: readonly Entry[]): void {
    for (const entry of entries) {
      for (const watcher of this.#exact.get(place(entry.bucket, entry.key)) ?? []) {
        tell(watcher, entry);
      }
      for (const watcher of this.#wide.get(entry.bucket) ?? []) {
        if (matchesPattern(entry.key, watcher.pattern)) tell(watcher, entry);
      }
    }
  }

  async *watch(
    bucket: string,
    pattern: string,
    options: WatchOptions = {},
  ): AsyncGenerator<WatchEvent, void> {
    checkPattern(bucket, pattern);
    const { since, signal } = options;
    const watcher: Watcher = {
      bucket,
      pattern,
      cursor: since ?? 0,
      phase: "listing",
      waiting: new Map(),
      wake: () => {},
    };
    const wake = () => watcher.wake();
    this.#add(watcher);
    signal?.addEventListener("abort", wake);
    try {
      const isOver = () => this.#closed || signal?.aborted === true;
      for await (const event of this.#run(watcher, since !== undefined, isOver)) {
        if (isOver()) return;
        yield event;
        if (isOver()) return;
      }
    } finally {
      signal?.removeEventListener("abort", wake);
      this.#remove(watcher);
    }
  }

  async *#run(
    watcher: Watcher,
    resumes: boolean,
    isOver: () => boolean,
  ): AsyncGenerator<WatchEvent, void> {
    const source = this.#source;
    let isReset = resumes && !source.vouchesFor(watcher.bucket, watcher.cursor);
    while (!isOver()) {
      if (isReset) {
        watcher.cursor = 0;
        yield { kind: "reset" };
      }
      isReset = yield* this.#list(watcher, isReset || !resumes);
      if (isReset) continue;
      yield { kind: "synced", revision: watcher.cursor };
      isReset = yield* this.#follow(watcher, isOver);
    }
  }

  /**
   * Tells the table beyond the cursor; the watcher is live then.
   * @param fresh whether it is a first list, which deletions are left out of
   * @returns whether retention removed what was not told yet
   */
  async *#list(watcher: Watcher, fresh: boolean): AsyncGenerator<WatchEvent, boolean> {
    const source = this.#source;
    const { bucket, pattern } = watcher;
    const gone = fresh ? source.floor(bucket) : 0;
    const old = fresh ? source.last(bucket) : 0;
    for (;;) {
      if (source.floor(bucket) > Math.max(watcher.cursor, gone)) return true;
      const found = source.after(bucket, pattern, watcher.cursor, watchLimits.entriesAtOnce);
      // In the same turn in which nothing more was found: no write comes in between.
      if (found.length < watchLimits.entriesAtOnce) {
        watcher.phase = "live";
        watcher.waiting.clear();
      }
      const last = source.last(bucket);
      for (const entry of found) {
        watcher.cursor = entry.revision;
        if (entry.operation === "delete" && entry.revision <= old) continue;
        yield { kind: "entry", entry };
      }
      if (found.length < watchLimits.entriesAtOnce) {
        watcher.cursor = Math.max(watcher.cursor, last);
        return false;
      }
    }
  }

  /** @returns whether a reset is due */
  async *#follow(watcher: Watcher, isOver: () => boolean): AsyncGenerator<WatchEvent, boolean> {
    while (!isOver()) {
      if (watcher.phase === "listing") {
        if (yield* this.#list(watcher, false)) return true;
      }
      const [first] = watcher.waiting;
      if (first !== undefined) {
        const [key, entry] = first;
        watcher.waiting.delete(key);
        watcher.cursor = entry.revision;
        yield { kind: "entry", entry };
        continue;
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      watcher.wake = resolve;
      await promise;
    }
    return false;
  }

  /** Ends all watchers. */
  close(): void {
    this.#closed = true;
    for (const watchers of [...this.#exact.values(), ...this.#wide.values()]) {
      for (const watcher of watchers) watcher.wake();
    }
  }

  #add(watcher: Watcher): void {
    if (this.#count >= watchLimits.watchers) {
      const message = `The store has ${watchLimits.watchers} watchers, and takes no more.`;
      throw new StoreError(message, { kind: "unavailable" });
    }
    this.#count += 1;
    const [index, name] = this.#shelf(watcher);
    const there = index.get(name);
    if (there === undefined) index.set(name, new Set([watcher]));
    else there.add(watcher);
  }

  #remove(watcher: Watcher): void {
    const [index, name] = this.#shelf(watcher);
    const there = index.get(name);
    if (there?.delete(watcher) !== true) return;
    this.#count -= 1;
    if (there.size === 0) index.delete(name);
  }

  #shelf({ bucket, pattern }: Watcher): [Map<string, Set<Watcher>>, string] {
    return isOneKey(pattern) ? [this.#exact, place(bucket, pattern)] : [this.#wide, bucket];
  }
}

/** No bucket has a slash in its name. */
const place = (bucket: string, key: string) => `${bucket}/${key}`;

function tell(watcher: Watcher, entry: Entry): void {
  if (watcher.phase === "listing") return;
  // The latest stands last, so that what waits is in the order of revisions.
  watcher.waiting.delete(entry.key);
  watcher.waiting.set(entry.key, entry);
  if (watcher.waiting.size > watchLimits.waitingKeys) {
    watcher.waiting.clear();
    watcher.phase = "listing";
  }
  watcher.wake();
}
