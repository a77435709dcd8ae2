import { EventPlaces } from "../../http/event-places.ts";
import { operatorLimits, type ToldHappening } from "../protocol-operator.ts";
import type { KeptEvent } from "./event-journal.ts";

interface OwnHappening {
  readonly sequence: number;
  readonly happening: ToldHappening;
}

interface TaggedHappening {
  readonly id: string;
  readonly data: ToldHappening;
}

/** What happened last, for those who come late, and for those who follow it as it happens. */
export class HappeningBook {
  readonly #places: EventPlaces;
  readonly #limit: number;
  /** Of operators before this process, in their order, with the ids that those gave them. */
  readonly #former: readonly KeptEvent[];
  #kept: OwnHappening[] = [];

  constructor(
    run: string,
    { limit = operatorLimits.events, former = [] }: Partial<HappeningBookParts> = {},
  ) {
    this.#places = new EventPlaces(run);
    this.#limit = limit;
    this.#former = former;
  }

  /** The id of the last that happened to this process; of none before the first. */
  get last(): string {
    return this.#places.id(this.#places.last);
  }

  /** Whether what came after an id can be told. */
  knows(id: string): boolean {
    return this.#places.sequenceOf(id) !== undefined || this.#former.some((one) => one.id === id);
  }

  /** @returns its id */
  add(happening: ToldHappening): string {
    if (this.#kept.length >= 2 * this.#limit) this.#kept = this.#kept.slice(-this.#limit);
    const sequence = this.#places.next();
    this.#kept.push({ sequence, happening });
    this.#places.wake();
    return this.#places.id(sequence);
  }

  /** Kept ones after an id; all of them for none, or for one that nobody knows. */
  after(id: string | undefined): readonly TaggedHappening[] {
    const own = this.#from(this.#places.sequenceOf(id) ?? 0).map((one) => this.#tagged(one));
    return [...this.#formerAfter(id), ...own].slice(-this.#limit);
  }

  /** What was kept after an id, then what happens, until the signal ends it. */
  async *follow(id: string | undefined, signal: AbortSignal): AsyncGenerator<TaggedHappening> {
    yield* this.#formerAfter(id);
    let last = this.#places.sequenceOf(id) ?? 0;
    while (!signal.aborted) {
      // Nothing waits for a slow reader but its place: it reads on in the book.
      const [next] = this.#from(last);
      if (next === undefined) {
        await this.#places.news(signal);
        continue;
      }
      last = next.sequence;
      yield this.#tagged(next);
    }
  }

  /** None after an id of this process's. */
  #formerAfter(id: string | undefined): readonly TaggedHappening[] {
    if (this.#places.sequenceOf(id) !== undefined) return [];
    const place = this.#former.findIndex((one) => one.id === id);
    return this.#former.slice(place + 1).map((one) => ({ id: one.id, data: one.happening }));
  }

  #tagged({ sequence, happening }: OwnHappening): TaggedHappening {
    return { id: this.#places.id(sequence), data: happening };
  }

  #from(last: number) {
    const first = Math.max(last, this.#places.last - this.#limit);
    const [oldest] = this.#kept;
    if (oldest === undefined) return [];
    return this.#kept.slice(Math.max(0, first + 1 - oldest.sequence));
  }
}

export interface HappeningBookParts {
  /** Events that are told to those who come late. */
  readonly limit: number;
  readonly former: readonly KeptEvent[];
}
