import { existsSync, rmSync } from "node:fs";
import type { Bytes, Milliseconds } from "../units/units.ts";
import { admit } from "./admission.ts";
import { type BackupReport, copyInTurns } from "./backup.ts";
import type { StoreClocks } from "./clocks.ts";
import { Database, type DatabaseFormat, isDamage, isNoRoom } from "./database.ts";
import { nextTurn, withDatabase } from "./files.ts";
import { type Incarnation, incarnationLimits, writeIncarnation } from "./incarnation.ts";
import { passStep } from "./kill-points.ts";
import type { Ledger } from "./ledger.ts";
import { linkWhile } from "./link.ts";
import { closedStore, conflict, unknownBucket } from "./memory-store.ts";
import { MemoryTable } from "./memory-table.ts";
import { type OpenedFolder, openFolder } from "./opening.ts";
import { Retention, retentionLimits } from "./retention.ts";
import {
  type BucketDefinition,
  type Capabilities,
  checkKey,
  checkWrite,
  type Entry,
  entryBytes,
  type LinkState,
  type PutOptions,
  type Revision,
  refused,
  type Store,
  StoreError,
  type WatchEvent,
  type WatchOptions,
} from "./store.ts";
import { lockFolder, pathsOf, type StorePaths } from "./store-folder.ts";
import { foretell, type Growth } from "./usage.ts";
import { WatchHub } from "./watch-hub.ts";

export const embeddedLimits = {
  /** Writes that wait for a transaction. */
  waitingWrites: 8_192,
  waitingBytes: 64 * 1024 ** 2,
  /** Writes of one transaction: SQLite is synchronous, and nothing else runs meanwhile. */
  writesAtOnce: 256,
  bytesAtOnce: 1024 ** 2,
} as const;

export interface EmbeddedStoreOptions {
  readonly folder: string;
  readonly buckets: readonly BucketDefinition[];
  /** Bytes that the database may take; without it, what the file system has. */
  readonly budget?: Bytes;
  readonly clocks: StoreClocks;
}

/** How much of the disk a bucket has, and how it grows. */
export interface BucketUsage extends Growth {
  readonly bucket: string;
  readonly entries: number;
  readonly bytes: Bytes;
  readonly size: Bytes;
  /** Since the oldest entry was written, by the time that the store ran. */
  readonly oldest: Milliseconds | undefined;
}

export interface StoreUsage {
  readonly buckets: readonly BucketUsage[];
  readonly database: { readonly bytes: Bytes; readonly format: DatabaseFormat } & Growth;
  readonly disk: { readonly total: Bytes; readonly free: Bytes };
  readonly ledgerEntries: number;
}

interface Waiting {
  readonly what: Pick<Entry, "bucket" | "key" | "operation" | "value">;
  readonly options: PutOptions;
  readonly bytes: Bytes;
  readonly landed: (revision: Revision) => void;
  readonly failed: (error: StoreError) => void;
}

type Outcome =
  | { readonly kind: "landed"; readonly revision: Revision; readonly entry?: Entry }
  | { readonly kind: "failed"; readonly error: StoreError };

/**
 * A store in a file of this process: SQLite in WAL mode with synchronous=FULL. Writes that come in
 * one turn, or while a transaction is being written through, share the next transaction; each is
 * acknowledged after the fsync(2) of its own.
 */
export class EmbeddedStore implements Store {
  readonly capabilities: Capabilities;
  readonly ledger: Ledger;
  readonly #paths: StorePaths;
  readonly #owned: Disposable;
  readonly #database: Database;
  readonly #buckets: ReadonlyMap<string, BucketDefinition>;
  readonly #volatile: ReadonlyMap<string, MemoryTable>;
  readonly #retention: Retention;
  readonly #hub: WatchHub;
  readonly #clocks: StoreClocks;
  readonly #budget: Bytes | undefined;
  readonly #gone = new AbortController();
  readonly #lasts: Map<string, Revision>;
  /** The last revision that the database had when it was opened, and where it went on. */
  readonly #opened: { readonly before: Revision; readonly at: Revision };
  readonly #clockBase: Milliseconds;
  #incarnation: Incarnation;
  #revision: Revision;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #isScheduled = false;
  #failure: StoreError | undefined;
  #isClosed = false;
  #isTending = false;
  #sampledAt: Milliseconds;

