import type { Bytes, Milliseconds } from "../units/units.ts";

/**
 * What every networked role remembers: entries by bucket and key, the latest of each. Memory, the
 * embedded database and NATS JetStream KV stand behind it, and one conformance suite holds them to
 * the same behaviour.
 */
export interface Store extends AsyncDisposable {
  readonly capabilities: Capabilities;
  /**
   * @returns the latest entry of a key, a deletion too; undefined when there never was one, or
   *   retention has removed it
   * @throws StoreError unavailable, denied
   */
  get(bucket: string, key: string): Promise<Entry | undefined>;
  /**
   * Durable when it returns, unless the bucket is volatile.
   * @throws StoreError conflict, ambiguous, denied, unavailable, refused, full
   */
  put(bucket: string, key: string, value: string, options: PutOptions): Promise<Revision>;
  /**
   * Writes a deletion, which is an entry with a revision of its own.
   * @throws StoreError as `put`
   */
  delete(bucket: string, key: string, options: PutOptions): Promise<Revision>;
  /**
   * The latest entry of each key that matches, then `synced`, then what changes. Several changes
   * of one key may be told as one, the latest. `reset`: what was told before no longer holds
   * (the store was restored, or was away for longer than it remembers); everything follows anew,
   * up to the next `synced`. It ends with `signal`, or with the store, alone: while the store is
   * away it waits. A first list may leave out deletions. What retention removes is told by no
   * event: who watches a bucket with bounds keeps bounds of its own.
   * @param pattern "" for all keys, "a.b" for one, "a.b." for those that begin so
   * @throws StoreError refused, denied; unavailable when there are too many watchers
   */
  watch(bucket: string, pattern: string, options?: WatchOptions): AsyncIterable<WatchEvent>;
  /** How the link to the store is, from now on, the present state first. */
  link(signal: AbortSignal): AsyncIterable<LinkState>;
}

/**
 * Rises with every write of the store, in all buckets; never used again, not even after a restore
 * of an older backup.
 */
export type Revision = number & { readonly what?: "revision" };

export interface Entry {
  readonly bucket: string;
  readonly key: string;
  readonly revision: Revision;
  readonly operation: "put" | "delete";
  /** UTF-8; "" for a deletion. */
  readonly value: string;
  /** Who wrote this entry can tell by it that its own write landed. */
  readonly writeId: string;
  /** The store's wall clock when it was written, in milliseconds since 1970: never to decide by. */
  readonly time: Milliseconds;
}

export interface PutOptions {
  /** 128 bits of chance at least, a new one for each write, the same for its repetition. */
  readonly writeId: string;
  /**
   * The revision that the key must have now: 0 for a key that must not be there (never, or
   * deleted). Absent: whatever it has. A repetition with the write id of the entry that is there
   * is answered with that entry's revision, whatever it expects. Without it a repetition may come
   * after another's write, and take its place: a key without `expect` has one writer.
   */
  readonly expect?: Revision;
}

export interface WatchOptions {
  /**
   * Entries up to this revision are known, and not told again: of a `synced`, or of the last entry
   * that was told behind it. One that the store cannot answer for is answered with `reset`.
   */
  readonly since?: Revision;
  readonly signal?: AbortSignal;
}

export type WatchEvent =
  | { readonly kind: "entry"; readonly entry: Entry }
  | { readonly kind: "synced"; readonly revision: Revision }
  | { readonly kind: "reset" };

/** stale: connected, but no word came for longer than it should. */
export type LinkState = "up" | "down" | "stale";

export interface Capabilities {
  /**
   * When a write is acknowledged: after fsync; when a majority of three or more servers has it,
   * each up to an interval before its fsync; or up to an interval before it.
   */
  readonly acknowledgement: "fsync" | "replicated" | "interval" | "memory" | "unknown";
  readonly server: string;
}

/** How entries of a bucket are kept; every bucket has bounds. */
export interface BucketDefinition {
  readonly name: string;
  /**
   * Entries that were not written for so long go; a bucket of facts has "forever". The embedded
   * store counts the time that it ran itself, so that no wall clock can make it forget.
   */
  readonly age: Milliseconds | "forever";
  /**
   * Bytes of keys and values. Over it deletions go first, the oldest before others; then, of an
   * expendable bucket, the oldest entries. Where nothing may go, a write is refused: `full`.
   */
  readonly size: Bytes;
  /** May lose its oldest entries when the disk fills; commits, verdicts and the like may not. */
  readonly expendable: boolean;
  /** Skips the disk: heartbeats and the like, gone with the store's process. */
  readonly volatile: boolean;
}

