import type { MonotonicTime } from "./units.ts";

/** Events that are kept of each name. */
export const HISTORY_LIMIT = 100;
/** Events that are kept of all names together, for subscribers that come late. */
export const EVENT_LIMIT = 4_096;

/** One thing that happened, as it was noted: times and words are made when somebody reads it. */
export interface BookedEvent<Entry> {
  readonly sequence: number;
  readonly at: MonotonicTime;
  readonly name: string;
  readonly entry: Entry;
}

/** A list that forgets its oldest half when it is full: cheap to add to, bounded. */
class BoundedList<Item> {
  readonly #limit: number;
  #items: Item[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(item: Item): void {
    if (this.#items.length >= this.#limit * 2) this.#items = this.#items.slice(-this.#limit);
    this.#items.push(item);
  }

  /** The newest items, at most so many. */
  last(count: number): readonly Item[] {
    return this.#items.slice(Math.max(0, this.#items.length - Math.min(count, this.#limit)));
  }
}

/** What happened: all of it in order, and of each name. Pure. */
export class EventBook<Entry> {
  readonly #all = new BoundedList<BookedEvent<Entry>>(EVENT_LIMIT);
  readonly #byName = new Map<string, BoundedList<BookedEvent<Entry>>>();
  #sequence = 0;

  /** The sequence number of the newest event; 0 before the first. */
  get newest(): number {
    return this.#sequence;
  }

  add(name: string, entry: Entry, at: MonotonicTime): BookedEvent<Entry> {
    this.#sequence += 1;
    const event = { sequence: this.#sequence, at, name, entry };
    this.#all.push(event);
    this.#listOf(name).push(event);
    return event;
  }

  /** All that is kept, each event once: `older` are those of single names alone. */
  save(): {
    readonly newest: number;
    readonly older: readonly BookedEvent<Entry>[];
    readonly all: readonly BookedEvent<Entry>[];
  } {
    const all = this.#all.last(EVENT_LIMIT);
    const first = all[0]?.sequence ?? Number.POSITIVE_INFINITY;
    const older = [...this.#byName.values()].flatMap((list) =>
      list.last(HISTORY_LIMIT).filter(({ sequence }) => sequence < first),
    );
    return { newest: this.#sequence, older, all };
  }

  /** Goes on with what was saved, in place of an empty book. */
  restore(saved: ReturnType<EventBook<Entry>["save"]>): void {
    this.#sequence = saved.newest;
    for (const event of saved.older) this.#listOf(event.name).push(event);
    for (const event of saved.all) {
      this.#all.push(event);
      this.#listOf(event.name).push(event);
    }
  }

  #listOf(name: string): BoundedList<BookedEvent<Entry>> {
    let list = this.#byName.get(name);
    if (list === undefined) {
      list = new BoundedList(HISTORY_LIMIT);
      this.#byName.set(name, list);
    }
    return list;
  }

  /** What is kept of a name that is no more is kept of all together alone. */
  forget(name: string): void {
    this.#byName.delete(name);
  }

  /** Kept events after a sequence number. Sequences have no gaps, so they are the last ones. */
  after(sequence: number): readonly BookedEvent<Entry>[] {
    return this.#all.last(Math.max(0, this.#sequence - sequence));
  }

  historyOf(name: string): readonly BookedEvent<Entry>[] {
    return this.#byName.get(name)?.last(HISTORY_LIMIT) ?? [];
  }
}