  /**
   * Opens the store of a folder, or makes it. Everything in it is checked first, which takes
   * some 10 s for each million entries (two busy processors).
   * @throws FileRefused: another process has it; it is damaged (with the way to restore) …
   */
  static open(options: EmbeddedStoreOptions): EmbeddedStore {
    const paths = pathsOf(options.folder);
    const file = { what: "open the store", path: options.folder, otherwise: "give another folder" };
    const owned = new DisposableStack();
    try {
      owned.use(lockFolder(options.folder));
      return withDatabase(file, () => withReserve(paths, () => openWith(options, paths, owned)));
    } catch (error) {
      owned.dispose();
      throw error;
    }
  }

  constructor(
    options: EmbeddedStoreOptions,
    paths: StorePaths,
    { database, incarnation, ledger, owned }: OpenedFolder & { readonly owned: Disposable },
  ) {
    this.#paths = paths;
    this.#owned = owned;
    this.#database = database;
    this.#incarnation = incarnation;
    this.ledger = ledger;
    this.#clocks = options.clocks;
    this.#buckets = new Map(options.buckets.map((bucket) => [bucket.name, bucket]));
    const { buckets, budget } = options;
    this.#budget = budget;
    this.#retention = new Retention({ database, buckets, paths, budget });
    this.#lasts = database.lasts();
    const ends = [...this.#lasts.values(), ...database.floors().values()];
    const before = Math.max(incarnation.first, ...ends);
    // Above whatever was given, also by a store that was killed, or rewound behind our back.
    this.#opened = { before, at: Math.max(incarnation.reserved, before) + 1 };
    this.#revision = this.#opened.at;
    this.#reserve();
    this.#volatile = new Map(
      buckets
        .filter((bucket) => bucket.volatile)
        .map((bucket) => [bucket.name, new MemoryTable(bucket, this.#revision)]),
    );
    const lastTime = Math.max(Number(database.meta("clock") ?? 0), lastClock(database, before));
    this.#clockBase = lastTime - this.#clocks.monotonic();
    this.#sampledAt = database.samples("").at(-1)?.clock ?? Number.NEGATIVE_INFINITY;
    const server = `embedded, format ${database.format}`;
    this.capabilities = { acknowledgement: "fsync", server };
    this.#hub = new WatchHub({
      after: (...query) => this.#after(...query),
      last: (bucket) => this.#last(bucket),
      floor: (bucket) => this.#floor(bucket),
      vouchesFor: (bucket, since) => this.#vouchesFor(bucket, since),
    });
  }

  /**
   * The last revision that was given. Whoever issues what may be spent once keeps it with that, as
   * `Spending.issued`.
   */
  get revision(): Revision {
    return this.#revision;
  }

  /** New with each restore. */
  get incarnation(): string {
    return this.#incarnation.incarnation;
  }

  async get(bucket: string, key: string): Promise<Entry | undefined> {
    this.#checkUsable();
    checkKey(bucket, key);
    this.#definition(bucket);
    const table = this.#volatile.get(bucket);
    if (table !== undefined) return table.get(key);
    const stored = this.#reading(() => this.#database.latest(bucket, key));
    return stored === undefined ? undefined : withoutClock(stored);
  }

  async put(bucket: string, key: string, value: string, options: PutOptions): Promise<Revision> {
    return this.#write({ bucket, key, operation: "put", value }, options);
  }

  async delete(bucket: string, key: string, options: PutOptions): Promise<Revision> {
    return this.#write({ bucket, key, operation: "delete", value: "" }, options);
  }

  /** @throws StoreError also damaged, while it lists */
  watch(bucket: string, pattern: string, options?: WatchOptions): AsyncIterable<WatchEvent> {
    this.#definition(bucket);
    return this.#hub.watch(bucket, pattern, options);
  }

  link(signal: AbortSignal): AsyncIterable<LinkState> {
    return linkWhile(this.#gone.signal, signal);
  }

  /**
   * Removes what is too old; at nine tenths of the disk, or of the budget, also the oldest
   * expendable entries; notes how much there is, once an hour. To be called every minute or so.
   */
  async tend(): Promise<void> {
    if (this.#isTending) return;
    this.#isTending = true;
    this.#expireVolatile();
    try {
      while (!this.#isUnusable() && this.#retention.expire(this.#clock())) await nextTurn();
      for (let round = 0; round < retentionLimits.rounds; round += 1) {
        if (this.#isUnusable()) return;
        const excess = this.#retention.excess();
        if (excess === 0 || this.#relieve(excess) === 0) break;
        await nextTurn();
      }
      this.#retention.keepReserve();
      this.#note();
    } catch (error) {
      this.#database.rollback();
      // On a full disk nothing can be noted; who writes is told so.
      if (!isNoRoom(error)) throw this.#translate(error, "write");
    } finally {
      this.#isTending = false;
    }
  }

  #expireVolatile(): void {
    const clock = this.#clock();
    for (const [name, table] of this.#volatile) {
      const age = this.#definition(name).age;
      if (age !== "forever") table.expire(clock - age);
    }
  }

  /** Notes the clock, and once an hour how much there is. */
  #note(): void {
    if (this.#isUnusable()) return;
    const clock = this.#clock();
    this.#database.begin();
    this.#database.setMeta("clock", `${clock}`);
    if (clock - this.#sampledAt >= retentionLimits.sampleEvery) {
      this.#sampledAt = clock;
      const keep = retentionLimits.samples;
      this.#database.addSample("", { clock, bytes: this.#database.size }, keep);
      for (const { name, volatile } of this.#buckets.values()) {
        if (volatile) continue;
        this.#database.addSample(name, { clock, bytes: this.#retention.count(name).bytes }, keep);
      }
    }
    this.#database.commit();
  }

  /** @throws StoreError */
  usage(): StoreUsage {
    this.#checkUsable();
    return this.#reading(() => {
      const disk = this.#retention.disk();
      const { size: bytes, format } = this.#database;
      const room = Math.min(disk.free, (this.#budget ?? Number.POSITIVE_INFINITY) - bytes);
      const growth = foretell(this.#database.samples(""), room);
      return {
        buckets: [...this.#buckets.values()].map((bucket) => this.#usageOf(bucket)),
        database: { bytes, format, ...growth },
        disk,
        ledgerEntries: this.ledger.entries,
      };
    });
  }

  #usageOf({ name, size }: BucketDefinition): BucketUsage {
    const table = this.#volatile.get(name);
    const { entries, bytes } = table ?? this.#retention.count(name);
    const written = table?.oldest ?? this.#database.oldest(name, "all", 1)[0]?.clock;
    const oldest = written === undefined ? undefined : this.#clock() - written;
    const samples = table === undefined ? this.#database.samples(name) : [];
    return { bucket: name, entries, bytes, size, oldest, ...foretell(samples, size - bytes) };
  }

  /**
   * Writes all that is there now into a file, 0600, turn by turn: the store goes on meanwhile.
   * @throws FileRefused for a path where something is, or that cannot be written; StoreError
   */
  async backup(file: string): Promise<BackupReport> {
    this.#checkUsable();
    const { incarnation, fence } = this.#incarnation;
    const made = this.#clocks.wall();
    using source = Database.open(this.#paths.database, "read");
    source.beginReading();
    const spent = [...this.ledger.all()];
    const facts = { incarnation, fence, made, last: this.#revision, spent };
    return await copyInTurns(source, file, facts, () => this.#checkUsable());
  }

  /**
   * Takes a new format of the database into use, for good: an older hostler cannot open it then.
   * @throws StoreError refused for a format that lies behind; full, unavailable: say it again
   */
  async commitFormat(format: DatabaseFormat): Promise<void> {
    this.#checkUsable();
    if (format < this.#database.format) {
      throw refused(`format ${this.#database.format} or later`, `format ${format}`);
    }
    try {
      if (format > this.#database.format) await this.#upgrade();
    } catch (error) {
      this.#database.rollback();
      throw this.#translate(error, "write");
    }
  }

  async #upgrade(): Promise<void> {
    const database = this.#database;
    database.addChecksumColumn();
    passStep("upgrade:column");
    for (;;) {
      this.#checkUsable();
      database.begin();
      const count = database.addChecksums(embeddedLimits.writesAtOnce);
      // What was written meanwhile has none, until this transaction is the last one.
      if (count === 0) break;
      database.commit();
      passStep("upgrade:some");
      await nextTurn();
    }
    database.setFormat(2);
    passStep("upgrade:all");
    database.commit();
    database.readFormat();
    passStep("upgrade:done");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    while (this.#waiting.length > 0) this.#flush();
    this.#gone.abort();
    this.#hub.close();
    try {
      if (this.#failure === undefined) this.#database.setMeta("clock", `${this.#clock()}`);
    } catch (error) {
      // A full disk: entries grow a minute older later.
      if (!isNoRoom(error)) throw error;
    } finally {
      this.#owned[Symbol.dispose]();
    }
  }

  async #write(what: Waiting["what"], options: PutOptions): Promise<Revision> {
    this.#checkUsable();
    checkWrite({ ...what, options });
    this.#definition(what.bucket);
    const table = this.#volatile.get(what.bucket);
    if (table !== undefined) return this.#writeVolatile(table, what, options);
    const bytes = entryBytes(what);
    const { waitingWrites, waitingBytes } = embeddedLimits;
    if (this.#waiting.length >= waitingWrites || this.#waitingBytes + bytes > waitingBytes) {
      const message = `The store has ${this.#waiting.length} writes waiting, and takes no more.`;
      throw new StoreError(message, { kind: "unavailable" });
    }
    const { promise, resolve, reject } = Promise.withResolvers<Revision>();
    this.#waiting.push({ what, options, bytes, landed: resolve, failed: reject });
    this.#waitingBytes += bytes;
    this.#schedule();
    return promise;
  }

  #writeVolatile(table: MemoryTable, what: Waiting["what"], options: PutOptions): Revision {
    const admission = admit(table.get(what.key), options);
    if (admission.kind === "repetition") return admission.revision;
    if (admission.kind === "conflict") throw conflict(what, admission.received);
    const entry = this.#entry(what, options);
    table.put(entry, this.#clock());
    this.#hub.publish([entry]);
    return entry.revision;
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (this.#waiting.length === 0) return;
      this.#flush();
      if (this.#waiting.length > 0) this.#schedule();
    });
  }

  /** One transaction: what waits, up to the bounds. */
  #flush(): void {
    const batch = this.#takeBatch();
    let outcomes: Outcome[];
    try {
      outcomes = this.#transact(batch);
    } catch (error) {
      const problem = this.#translate(error, "write");
      outcomes = batch.map(() => ({ kind: "failed", error: problem }));
    }
    const entries = outcomes.flatMap((one) => (one.kind === "landed" && one.entry) || []);
    for (const entry of entries) this.#lasts.set(entry.bucket, entry.revision);
    for (const [index, outcome] of outcomes.entries()) {
      if (outcome.kind === "landed") batch[index]?.landed(outcome.revision);
      else batch[index]?.failed(outcome.error);
    }
    this.#hub.publish(entries);
    passStep("commit:acknowledged");
  }

  #takeBatch(): Waiting[] {
    const { writesAtOnce, bytesAtOnce } = embeddedLimits;
    let bytes = 0;
    let count = 0;
    for (const waiting of this.#waiting) {
      bytes += waiting.bytes;
      if (count === writesAtOnce || (count > 0 && bytes > bytesAtOnce)) break;
      count += 1;
    }
    const batch = this.#waiting.splice(0, count);
    for (const waiting of batch) this.#waitingBytes -= waiting.bytes;
    return batch;
  }

  /** Once more, with the oldest expendable entries gone, when the disk was full. */
  #transact(batch: readonly Waiting[]): Outcome[] {
    const excess = this.#retention.excess();
    if (excess > 0) this.#relieve(excess);
    try {
      return this.#transactOnce(batch);
    } catch (error) {
      if (!isNoRoom(error)) throw error;
      const wanted = 2 * batch.reduce((sum, { bytes }) => sum + bytes, 0);
      if (this.#relieve(wanted) === 0) throw error;
      return this.#transactOnce(batch);
    }
  }

  /** @returns the bytes that went; 0 when nothing may, or even that has no room */
  #relieve(wanted: Bytes): Bytes {
    const retention = this.#retention;
    if (!retention.hasExpendable()) return 0;
    try {
      return retention.relieve(wanted);
    } catch (error) {
      if (!isNoRoom(error)) throw error;
    }
    // To remove something needs room too.
    retention.giveReserve();
    try {
      this.#database.checkpoint();
      return retention.relieve(wanted);
    } catch (error) {
      if (isNoRoom(error)) return 0;
      throw error;
    } finally {
      retention.keepReserve();
    }
  }

  /** @throws what SQLite throws; nothing of the batch has landed then, or it is `Uncertain` */
  #transactOnce(batch: readonly Waiting[]): Outcome[] {
    const database = this.#database;
    try {
      if (this.#revision + batch.length > this.#incarnation.reserved) this.#reserve();
      database.begin();
      passStep("commit:begun");
      const outcomes = batch.map((waiting) => this.#perform(waiting));
      passStep("commit:written");
      commit(database);
      passStep("commit:committed");
      return outcomes;
    } catch (error) {
      database.rollback();
      this.#retention.recount();
      throw error;
    }
  }

  #perform({ what, options }: Waiting): Outcome {
    const present = this.#database.latest(what.bucket, what.key);
    const admission = admit(present, options);
    if (admission.kind === "repetition") return { kind: "landed", revision: admission.revision };
    if (admission.kind === "conflict") {
      return { kind: "failed", error: conflict(what, admission.received) };
    }
    const entry = this.#entry(what, options);
    try {
      this.#retention.admit(this.#definition(what.bucket), entry, present);
    } catch (error) {
      if (error instanceof StoreError) return { kind: "failed", error };
      throw error;
    }
    this.#database.write({ ...entry, clock: this.#clock() });
    return { kind: "landed", revision: entry.revision, entry };
  }

  #entry(what: Waiting["what"], options: PutOptions): Entry {
    if (this.#revision >= this.#incarnation.reserved) this.#reserve();
    this.#revision += 1;
    const time = Math.round(this.#clocks.wall());
    return { ...what, revision: this.#revision, writeId: options.writeId, time };
  }

  /** Promises more revisions, outside of the database, before one of them is given. */
  #reserve(): void {
    const reserved = this.#revision + incarnationLimits.reservation;
    this.#incarnation = { ...this.#incarnation, reserved };
    try {
      writeIncarnation(this.#paths.incarnation, this.#incarnation);
    } catch (error) {
      this.#incarnation = { ...this.#incarnation, reserved: this.#revision };
      throw error;
    }
    passStep("reserve:promised");
  }

  #after(bucket: string, pattern: string, revision: Revision, limit: number): readonly Entry[] {
    const table = this.#volatile.get(bucket);
    if (table !== undefined) return table.after(pattern, revision, limit);
    this.#checkUsable();
    const found = this.#reading(() => this.#database.after(bucket, pattern, revision, limit));
    return found.map(withoutClock);
  }

  #last(bucket: string): Revision {
    const table = this.#volatile.get(bucket);
    if (table !== undefined) return table.last;
    const floor = this.#retention.floor(bucket);
    return Math.max(this.#lasts.get(bucket) ?? 0, floor, this.#incarnation.first);
  }

  #floor(bucket: string): Revision {
    return this.#volatile.get(bucket)?.floor ?? this.#retention.floor(bucket);
  }

  #vouchesFor(bucket: string, since: Revision): boolean {
    if (since === 0) return true;
    if (since < this.#incarnation.first || since < this.#floor(bucket)) return false;
    // Of another store, or of what a database had that was there before this one.
    const isUnheardOf = since > this.#opened.before && since < this.#opened.at;
    return since <= this.#revision && !isUnheardOf;
  }

  /** Now, on the clock that ran only while this store did. */
  #clock(): Milliseconds {
    return this.#clockBase + this.#clocks.monotonic();
  }

  #definition(bucket: string): BucketDefinition {
    const definition = this.#buckets.get(bucket);
    if (definition === undefined) throw unknownBucket(bucket, [...this.#buckets.keys()]);
    return definition;
  }

  #isUnusable(): boolean {
    return this.#gone.signal.aborted;
  }

  #checkUsable(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#gone.signal.aborted) throw closedStore();
  }

  #reading<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      throw this.#translate(error, "read");
    }
  }

  #translate(error: unknown, what: "read" | "write"): StoreError {
    if (error instanceof StoreError) return error;
    const path = this.#paths.database;
    if (isDamage(error)) return this.#noteDamage(error);
    if (isNoRoom(error)) {
      const message = `The disk has no room for the store ${path}. Make room, or raise its budget.`;
      return new StoreError(message, { kind: "full" }, { cause: error });
    }
    if (error instanceof Uncertain) {
      const { cause } = error;
      // What the kernel could not write it may have dropped, and nothing behind it in the log
      // would be read again: only who opens the file anew knows what is there.
      const stopped = `The disk under the store ${path} has failed. Start this daemon again.`;
      this.#stop(new StoreError(stopped, { kind: "unavailable" }, { cause }));
      const message = `Writing the store ${path} through has failed: it may have landed or not.`;
      return new StoreError(message, { kind: "ambiguous" }, { cause });
    }
    return new StoreError(
      `Cannot ${what} the store ${path}.`,
      { kind: "unavailable" },
      {
        cause: error,
      },
    );
  }

  /** Nothing more is answered: what else the file says cannot be relied upon. */
  #noteDamage(cause: unknown): StoreError {
    const message =
      `The database ${this.#paths.database} is damaged. Stop this daemon, and restore a backup ` +
      "by `hostler store restore FILE`.";
    return this.#stop(new StoreError(message, { kind: "damaged" }, { cause }));
  }

  /** From now on everything is answered with this. */
  #stop(error: StoreError): StoreError {
    this.#failure ??= error;
    const waiting = this.#waiting.splice(0);
    this.#waitingBytes = 0;
    for (const { failed } of waiting) failed(this.#failure);
    this.#gone.abort();
    return this.#failure;
  }
}

function openWith(
  options: EmbeddedStoreOptions,
  paths: StorePaths,
  owned: DisposableStack,
): EmbeddedStore {
  using opening = new DisposableStack();
  const opened = openFolder(paths);
  opening.use(opened.database);
  opening.use(opened.ledger);
  const all = new DisposableStack();
  all.use(owned);
  const store = new EmbeddedStore(options, paths, { ...opened, owned: all });
  all.use(opening.move());
  return store;
}

/** Tries again without the reserve when the disk is full: a store that is started goes on. */
function withReserve<T>(paths: StorePaths, open: () => T): T {
  try {
    return open();
  } catch (error) {
    if (!isNoRoom(error) || !existsSync(paths.reserve)) throw error;
    rmSync(paths.reserve, { force: true });
    return open();
  }
}

/** A commit that failed for another reason than room: it may be in the log all the same. */
class Uncertain extends Error {
  override readonly name = "Uncertain";
}

function commit(database: Database): void {
  try {
    database.commit();
  } catch (error) {
    if (isNoRoom(error) || isDamage(error)) throw error;
    throw new Uncertain("Cannot commit", { cause: error });
  }
}

/** The age of the last entry, for a store that was killed before it noted its clock. */
function lastClock(database: Database, last: Revision): Milliseconds {
  for (const { clock } of database.entries(last - 1)) return clock;
  return 0;
}

function withoutClock({ clock: _clock, ...entry }: Entry & { clock: Milliseconds }): Entry {
  return entry;
}
