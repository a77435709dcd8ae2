import type { Milliseconds } from "../units/units.ts";
import { admit } from "./admission.ts";
import { linkWhile } from "./link.ts";
import { MemoryTable } from "./memory-table.ts";
import {
  type BucketDefinition,
  type Capabilities,
  checkKey,
  checkWrite,
  type Entry,
  type LinkState,
  type PutOptions,
  type Revision,
  refused,
  type Store,
  StoreError,
  type WatchEvent,
  type WatchOptions,
} from "./store.ts";
import { WatchHub } from "./watch-hub.ts";

export interface MemoryStoreOptions {
  readonly buckets: readonly BucketDefinition[];
  /** The wall clock, in milliseconds since 1970. */
  readonly wallClock?: () => Milliseconds;
}

/** A store that is gone with its process: for tests. Its buckets have sizes, and no age. */
export class MemoryStore implements Store {
  readonly capabilities: Capabilities = { acknowledgement: "memory", server: "memory" };
  readonly #tables: ReadonlyMap<string, MemoryTable>;
  readonly #wallClock: () => Milliseconds;
  readonly #hub: WatchHub;
  readonly #closed = new AbortController();
  #revision: Revision = 0;

  constructor(options: MemoryStoreOptions) {
    this.#tables = new Map(options.buckets.map((each) => [each.name, new MemoryTable(each, 0)]));
    this.#wallClock = options.wallClock ?? Date.now;
    this.#hub = new WatchHub({
      after: (bucket, pattern, revision, limit) =>
        this.#table(bucket).after(pattern, revision, limit),
      last: (bucket) => this.#table(bucket).last,
      floor: (bucket) => this.#table(bucket).floor,
      vouchesFor: (bucket, since) => since >= this.#table(bucket).floor && since <= this.#revision,
    });
  }

  async get(bucket: string, key: string): Promise<Entry | undefined> {
    this.#checkOpen();
    checkKey(bucket, key);
    return this.#table(bucket).get(key);
  }

  async put(bucket: string, key: string, value: string, options: PutOptions): Promise<Revision> {
    return this.#write({ bucket, key, operation: "put", value }, options);
  }

  async delete(bucket: string, key: string, options: PutOptions): Promise<Revision> {
    return this.#write({ bucket, key, operation: "delete", value: "" }, options);
  }

  watch(bucket: string, pattern: string, options?: WatchOptions): AsyncIterable<WatchEvent> {
    this.#table(bucket);
    return this.#hub.watch(bucket, pattern, options);
  }

  link(signal: AbortSignal): AsyncIterable<LinkState> {
    return linkWhile(this.#closed.signal, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort();
    this.#hub.close();
  }

  #write(
    what: Pick<Entry, "bucket" | "key" | "operation" | "value">,
    options: PutOptions,
  ): Revision {
    this.#checkOpen();
    checkWrite({ ...what, options });
    const table = this.#table(what.bucket);
    const admission = admit(table.get(what.key), options);
    if (admission.kind === "repetition") return admission.revision;
    if (admission.kind === "conflict") throw conflict(what, admission.received);
    const time = this.#wallClock();
    const entry = { ...what, revision: this.#revision + 1, writeId: options.writeId, time };
    table.put(entry, time);
    this.#revision = entry.revision;
    this.#hub.publish([entry]);
    return entry.revision;
  }

  #table(bucket: string): MemoryTable {
    const table = this.#tables.get(bucket);
    if (table === undefined) throw unknownBucket(bucket, [...this.#tables.keys()]);
    return table;
  }

  #checkOpen(): void {
    if (this.#closed.signal.aborted) throw closedStore();
  }
}

/** The StoreError of a write that expected another revision. */
export function conflict(
  { bucket, key }: { readonly bucket: string; readonly key: string },
  received: Revision,
): StoreError {
  const message = `The key ${key} of ${bucket} has revision ${received}, and not the expected one.`;
  return new StoreError(message, { kind: "conflict", received });
}

/** The StoreError of a bucket that nobody defined. */
export function unknownBucket(bucket: string, known: readonly string[]): StoreError {
  return refused(`a bucket of ${known.join(", ")}`, JSON.stringify(bucket.slice(0, 64)));
}

export function closedStore(): StoreError {
  return new StoreError("The store was closed.", { kind: "unavailable" });
}
