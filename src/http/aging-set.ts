import { monotonicNow } from "../event-loop/clock.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import type { Milliseconds, MonotonicTime } from "../units/units.ts";

/** Things that may be in it for so long; the oldest stands first, and one timer serves all. */
export class AgingSet<Thing> implements Disposable {
  readonly #loop: EventLoop;
  readonly #time: Milliseconds;
  readonly #onExpired: (thing: Thing) => void;
  /** When each came in; a map keeps its order. */
  readonly #things = new Map<Thing, MonotonicTime>();
  #wake: Disposable | undefined;

  constructor(loop: EventLoop, time: Milliseconds, onExpired: (thing: Thing) => void) {
    this.#loop = loop;
    this.#time = time;
    this.#onExpired = onExpired;
  }

  get size(): number {
    return this.#things.size;
  }

  has(thing: Thing): boolean {
    return this.#things.has(thing);
  }

  /** Its time begins, or begins anew. */
  add(thing: Thing): void {
    this.#things.delete(thing);
    this.#things.set(thing, monotonicNow());
    this.#wakeForOldest();
  }

  delete(thing: Thing): void {
    this.#things.delete(thing);
  }

  #wakeForOldest(): void {
    const first = this.#things.values().next().value;
    if (this.#wake !== undefined || first === undefined) return;
    this.#wake = this.#loop.wakeAt(first + this.#time, () => {
      this.#wake = undefined;
      const now = monotonicNow();
      for (const [thing, since] of this.#things) {
        if (since + this.#time > now) break;
        this.#things.delete(thing);
        this.#onExpired(thing);
      }
      this.#wakeForOldest();
    });
  }

  [Symbol.iterator](): IterableIterator<Thing> {
    return this.#things.keys();
  }

  [Symbol.dispose](): void {
    this.#wake?.[Symbol.dispose]();
    this.#things.clear();
  }
}
