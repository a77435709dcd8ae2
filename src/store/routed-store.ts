import type {
  Capabilities,
  Entry,
  LinkState,
  PutOptions,
  Revision,
  Store,
  WatchEvent,
  WatchOptions,
} from "./store.ts";

/** Several stores as one: each bucket is in one of them. Its link is the usual one's. */
export class RoutedStore implements Store {
  readonly #usual: Store;
  readonly #storeOf: (bucket: string) => Store | undefined;

  /** @param storeOf undefined: the bucket is in the usual one */
  constructor(usual: Store, storeOf: (bucket: string) => Store | undefined) {
    this.#usual = usual;
    this.#storeOf = storeOf;
  }

  get capabilities(): Capabilities {
    return this.#usual.capabilities;
  }

  get(bucket: string, key: string): Promise<Entry | undefined> {
    return this.#of(bucket).get(bucket, key);
  }

  put(bucket: string, key: string, value: string, options: PutOptions): Promise<Revision> {
    return this.#of(bucket).put(bucket, key, value, options);
  }

  delete(bucket: string, key: string, options: PutOptions): Promise<Revision> {
    return this.#of(bucket).delete(bucket, key, options);
  }

  watch(bucket: string, pattern: string, options?: WatchOptions): AsyncIterable<WatchEvent> {
    return this.#of(bucket).watch(bucket, pattern, options);
  }

  link(signal: AbortSignal): AsyncIterable<LinkState> {
    return this.#usual.link(signal);
  }

  /** They are whoever's opened them. */
  async [Symbol.asyncDispose](): Promise<void> {}

  #of(bucket: string): Store {
    return this.#storeOf(bucket) ?? this.#usual;
  }
}
