import type { Bytes } from "../../units/units.ts";
import type { Entry, Revision, WatchEvent } from "../store.ts";

/**
 * What a watch has to tell and nobody took yet: of each key the latest. Entries stand in the order
 * of their last change, so that whoever took one knows all up to its revision, once it is synced.
 */
export class WatchQueue {
  readonly #limit: Bytes;
  readonly #onOverflow: () => void;
  #isReset = false;
  /** Before the `synced` that waits; without one that waits, all entries. */
  #listed = new Map<string, Entry>();
  #synced: Revision | undefined;
  #changes = new Map<string, Entry>();
  #bytes: Bytes = 0;
  #ended = false;
  #failure: Error | undefined;
  #waiting: PromiseWithResolvers<void> | undefined;

  /** @param options.onOverflow more waited than may; all of it was dropped, and a reset waits */
  constructor(options: { readonly limit: Bytes; readonly onOverflow: () => void }) {
    this.#limit = options.limit;
    this.#onOverflow = options.onOverflow;
  }

  get bytes(): Bytes {
    return this.#bytes;
  }

  entry(entry: Entry): void {
    const into =
      this.#synced === undefined || this.#listed.has(entry.key) ? this.#listed : this.#changes;
    const former = into.get(entry.key);
    // Of what overtook another on two ways, the older one is worth nothing.
    if (former !== undefined && former.revision > entry.revision) return;
    if (former !== undefined) this.#bytes -= weightOf(former);
    into.delete(entry.key);
    into.set(entry.key, entry);
    this.#bytes += weightOf(entry);
    if (this.#bytes > this.#limit) {
      this.reset();
      this.#onOverflow();
    }
    this.#wake();
  }

  synced(revision: Revision): void {
    for (const [key, entry] of this.#changes) {
      this.#listed.delete(key);
      this.#listed.set(key, entry);
    }
    this.#changes.clear();
    this.#synced = revision;
    this.#wake();
  }

  /** What was told no longer holds, and what waits does not either. */
  reset(): void {
    this.#listed.clear();
    this.#changes.clear();
    this.#synced = undefined;
    this.#bytes = 0;
    this.#isReset = true;
    this.#wake();
  }

  /** After what waits nothing follows; with a failure, that is thrown then. */
  end(failure?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#failure = failure;
    this.#wake();
  }

  #wake(): void {
    this.#waiting?.resolve();
    this.#waiting = undefined;
  }

  take(): WatchEvent | undefined {
    if (this.#isReset) {
      this.#isReset = false;
      return { kind: "reset" };
    }
    const entry = shift(this.#listed);
    if (entry !== undefined) return this.#taken(entry);
    if (this.#synced !== undefined) {
      const revision = this.#synced;
      this.#synced = undefined;
      // From here on changes are all that there is.
      [this.#listed, this.#changes] = [this.#changes, this.#listed];
      return { kind: "synced", revision };
    }
    return undefined;
  }

  #taken(entry: Entry): WatchEvent {
    this.#bytes -= weightOf(entry);
    return { kind: "entry", entry };
  }

  /** Events as they are taken, until the end. @throws the failure that it ended with */
  async *events(): AsyncGenerator<WatchEvent, void> {
    for (;;) {
      const event = this.take();
      if (event !== undefined) {
        yield event;
      } else if (this.#ended) {
        if (this.#failure !== undefined) throw this.#failure;
        return;
      } else {
        this.#waiting ??= Promise.withResolvers();
        await this.#waiting.promise;
      }
    }
  }
}

/** UTF-16 units, by two: what the engine keeps at most. */
function weightOf(entry: Entry): Bytes {
  return 2 * (entry.key.length + entry.value.length);
}

function shift(entries: Map<string, Entry>): Entry | undefined {
  for (const [key, entry] of entries) {
    entries.delete(key);
    return entry;
  }
  return undefined;
}
