import { existsSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import type { Bytes, Milliseconds } from "../units/units.ts";
import { type BucketCount, type Database, isNoRoom } from "./database.ts";
import { fullBucket } from "./memory-table.ts";
import { type BucketDefinition, type Entry, entryBytes } from "./store.ts";
import type { StorePaths } from "./store-folder.ts";

const days = (count: number): Milliseconds => count * 24 * 3_600_000;

export const retentionLimits = {
  /** Deletions are told for so long to who comes back, also in a bucket that is kept for ever. */
  deletionAge: days(30),
  /** Entries that are removed in one transaction. */
  atOnce: 512,
  /** Transactions of one `tend` for the disk's sake. */
  rounds: 64,
  /** The part of the file system, or of the budget, above which the oldest go. */
  fullness: 0.9,
  reserveBytes: 4 * 1024 ** 2,
  /** Samples of a bucket's size, one an hour: a month. */
  samples: 720,
  sampleEvery: 3_600_000,
} as const;

/** How full the place is that the store is in. */
export interface DiskUse {
  readonly total: Bytes;
  readonly free: Bytes;
}

/** What goes, and when: by size with each write, by age and for the disk's sake when tended. */
export class Retention {
  readonly #database: Database;
  readonly #buckets: readonly BucketDefinition[];
  readonly #paths: StorePaths;
  readonly #budget: Bytes | undefined;
  #counts: Map<string, BucketCount>;
  #floors: Map<string, number>;

  /** @param options.budget bytes that the database may take, beside what the disk has */
  constructor(options: {
    readonly database: Database;
    readonly buckets: readonly BucketDefinition[];
    readonly paths: StorePaths;
    readonly budget: Bytes | undefined;
  }) {
    this.#database = options.database;
    this.#buckets = options.buckets.filter((bucket) => !bucket.volatile);
    this.#paths = options.paths;
    this.#budget = options.budget;
    this.#counts = this.#database.counts();
    this.#floors = this.#database.floors();
    if (this.#budget !== undefined) this.#database.limitSize(this.#budget);
    this.keepReserve();
  }

  count(bucket: string): BucketCount {
    return this.#counts.get(bucket) ?? { entries: 0, bytes: 0 };
  }

  floor(bucket: string): number {
    return this.#floors.get(bucket) ?? 0;
  }

  /** After a rollback: nothing that was counted since the last commit holds. */
  recount(): void {
    this.#counts = this.#database.counts();
    this.#floors = this.#database.floors();
  }

  /**
   * Counts a write, and makes room for it; inside of its transaction.
   * @throws StoreError full
   */
  admit(definition: BucketDefinition, entry: Entry, present: Entry | undefined): void {
    const { name, size, expendable } = definition;
    const before = this.count(name);
    const growth = entryBytes(entry) - (present === undefined ? 0 : entryBytes(present));
    let over = before.bytes + growth - size;
    if (growth > 0 && over > 0) {
      over -= this.#shed(name, "deletions", over, present);
      if (expendable && over > 0) over -= this.#shed(name, "all", over, present);
      if (over > 0) throw fullBucket(name, size);
    }
    const { entries, bytes } = this.count(name);
    const more = present === undefined ? 1 : 0;
    this.#counts.set(name, { entries: entries + more, bytes: bytes + growth });
  }

  /** @returns the bytes that went */
  #shed(
    bucket: string,
    choice: "deletions" | "all",
    wanted: Bytes,
    except: Entry | undefined,
  ): Bytes {
    let gone = 0;
    while (gone < wanted) {
      const oldest = this.#database.oldest(bucket, choice, 16);
      const mayGo = oldest.filter(({ revision }) => revision !== except?.revision);
      if (mayGo.length === 0) break;
      for (const { revision, bytes } of mayGo) {
        if (gone >= wanted) break;
        this.#forget(bucket, revision, bytes);
        gone += bytes;
      }
    }
    return gone;
  }

  #forget(bucket: string, revision: number, size: Bytes): void {
    this.#database.forget(bucket, revision);
    const { entries, bytes } = this.count(bucket);
    this.#counts.set(bucket, { entries: entries - 1, bytes: bytes - size });
    this.#floors.set(bucket, Math.max(this.floor(bucket), revision));
  }

  /**
   * Removes some of what is too old, in a transaction of its own.
   * @returns whether there may be more
   */
  expire(now: Milliseconds): boolean {
    return this.#inTransaction(() => {
      let left: number = retentionLimits.atOnce;
      for (const { name, age } of this.#buckets) {
        const { deletionAge } = retentionLimits;
        left -= this.#expire(name, "deletions", now - deletionAge, left);
        if (age !== "forever") left -= this.#expire(name, "all", now - age, left);
      }
      return left <= 0;
    });
  }

  #expire(
    bucket: string,
    choice: "deletions" | "all",
    before: Milliseconds,
    limit: number,
  ): number {
    let gone = 0;
    for (const { revision, bytes, clock } of this.#database.oldest(bucket, choice, limit)) {
      if (clock >= before) break;
      this.#forget(bucket, revision, bytes);
      gone += 1;
    }
    return gone;
  }

  /** Of the file system; a budget is counted by `excess` besides. */
  disk(): DiskUse {
    const { blocks, bavail, bfree, bsize } = statfsSync(this.#paths.folder);
    // What root alone may use is neither used nor free for us.
    return { total: (blocks - (bfree - bavail)) * bsize, free: bavail * bsize };
  }

  /** The bytes above nine tenths of the file system, or of the budget; none: 0. */
  excess(): Bytes {
    const { fullness } = retentionLimits;
    const { total, free } = this.disk();
    const ofDisk = total - free - total * fullness;
    const ofBudget = this.#budget === undefined ? 0 : this.#database.size - this.#budget * fullness;
    return Math.max(0, ofDisk, ofBudget);
  }

  /**
   * Removes some of the oldest expendable entries, of all buckets, and gives the room back.
   * @returns the bytes of entries that went; 0 when nothing is left that may
   */
  relieve(wanted: Bytes): Bytes {
    const expendable = this.#buckets.filter((bucket) => bucket.expendable);
    const gone = this.#inTransaction(() => {
      let sum = 0;
      for (let count = 0; count < retentionLimits.atOnce && sum < wanted; count += 1) {
        const candidates = expendable.flatMap(({ name }) =>
          this.#database.oldest(name, "all", 1).map((oldest) => ({ name, ...oldest })),
        );
        const [first] = candidates.toSorted((a, b) => a.clock - b.clock || a.revision - b.revision);
        if (first === undefined) break;
        this.#forget(first.name, first.revision, first.bytes);
        sum += first.bytes;
      }
      return sum;
    });
    if (gone > 0) this.#database.giveBack();
    return gone;
  }

  /** Whether there is anything that may go for the disk's sake. */
  hasExpendable(): boolean {
    return this.#buckets.some(({ name, expendable }) => {
      return expendable && this.count(name).entries > 0;
    });
  }

  /** Room for removing entries when the disk is full; made when there is enough, or not at all. */
  keepReserve(): void {
    const { reserveBytes } = retentionLimits;
    if (existsSync(this.#paths.reserve) || this.disk().free < reserveBytes) return;
    try {
      writeFileSync(this.#paths.reserve, new Uint8Array(reserveBytes), { mode: 0o600 });
    } catch (error) {
      this.giveReserve();
      if (!isNoRoom(error)) throw error;
    }
  }

  giveReserve(): void {
    rmSync(this.#paths.reserve, { force: true });
  }

  #inTransaction<T>(act: () => T): T {
    this.#database.begin();
    try {
      const result = act();
      this.#database.commit();
      return result;
    } catch (error) {
      this.#database.rollback();
      this.recount();
      throw error;
    }
  }
}
