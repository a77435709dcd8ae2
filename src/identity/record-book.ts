import * as v from "valibot";
import { type Entry, type Revision, type Store, StoreError } from "../store/store.ts";
import { IdentityRefusal } from "./refusal.ts";

/** Attempts to write a record that others change too, or whose answer is lost. */
const MOST_ATTEMPTS = 16;

interface Kept<Record> {
  readonly record: Record;
  readonly revision: Revision;
}

export interface RecordBookOptions<Record> {
  readonly store: Store;
  readonly bucket: string;
  readonly schema: v.GenericSchema<unknown, Record>;
  readonly signal: AbortSignal;
  newWriteId(): string;
  /** A record has come, has changed, or is gone (undefined): by us, or by another. */
  onChange(key: string, record: Record | undefined): void | Promise<void>;
  /**
   * The record as it is to count, where somebody knows better than the store; the same one when
   * nobody does.
   */
  reconcile?(key: string, record: Record, revision: Revision): Promise<Record>;
  /**
   * The store was restored: everything was told anew.
   * @param putRight records that count otherwise than the store has them
   */
  onReset(putRight: number): void;
  onTrouble(message: string): void;
}

/** What a change decides: the record as it shall be ("same": as it is), and what comes of it. */
export interface Decision<Record, Result> {
  readonly record: Record | "same" | "gone";
  readonly result: Result;
  /** Done before the record is written, each time that it is tried. */
  readonly before?: () => Promise<void>;
}

/**
 * Records of one kind: a copy of a bucket in memory, that follows it, and changes that are written
 * with the revision that they were decided on. A write whose answer was lost is repeated with its
 * write id, so that it is never done twice.
 */
export class RecordBook<Record> {
  readonly #options: RecordBookOptions<Record>;
  #kept = new Map<string, Kept<Record>>();
  /** Keys whose record this version does not understand; nobody writes over them. */
  readonly #foreign = new Set<string>();
  /** Our own writes that the store's word of it still follows: what is older is late. */
  readonly #gone = new Map<string, Revision>();
  /** Keys that a restored store has not told yet: what it tells of them counts, however old. */
  readonly #unsure = new Set<string>();
  /** Keys whose record here counts, and is not the one that the store has. */
  readonly #putRight = new Set<string>();
  readonly #synced = Promise.withResolvers<void>();
  #following: Promise<void> = Promise.resolve();

  private constructor(options: RecordBookOptions<Record>) {
    this.#options = options;
  }

  /** Returns when all records are here. @throws StoreError */
  static async open<Record>(options: RecordBookOptions<Record>): Promise<RecordBook<Record>> {
    const book = new RecordBook(options);
    book.#following = book.#follow();
    await book.#synced.promise;
    return book;
  }

  get(key: string): Record | undefined {
    return this.#kept.get(key)?.record;
  }

  /** Of the record that is here; 0 when there is none. */
  revisionOf(key: string): Revision {
    return this.#kept.get(key)?.revision ?? 0;
  }

  get size(): number {
    return this.#kept.size;
  }

