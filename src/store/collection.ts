import * as v from "valibot";
import {
  type Entry,
  type PutOptions,
  type Revision,
  refused,
  type Store,
  StoreError,
  type WatchOptions,
} from "./store.ts";

/**
 * The bucket in which a store says which version of each collection has been committed; a store
 * with collections has it.
 */
export const metaBucket = {
  name: "meta",
  age: "forever",
  size: 1024 ** 2,
  expendable: false,
  volatile: false,
} as const;

type Schema = v.GenericSchema<unknown, unknown>;

/**
 * The two versions of a collection that a binary knows: N, in which the program thinks, and N-1,
 * which it reads, and writes until the upgrade is committed. The first version has no former one.
 */
export interface CollectionVersions<Now extends Schema, Former extends Schema> {
  readonly version: number;
  readonly schema: Now;
  readonly former?: {
    readonly schema: Former;
    /** From N-1 to N. */
    readonly up: (value: v.InferOutput<Former>) => v.InferOutput<Now>;
    /** From N to N-1: what N-1 cannot say is left out, and must not be needed before N. */
    readonly down: (value: v.InferOutput<Now>) => v.InferOutput<Former>;
  };
}

export interface CollectionDefinition<Now extends Schema, Former extends Schema>
  extends CollectionVersions<Now, Former> {
  readonly bucket: string;
}

/** An entry with its value understood; undefined for a deletion. */
export interface TypedEntry<Value> extends Omit<Entry, "value"> {
  readonly value: Value | undefined;
}

export type CollectionEvent<Value> =
  | { readonly kind: "entry"; readonly entry: TypedEntry<Value> }
  | { readonly kind: "unreadable"; readonly entry: Entry; readonly problem: ValueUnreadable }
  | { readonly kind: "synced"; readonly revision: Revision }
  | { readonly kind: "reset" };

/** A stored value that this binary does not understand. */
export class ValueUnreadable extends Error {
  override readonly name = "ValueUnreadable";
  readonly expected: string;
  readonly received: string;

  constructor(
    place: { readonly bucket: string; readonly key: string },
    problem: { readonly expected: string; readonly received: string },
  ) {
    const { expected, received } = problem;
    const where = `${place.key} of ${place.bucket}`;
    super(`Cannot read ${where}: expected ${expected}, received ${received}.`);
    this.expected = expected;
    this.received = received;
  }
}

/** How a value is stored: its version, and the value in it. */
const envelopeSchema = v.strictObject({
  version: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  value: v.unknown(),
});

const committedSchema = v.strictObject({ version: v.pipe(v.number(), v.safeInteger()) });

/** Says what a collection holds. @throws Error for versions that cannot be: a bug */
export function defineCollection<Now extends Schema, Former extends Schema = never>(
  definition: CollectionDefinition<Now, Former>,
): CollectionDefinition<Now, Former> {
  const { bucket, version, former } = definition;
  if (version < 1 || version > 1 !== (former !== undefined)) {
    throw new Error(`Bug: the collection ${bucket} has version ${version} without a former one`);
  }
  return definition;
}

/** Typed values over a bucket of a store. */
export class Collection<Now extends Schema, Former extends Schema> {
  readonly #store: Store;
  readonly #definition: CollectionDefinition<Now, Former>;
  #committed: number;

  private constructor(
    store: Store,
    definition: CollectionDefinition<Now, Former>,
    committed: number,
  ) {
    this.#store = store;
    this.#definition = definition;
    this.#committed = committed;
  }

  /**
   * Reads which version is committed; in a store without the collection, the present one is.
   * @throws StoreError; ValueUnreadable when a version is committed that this binary does not know
   */
  static async open<Now extends Schema, Former extends Schema>(
    store: Store,
    definition: CollectionDefinition<Now, Former>,
  ): Promise<Collection<Now, Former>> {
    const committed = await readCommitted(store, definition);
    const { version } = definition;
    if (committed !== undefined) return new Collection(store, definition, committed);
    const isNew = await isEmpty(store, definition.bucket);
    // Of a time before versions were committed, which only the first one was.
    const first = isNew ? version : 1;
    checkKnown(definition, first);
    await writeCommitted(store, definition, { version: first, expect: 0 });
    return new Collection(store, definition, (await readCommitted(store, definition)) ?? first);
  }

  /** The version that is written. */
  get committed(): number {
    return this.#committed;
  }

  /** @throws StoreError, ValueUnreadable */
  async get(key: string): Promise<TypedEntry<v.InferOutput<Now>> | undefined> {
    const entry = await this.#store.get(this.#definition.bucket, key);
    return entry === undefined ? undefined : this.#read(entry);
  }

  /** @throws StoreError; refused also for a value that its schema refuses */
  async put(key: string, value: v.InferOutput<Now>, options: PutOptions): Promise<Revision> {
    const text = this.encode(value);
    return await this.#store.put(this.#definition.bucket, key, text, options);
  }

  /** @throws StoreError */
  async delete(key: string, options: PutOptions): Promise<Revision> {
    return await this.#store.delete(this.#definition.bucket, key, options);
  }

  /**
   * As the store's; one value that cannot be read is told as such, and the others follow.
   * @throws StoreError
   */
  async *watch(
    pattern: string,
    options?: WatchOptions,
  ): AsyncGenerator<CollectionEvent<v.InferOutput<Now>>, void> {
    for await (const event of this.#store.watch(this.#definition.bucket, pattern, options)) {
      if (event.kind === "entry") yield this.#readEvent(event.entry);
      else yield event;
    }
  }

