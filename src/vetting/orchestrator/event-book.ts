import { EventPlaces } from "../../http/event-places.ts";
import type { LiveEvent } from "../protocol-operator.ts";

export const eventLimits = {
  /** Events that are kept for those who come back. */
  events: 20_000,
  /** Characters of them all. */
  characters: 64 * 1024 ** 2,
} as const;

interface Kept {
  readonly sequence: number;
  readonly event: LiveEvent;
  readonly size: number;
}

/** What happened last, for those who come back, and for those who follow it as it happens. */
export class LiveEventBook {
  readonly #places: EventPlaces;
  readonly #limits: { readonly events: number; readonly characters: number };
  #kept: Kept[] = [];
  /** How many of them, from the first, are forgotten. */
  #gone = 0;
  #size = 0;

  constructor(process: string, limits = eventLimits as { events: number; characters: number }) {
    this.#places = new EventPlaces(process);
    this.#limits = limits;
  }

  /** All of one moment, so that whoever follows is woken once. */
  add(events: readonly LiveEvent[]): void {
    for (const event of events) {
      const size = sizeOf(event);
      this.#size += size;
      this.#kept.push({ sequence: this.#places.next(), event, size });
    }
    this.#forget();
    if (events.length > 0) this.#places.wake();
  }

  #forget(): void {
    const { events, characters } = this.#limits;
    while (
      this.#kept.length - this.#gone > events ||
      (this.#size > characters && this.#gone < this.#kept.length)
    ) {
      this.#size -= this.#kept[this.#gone]?.size ?? 0;
      this.#gone += 1;
    }
    if (this.#gone * 2 < this.#kept.length) return;
    this.#kept = this.#kept.slice(this.#gone);
    this.#gone = 0;
  }

  /**
   * What happened after an id, then what happens, until the signal ends it. Whoever begins, or has
   * fallen behind what is kept, is told `now` first: all that they have to know.
   */
  async *follow(
    after: string | undefined,
    wanted: {
      readonly signal: AbortSignal;
      readonly isWanted: (event: LiveEvent) => boolean;
      readonly now: () => readonly LiveEvent[];
    },
  ): AsyncGenerator<{ readonly id: string; readonly event: LiveEvent }> {
    let last = this.#places.sequenceOf(after);
    while (!wanted.signal.aborted) {
      if (last === undefined || last < this.#oldest - 1) {
        const sequence = this.#places.last;
        for (const event of wanted.now()) yield { id: this.#places.id(sequence), event };
        last = sequence;
        continue;
      }
      const next = this.#next(last);
      if (next === undefined) {
        await this.#places.news(wanted.signal);
        continue;
      }
      last = next.sequence;
      if (wanted.isWanted(next.event)) yield { id: this.#places.id(last), event: next.event };
    }
  }

  get #oldest(): number {
    return this.#kept[this.#gone]?.sequence ?? this.#places.last + 1;
  }

  #next(last: number): Kept | undefined {
    return this.#kept[this.#gone + (last + 1 - this.#oldest)];
  }
}

/** About so many characters: what is large of an event is known by kind. */
function sizeOf(event: LiveEvent): number {
  switch (event.kind) {
    case "log":
      return event.lines.reduce((sum, line) => sum + line.text.length + 128, 64);
    case "sensors":
      return event.sensors.length * 48 + 128;
    case "result":
      return JSON.stringify(event.result).length;
    case "run":
      return 2_048;
    case "host":
    case "event":
      return 512;
  }
}
