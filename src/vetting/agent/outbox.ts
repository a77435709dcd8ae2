/**
 * What waits to be told, oldest first, within a number of bytes: over it the oldest goes, and is
 * counted. What was sent stays until it is answered, so that nothing is lost by a lost answer.
 */
export class Outbox<Item extends { readonly sequence: number }> {
  readonly #limit: number;
  #items: { readonly item: Item; readonly size: number }[] = [];
  #size = 0;
  #next = 0;
  #dropped = 0;

  /** @param limit bytes of all items as JSON */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** How many went unsaid. */
  get dropped(): number {
    return this.#dropped;
  }

  get waiting(): number {
    return this.#items.length;
  }

  push(make: (sequence: number) => Item): void {
    const item = make(this.#next++);
    const size = Buffer.byteLength(JSON.stringify(item));
    this.#items.push({ item, size });
    this.#size += size;
    let gone = 0;
    while (this.#size > this.#limit && gone < this.#items.length) {
      this.#size -= this.#items[gone]?.size ?? 0;
      gone++;
    }
    if (gone === 0) return;
    this.#dropped += gone;
    this.#items = this.#items.slice(gone);
  }

  /** The oldest: at most so many, and of so many bytes, but one in any case. */
  first(most: number, bytes: number): readonly Item[] {
    const taken: Item[] = [];
    let size = 0;
    for (const { item, size: own } of this.#items) {
      size += own;
      if (taken.length === most || (size > bytes && taken.length > 0)) break;
      taken.push(item);
    }
    return taken;
  }

  /** They were answered, or will never be: `dropped` then counts them. */
  settle(items: readonly Item[], how: "answered" | "refused"): void {
    const last = items.at(-1)?.sequence ?? -1;
    const left = this.#items.findIndex(({ item }) => item.sequence > last);
    const gone = this.#items.splice(0, left < 0 ? this.#items.length : left);
    for (const { size } of gone) this.#size -= size;
    if (how === "refused") this.#dropped += gone.length;
  }
}
