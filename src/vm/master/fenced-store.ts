import type { OneWrite } from "../../store/put-once.ts";
import {
  type Entry,
  type PutOptions,
  type Revision,
  type Store,
  StoreError,
  type WatchEvent,
  type WatchOptions,
} from "../../store/store.ts";
import type { MasterStore } from "./master.ts";
import { masterBucket } from "./records.ts";

/** Writes of one entry that a master who is no more has overtaken; then something else is wrong. */
const MOST_ADOPTIONS = 16;

export interface FencedParts {
  readonly store: Pick<Store, "get" | "put" | "delete" | "watch">;
  /** Keys that are not a master's, and are left alone. */
  readonly isOther: (key: string) => boolean;
  /** Added to each revision: see TermEntry. */
  readonly jump: number;
  readonly isActing: () => boolean;
  /** Somebody else has written: what is known here may be another's by now. */
  readonly onOvertaken: (key: string) => void;
  /** Writes until it has landed once: `putOnce`. */
  readonly write: (write: OneWrite) => Promise<Revision>;
}

/**
 * A shared store for the one master that acts: each write is for the revision that this master
 * knows of its key, and lands nowhere else. Before it acts it writes all entries once more as they
 * are, so that no write of the master before it, however late it comes, finds the revision that it
 * is for.
 */
export class FencedStore implements MasterStore {
  readonly #parts: FencedParts;
  /** Of each key that is there. */
  readonly #revisions = new Map<string, Revision>();

  constructor(parts: FencedParts) {
    this.#parts = parts;
  }

  /**
   * Takes over what is there.
   * @throws StoreError
   */
  async adopt(): Promise<void> {
    const entries: Entry[] = [];
    for await (const event of this.watch(masterBucket.name, "")) {
      if (event.kind === "synced") break;
      if (event.kind === "reset") entries.length = 0;
      else if (event.entry.operation === "put") entries.push(event.entry);
    }
    // The latest of each key alone may be told twice, when it changed meanwhile.
    const latest = new Map(entries.map((entry) => [entry.key, entry]));
    for (const entry of latest.values()) {
      if (!this.#parts.isOther(entry.key)) await this.#adoptOne(entry);
    }
  }

  async #adoptOne(found: Entry): Promise<void> {
    const { store, isActing, write } = this.#parts;
    const { bucket, key } = found;
    let entry: Entry | undefined = found;
    for (let attempt = 1; entry?.operation === "put"; attempt += 1) {
      if (!isActing()) throw notActing(key);
      const { value, revision: expect } = entry;
      try {
        this.#revisions.set(key, await write({ bucket, key, value, expect }));
        return;
      } catch (error) {
        // The last write of the master before it, which came first.
        if (!isConflict(error) || attempt >= MOST_ADOPTIONS) throw error;
        entry = await store.get(bucket, key);
      }
    }
    this.#revisions.delete(key);
  }

  /** As the store's, and remembers the revisions. */
  async *watch(
    bucket: string,
    pattern: string,
    options?: WatchOptions,
  ): AsyncGenerator<WatchEvent> {
    for await (const event of this.#parts.store.watch(bucket, pattern, options)) {
      if (event.kind === "reset") this.#revisions.clear();
      if (event.kind === "entry") this.#remember(event.entry);
      yield event;
    }
  }

  #remember({ key, operation, revision }: Entry): void {
    if (operation === "put") this.#revisions.set(key, revision);
    else this.#revisions.delete(key);
  }

  async put(bucket: string, key: string, value: string, options: PutOptions): Promise<Revision> {
    const { store } = this.#parts;
    const revision = await this.#write(key, options, (fenced) =>
      store.put(bucket, key, value, fenced),
    );
    this.#revisions.set(key, revision);
    return revision + this.#parts.jump;
  }

  async delete(bucket: string, key: string, options: PutOptions): Promise<Revision> {
    const { store } = this.#parts;
    const revision = await this.#write(key, options, (fenced) => store.delete(bucket, key, fenced));
    this.#revisions.delete(key);
    return revision + this.#parts.jump;
  }

  async #write(
    key: string,
    options: PutOptions,
    write: (fenced: PutOptions) => Promise<Revision>,
  ): Promise<Revision> {
    const { isActing, onOvertaken } = this.#parts;
    if (!isActing()) throw notActing(key);
    try {
      return await write({ ...options, expect: this.#revisions.get(key) ?? 0 });
    } catch (error) {
      if (isConflict(error)) onOvertaken(key);
      throw error;
    }
  }
}

const notActing = (key: string) =>
  new StoreError(`Cannot write ${key}: this master does not act`, { kind: "unavailable" });

function isConflict(error: unknown): boolean {
  return error instanceof StoreError && error.problem.kind === "conflict";
}