  entries(): readonly (readonly [string, Record])[] {
    return [...this.#kept]
      .map(([key, { record }]) => [key, record] as const)
      .toSorted(([left], [right]) => (left < right ? -1 : 1));
  }

  /** Records that count otherwise than the store has them. */
  get putRight(): number {
    return this.#putRight.size;
  }

  /** Has the store have them as they count. @throws IdentityRefusal as `change` */
  async writePutRight(): Promise<void> {
    for (const key of [...this.#putRight]) {
      await this.change(key, (record) => ({ record: record ?? "same", result: undefined }));
    }
  }

  /** Returns when nothing follows the bucket any more. */
  async closed(): Promise<void> {
    await this.#following;
  }

  /**
   * Decides on the record that is there, and writes what was decided; again when somebody else was
   * faster. Durable when it returns.
   * @throws IdentityRefusal contended, full, unavailable; whatever `decide` throws
   */
  async change<Result>(
    key: string,
    decide: (present: Record | undefined) => Decision<Record, Result>,
  ): Promise<Result> {
    for (let attempt = 0; attempt < MOST_ATTEMPTS; attempt += 1) {
      if (this.#foreign.has(key)) throw this.#foreignRefusal(key);
      const kept = this.#kept.get(key);
      const decision = decide(kept?.record);
      await decision.before?.();
      if (decision.record === "same") return decision.result;
      if (await this.#write(key, decision.record, kept?.revision ?? 0)) return decision.result;
    }
    throw new IdentityRefusal("contended", {
      expected: `to write ${key} in ${MOST_ATTEMPTS} attempts`,
      received: "a change by somebody else each time",
    });
  }

  /** @returns the revision with which the record was written, whatever was there */
  async put(key: string, record: Record): Promise<Revision> {
    const writeId = this.#options.newWriteId();
    const text = JSON.stringify(record);
    const revision = await this.#repeat(() => {
      return this.#options.store.put(this.#options.bucket, key, text, { writeId });
    });
    await this.#keep(key, { record, revision });
    return revision;
  }

  /** @returns false when another write came before it; the copy here is then as the store has it */
  async #write(key: string, record: Record | "gone", expect: Revision): Promise<boolean> {
    const { store, bucket } = this.#options;
    const options = { writeId: this.#options.newWriteId(), expect };
    const text = record === "gone" ? "" : JSON.stringify(record);
    try {
      const revision = await this.#repeat(() => {
        return record === "gone"
          ? store.delete(bucket, key, options)
          : store.put(bucket, key, text, options);
      });
      this.#putRight.delete(key);
      if (record === "gone") this.#gone.set(key, revision);
      await this.#keep(key, record === "gone" ? undefined : { record, revision });
      return true;
    } catch (error) {
      if (!(error instanceof StoreError) || error.problem.kind !== "conflict") throw error;
    }
    const entry = await this.#repeat(() => store.get(bucket, key));
    // It is the latest, whatever was known: a restored store has older ones.
    if (this.#kept.get(key)?.revision !== entry?.revision) this.#unsure.add(key);
    if (entry === undefined) await this.#keep(key, undefined);
    else await this.#take(entry);
    this.#unsure.delete(key);
    return entry?.writeId === options.writeId;
  }

  /** An ambiguous write is repeated: with its write id it lands once. */
  async #repeat<Result>(act: () => Promise<Result>): Promise<Result> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await act();
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        if (error.problem.kind === "ambiguous" && attempt < MOST_ATTEMPTS) continue;
        if (error.problem.kind === "conflict") throw error;
        throw unavailable(error);
      }
    }
  }

  async #follow(): Promise<void> {
    const { store, bucket, signal, onReset, onTrouble } = this.#options;
    try {
      let fresh: Set<string> | undefined;
      for await (const event of store.watch(bucket, "", { signal })) {
        switch (event.kind) {
          case "entry":
            fresh?.add(event.entry.key);
            await this.#take(event.entry);
            break;
          case "reset":
            fresh = new Set();
            this.#gone.clear();
            this.#foreign.clear();
            for (const key of this.#kept.keys()) this.#unsure.add(key);
            break;
          case "synced":
            if (fresh !== undefined) await this.#forgetAllBut(fresh);
            if (fresh !== undefined) onReset(this.#putRight.size);
            fresh = undefined;
            this.#unsure.clear();
            this.#synced.resolve();
            break;
        }
      }
      // Whoever waits for the first list would wait for ever; later nobody listens any more.
      this.#synced.reject(new Error(`The store was closed while ${bucket} was read`));
      if (!signal.aborted) onTrouble(`nobody tells of ${bucket} any more: the store was closed`);
    } catch (error) {
      this.#synced.reject(error);
      if (!signal.aborted) onTrouble(`cannot follow ${bucket}: ${(error as Error).message}`);
    }
  }

  async #forgetAllBut(fresh: ReadonlySet<string>): Promise<void> {
    for (const key of [...this.#unsure]) {
      if (!fresh.has(key)) await this.#keep(key, undefined);
    }
  }

  async #take(entry: Entry): Promise<void> {
    const { schema, bucket, onTrouble } = this.#options;
    const { key, revision } = entry;
    // Our own write, or one before it, whose word comes late.
    const known = this.#kept.get(key)?.revision ?? this.#gone.get(key) ?? 0;
    if (!this.#unsure.has(key) && revision <= known) {
      if (revision === known) this.#gone.delete(key);
      return;
    }
    if (entry.operation === "delete") {
      this.#foreign.delete(entry.key);
      await this.#keep(entry.key, undefined);
      return;
    }
    const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), entry.value);
    if (parsed.success) {
      this.#foreign.delete(entry.key);
      const record = await this.#reconcile(key, parsed.output, revision);
      await this.#keep(key, { record, revision });
      return;
    }
    this.#foreign.add(entry.key);
    await this.#keep(entry.key, undefined);
    onTrouble(`${bucket}/${entry.key} is a record of another version, or damaged; left as it is`);
  }

  async #reconcile(key: string, told: Record, revision: Revision): Promise<Record> {
    const record = (await this.#options.reconcile?.(key, told, revision)) ?? told;
    if (record === told) this.#putRight.delete(key);
    else this.#putRight.add(key);
    return record;
  }

  async #keep(key: string, kept: Kept<Record> | undefined): Promise<void> {
    this.#unsure.delete(key);
    if (kept === undefined) this.#putRight.delete(key);
    if (kept === undefined) this.#kept.delete(key);
    else this.#kept.set(key, kept);
    await this.#options.onChange(key, kept?.record);
  }

  #foreignRefusal(key: string): IdentityRefusal {
    return new IdentityRefusal("unavailable", {
      expected: "a record of version 1",
      received: `another one at ${this.#options.bucket}/${key}`,
    });
  }
}

function unavailable(cause: StoreError): IdentityRefusal {
  const what = { expected: "that the store takes the change", received: cause.problem.kind };
  const kind = cause.problem.kind === "full" ? "full" : "unavailable";
  return new IdentityRefusal(kind, what, { cause });
}
