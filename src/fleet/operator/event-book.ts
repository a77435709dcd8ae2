import { EventPlaces } from "../../http/event-places.ts";
import { operatorLimits, type ToldHappening } from "../protocol-operator.ts";

/** What happened last, for those who come late, and for those who follow it as it happens. */
export class HappeningBook {
  readonly #places: EventPlaces;
  readonly #limit: number;
  #kept: { readonly sequence: number; readonly happening: ToldHappening }[] = [];

  constructor(run: string, limit: number = operatorLimits.events) {
    this.#places = new EventPlaces(run);
    this.#limit = limit;
  }

  /** The id of the last that happened; of none before the first. */
  get last(): string {
    return this.#places.id(this.#places.last);
  }

  add(happening: ToldHappening): void {
    if (this.#kept.length >= 2 * this.#limit) this.#kept = this.#kept.slice(-this.#limit);
    this.#kept.push({ sequence: this.#places.next(), happening });
    this.#places.wake();
  }

  /** Kept ones after an id; all of them for none, or for one that is none of its own. */
  after(id: string | undefined): readonly { readonly id: string; readonly data: ToldHappening }[] {
    return this.#from(this.#places.sequenceOf(id) ?? 0).map(({ sequence, happening }) => ({
      id: this.#places.id(sequence),
      data: happening,
    }));
  }

  /** What was kept after an id, then what happens, until the signal ends it. */
  async *follow(
    id: string | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<{ readonly id: string; readonly data: ToldHappening }> {
    let last = this.#places.sequenceOf(id) ?? 0;
    while (!signal.aborted) {
      // Nothing waits for a slow reader but its place: it reads on in the book.
      const [next] = this.#from(last);
      if (next === undefined) {
        await this.#places.news(signal);
        continue;
      }
      last = next.sequence;
      yield { id: this.#places.id(next.sequence), data: next.happening };
    }
  }

  #from(last: number) {
    const first = Math.max(last, this.#places.last - this.#limit);
    const [oldest] = this.#kept;
    if (oldest === undefined) return [];
    return this.#kept.slice(Math.max(0, first + 1 - oldest.sequence));
  }
}
