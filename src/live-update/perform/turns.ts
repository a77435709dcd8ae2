import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";

/** What long work awaits between two of its steps. */
export interface Pauses {
  next(): Promise<void>;
}

/** Divides long work into turns, between which all else is served. */
export class Turns implements Pauses {
  readonly #loop: EventLoop;
  readonly #limit: Milliseconds;
  #end: number;

  constructor(loop: EventLoop, limit: Milliseconds) {
    this.#loop = loop;
    this.#limit = limit;
    this.#end = monotonicNow() + limit;
  }

  /** Goes on at once while there is time in this turn. */
  async next(): Promise<void> {
    if (monotonicNow() < this.#end) return;
    await this.#loop.letOthers();
    this.#end = monotonicNow() + this.#limit;
  }
}