  /**
   * Takes version N into use, for good: who knows N-1 alone cannot read what is written from now
   * on. All who write the collection know N by then; one that runs learns of it by `refresh`.
   * @throws StoreError
   */
  async commit(): Promise<void> {
    await this.refresh();
    const { version, bucket } = this.#definition;
    if (this.#committed === version) return;
    const present = await this.#store.get(metaBucket.name, metaKey(bucket));
    const expect = present?.revision ?? 0;
    await writeCommitted(this.#store, this.#definition, { version, expect });
    this.#committed = version;
  }

  /** Reads again which version is committed. @throws StoreError, ValueUnreadable */
  async refresh(): Promise<void> {
    this.#committed = (await readCommitted(this.#store, this.#definition)) ?? this.#committed;
  }

  /** A value as it is written now. @throws StoreError refused */
  encode(value: v.InferOutput<Now>): string {
    const { schema, version, former } = this.#definition;
    const checked = checkValue(schema, value);
    if (this.#committed === version || former === undefined) {
      return JSON.stringify({ version, value: checked });
    }
    const lower = checkValue(former.schema, former.down(checked as v.InferOutput<Now>));
    return JSON.stringify({ version: version - 1, value: lower });
  }

  #readEvent(entry: Entry): CollectionEvent<v.InferOutput<Now>> {
    try {
      return { kind: "entry", entry: this.#read(entry) };
    } catch (problem) {
      if (problem instanceof ValueUnreadable) return { kind: "unreadable", entry, problem };
      throw problem;
    }
  }

  #read(entry: Entry): TypedEntry<v.InferOutput<Now>> {
    const value = entry.operation === "delete" ? undefined : decode(this.#definition, entry);
    return { ...entry, value };
  }
}

/** @throws ValueUnreadable */
function decode<Now extends Schema, Former extends Schema>(
  definition: CollectionDefinition<Now, Former>,
  entry: Entry,
): v.InferOutput<Now> {
  const envelope = v.safeParse(envelopeSchema, parseJson(entry.value));
  if (!envelope.success) {
    throw unreadable(entry, "a version and a value", "something else");
  }
  const { version, value } = envelope.output;
  if (version === definition.version) return parseValue(definition.schema, value, entry);
  const { former } = definition;
  if (former === undefined || version !== definition.version - 1) {
    throw unreadable(entry, `a value of ${versionsOf(definition)}`, `version ${version}`);
  }
  return former.up(parseValue(former.schema, value, entry));
}

function parseValue<T extends Schema>(schema: T, value: unknown, entry: Entry): v.InferOutput<T> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const at = v.getDotPath(issue) ?? "the value";
  throw unreadable(entry, `${at} to be ${issue.expected ?? "valid"}`, issue.received);
}

function unreadable(entry: Entry, expected: string, received: string): ValueUnreadable {
  return new ValueUnreadable(entry, { expected, received });
}

function checkValue(schema: Schema, value: unknown): unknown {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const at = v.getDotPath(issue) ?? "the value";
  throw refused(`${at} to be ${issue.expected ?? "valid"}`, issue.received);
}

const metaKey = (bucket: string) => `collection.${bucket}`;

async function readCommitted<Now extends Schema, Former extends Schema>(
  store: Store,
  definition: CollectionDefinition<Now, Former>,
): Promise<number | undefined> {
  const entry = await store.get(metaBucket.name, metaKey(definition.bucket));
  if (entry === undefined || entry.operation === "delete") return undefined;
  const { version } = parseValue(committedSchema, parseJson(entry.value), entry);
  checkKnown(definition, version);
  return version;
}

/** @throws ValueUnreadable */
function checkKnown<Now extends Schema, Former extends Schema>(
  definition: CollectionDefinition<Now, Former>,
  version: number,
): void {
  const { version: present, bucket } = definition;
  if (version === present || version === present - 1) return;
  const expected = `${versionsOf(definition)} (upgrade one version after the other)`;
  const key = metaKey(bucket);
  throw new ValueUnreadable({ bucket, key }, { expected, received: `version ${version}` });
}

function versionsOf(definition: { readonly version: number }): string {
  const { version } = definition;
  return version === 1 ? "version 1" : `version ${version - 1} or ${version}`;
}

async function writeCommitted(
  store: Store,
  definition: { readonly bucket: string },
  write: { readonly version: number; readonly expect: Revision },
): Promise<void> {
  const { version, expect } = write;
  const value = JSON.stringify({ version });
  // The same for all who write the same: whoever comes second repeats.
  const writeId = `${definition.bucket}-${version}-${expect}`;
  try {
    await store.put(metaBucket.name, metaKey(definition.bucket), value, { writeId, expect });
  } catch (error) {
    // Another one was quicker, and may have said something else: whoever called reads it.
    const isConflict = error instanceof StoreError && error.problem.kind === "conflict";
    if (!isConflict || expect !== 0) throw error;
  }
}

async function isEmpty(store: Store, bucket: string): Promise<boolean> {
  for await (const event of store.watch(bucket, "")) {
    if (event.kind === "synced") return true;
    if (event.kind === "entry" && event.entry.operation === "put") return false;
  }
  return true;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
