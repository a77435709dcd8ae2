import type { Bytes, Milliseconds } from "../units/units.ts";
import {
  type BucketDefinition,
  type Entry,
  entryBytes,
  isOneKey,
  matchesPattern,
  type Revision,
  StoreError,
} from "./store.ts";

interface Kept {
  readonly entry: Entry;
  readonly bytes: Bytes;
  /** When it was written, on the clock by which things grow old. */
  readonly at: Milliseconds;
}

/** The entries of one bucket in memory, in the order of their revisions. */
export class MemoryTable {
  readonly #definition: BucketDefinition;
  readonly #kept = new Map<string, Kept>();
  #bytes = 0;
  #last: Revision;
  #floor: Revision;

  /** @param first nothing up to this revision is known here */
  constructor(definition: BucketDefinition, first: Revision) {
    this.#definition = definition;
    this.#last = first;
    this.#floor = first;
  }

  get bytes(): Bytes {
    return this.#bytes;
  }

  get entries(): number {
    return this.#kept.size;
  }

  get last(): Revision {
    return this.#last;
  }

  /** The highest revision that retention has removed. */
  get floor(): Revision {
    return this.#floor;
  }

  /** When the oldest entry was written. */
  get oldest(): Milliseconds | undefined {
    for (const { at } of this.#kept.values()) return at;
    return undefined;
  }

  get(key: string): Entry | undefined {
    return this.#kept.get(key)?.entry;
  }

  after(pattern: string, revision: Revision, limit: number): Entry[] {
    const found: Entry[] = [];
    if (isOneKey(pattern)) {
      // Of thousands of clients each watches a key of its own: none of them looks at all others.
      const one = this.get(pattern);
      return one !== undefined && one.revision > revision ? [one] : found;
    }
    for (const { entry } of this.#kept.values()) {
      if (entry.revision <= revision || !matchesPattern(entry.key, pattern)) continue;
      found.push(entry);
      if (found.length === limit) break;
    }
    return found;
  }

  /**
   * Takes an entry whose revision is above all others.
   * @throws StoreError full
   */
  put(entry: Entry, at: Milliseconds): void {
    const bytes = entryBytes(entry);
    const growth = bytes - (this.#kept.get(entry.key)?.bytes ?? 0);
    if (growth > 0) this.#makeRoom(growth, entry);
    this.#remove(entry.key);
    this.#kept.set(entry.key, { entry, bytes, at });
    this.#bytes += bytes;
    this.#last = entry.revision;
  }

  /** Removes what was written before this moment. */
  expire(before: Milliseconds): void {
    for (const [key, { at }] of this.#kept) {
      if (at >= before) return;
      this.#forget(key);
    }
  }

  #makeRoom(growth: Bytes, entry: Entry): void {
    const { size, expendable, name } = this.#definition;
    const isOver = () => this.#bytes + growth > size;
    if (!isOver()) return;
    this.#forgetWhile(isOver, (kept) => kept.entry.operation === "delete", entry.key);
    if (expendable) this.#forgetWhile(isOver, () => true, entry.key);
    if (isOver()) throw fullBucket(name, size);
  }

  #forgetWhile(isOver: () => boolean, mayGo: (kept: Kept) => boolean, except: string): void {
    for (const [key, kept] of this.#kept) {
      if (!isOver()) return;
      if (key !== except && mayGo(kept)) this.#forget(key);
    }
  }

  #forget(key: string): void {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    this.#floor = Math.max(this.#floor, kept.entry.revision);
    this.#remove(key);
  }

  #remove(key: string): void {
    this.#bytes -= this.#kept.get(key)?.bytes ?? 0;
    this.#kept.delete(key);
  }
}

/** The StoreError of a write that no room can be made for. */
export function fullBucket(name: string, size: Bytes): StoreError {
  const message =
    `The bucket ${name} has its ${size} bytes, and nothing in it may go. ` +
    "Give it a larger size in the configuration, or delete what it no longer needs.";
  return new StoreError(message, { kind: "full" });
}