export type StoreProblem =
  /** The key has another revision than the one that was expected. */
  | { readonly kind: "conflict"; readonly received: Revision }
  /** It may have landed or not: read back, and compare the write id. */
  | { readonly kind: "ambiguous" }
  | { readonly kind: "denied" }
  | { readonly kind: "unavailable" }
  /** The key, the value or the bucket is not one that a store takes. */
  | { readonly kind: "refused"; readonly expected: string; readonly received: string }
  /** No room on the disk, or in a bucket that may lose nothing. Nothing was written. */
  | { readonly kind: "full" }
  /** What is stored is not what was written: nothing is answered until a backup is restored. */
  | { readonly kind: "damaged" };

/** A store did not do what it was asked. */
export class StoreError extends Error {
  override readonly name = "StoreError";
  readonly problem: StoreProblem;

  constructor(message: string, problem: StoreProblem, options?: ErrorOptions) {
    super(message, options);
    this.problem = problem;
  }
}

export const storeLimits = {
  /** Bytes of a key: what a subject of NATS can hold beside its prefix. */
  keyBytes: 200,
  /** Bytes of a value: half of what NATS takes by default. */
  valueBytes: 512 * 1024,
  bucketBytes: 48,
  writeIdBytes: 64,
} as const;

/** Words of letters, digits, "-" and "_" with dots between them: what all stores take. */
export function isKey(text: string): boolean {
  return text.length <= storeLimits.keyBytes && /^[\w-]+(\.[\w-]+)*$/.test(text);
}

export function isBucket(text: string): boolean {
  return text.length <= storeLimits.bucketBytes && /^[a-z][a-z0-9-]*$/.test(text);
}

/** What `watch` takes: "", a key, or the beginning of one up to a dot. */
export function isPattern(text: string): boolean {
  return text === "" || isKey(text.endsWith(".") ? text.slice(0, -1) : text);
}

export function isWriteId(text: string): boolean {
  return /^[\w-]+$/.test(text) && text.length <= storeLimits.writeIdBytes;
}

/** @returns whether a key matches a pattern of `watch` */
export function matchesPattern(key: string, pattern: string): boolean {
  return isOneKey(pattern) ? key === pattern : key.startsWith(pattern);
}

/** Whether a pattern is a key, and nothing but that key matches it. */
export function isOneKey(pattern: string): boolean {
  return pattern !== "" && !pattern.endsWith(".");
}

/** UTF-8 of key and value: what a bucket's size counts. */
export function entryBytes(entry: { readonly key: string; readonly value: string }): Bytes {
  return entry.key.length + Buffer.byteLength(entry.value);
}

/** A write as it comes in. */
export interface Write {
  readonly bucket: string;
  readonly key: string;
  readonly value: string;
  readonly options: PutOptions;
}

/** @throws StoreError refused, for what no store takes */
export function checkWrite(write: Write): void {
  checkKey(write.bucket, write.key);
  const { writeId, expect } = write.options;
  if (!isWriteId(writeId)) {
    throw refused(`letters, digits, "-" and "_", up to ${storeLimits.writeIdBytes}`, "a write id");
  }
  if (expect !== undefined && !(Number.isSafeInteger(expect) && expect >= 0)) {
    throw refused("a revision, or 0", `expect ${expect}`);
  }
  const bytes = Buffer.byteLength(write.value);
  if (bytes > storeLimits.valueBytes) {
    throw refused(`a value of at most ${storeLimits.valueBytes} bytes`, `one of ${bytes}`);
  }
  if (!write.value.isWellFormed()) throw refused("text", "half of a surrogate pair");
}

/** @throws StoreError refused */
export function checkKey(bucket: string, key: string): void {
  checkBucket(bucket);
  if (!isKey(key)) throw refused("words with dots between them as the key", quote(key));
}

/** @throws StoreError refused */
export function checkPattern(bucket: string, pattern: string): void {
  checkBucket(bucket);
  if (!isPattern(pattern)) {
    throw refused('a key, the beginning of one with its dot, or ""', quote(pattern));
  }
}

function checkBucket(bucket: string): void {
  if (!isBucket(bucket)) throw refused('lower-case letters, digits and "-"', quote(bucket));
}

/** A StoreError for what the caller has to change. */
export function refused(expected: string, received: string): StoreError {
  const message = `The store refuses this: expected ${expected}, received ${received}.`;
  return new StoreError(message, { kind: "refused", expected, received });
}

const quote = (text: string) => JSON.stringify(text.slice(0, 64));
