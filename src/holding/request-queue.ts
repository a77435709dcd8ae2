import type { Milliseconds, MonotonicTime } from "../units/units.ts";

/** Waits before a device that another has open is tried again: doubled up to the longest. */
const FIRST_WAIT: Milliseconds = 5;
const LONGEST_WAIT: Milliseconds = 200;

/** A request that has come, and what it may have to wait for. */
export interface QueuedRequest {
  /** What it is about; those of one name are served in the order in which they came. */
  readonly name: string | undefined;
  /** When it is tried for the last time; undefined when it waits for nothing of its own. */
  readonly until: MonotonicTime | undefined;
  /** Serves it. "busy" when it has to be tried again, which a last try never says. */
  readonly serve: (isLast: boolean) => "served" | "busy";
  /** Frees what it holds, when it is never served. */
  readonly abandon: () => void;
}

/**
 * Requests in the order in which they came, but for those that wait for a device that another
 * has open: they hold up their own name alone. Time comes in as an argument.
 */
export class RequestQueue {
  #waiting: QueuedRequest[] = [];
  /** Of this turn, what has to wait for the next one. */
  #kept: QueuedRequest[] = [];
  #isCleared = false;
  #tryAt: MonotonicTime = Number.NEGATIVE_INFINITY;
  #wait: Milliseconds = FIRST_WAIT;

  get length(): number {
    return this.#kept.length + this.#waiting.length;
  }

  add(request: QueuedRequest): void {
    this.#waiting.push(request);
  }

  /** Forgets all of it: nobody waits for the answers any more. What was served is not touched. */
  clear(): void {
    this.#isCleared = true;
    for (const request of this.#kept.splice(0)) request.abandon();
    for (const request of this.#waiting.splice(0)) request.abandon();
  }

  /** Serves what can be served now. @returns when to come again, if something waits */
  run(now: MonotonicTime): MonotonicTime | undefined {
    const heldUp = new Set<string>();
    let isBusy = now < this.#tryAt;
    this.#isCleared = false;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const { name, until } = next;
      const isLast = until !== undefined && now >= until;
      const mustWait = (until !== undefined && isBusy && !isLast) || heldUp.has(name ?? "");
      const isServed = !mustWait && this.#serve(next, now, isLast);
      // Serving may end the connection, and with it the queue.
      if (this.#isCleared) return undefined;
      if (isServed) continue;
      if (until !== undefined) isBusy = true;
      this.#kept.push(next);
      if (name !== undefined) heldUp.add(name);
    }
    this.#waiting = this.#kept;
    this.#kept = [];
    return this.#nextTime(this.#waiting);
  }

  #serve(request: QueuedRequest, now: MonotonicTime, isLast: boolean): boolean {
    if (request.serve(isLast) === "busy") {
      this.#tryAt = now + this.#wait;
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
      return false;
    }
    if (request.until !== undefined && !isLast) this.#wait = FIRST_WAIT;
    return true;
  }

  #nextTime(kept: readonly QueuedRequest[]): MonotonicTime | undefined {
    const ends = kept.flatMap(({ until }) => (until === undefined ? [] : [until]));
    return ends.length === 0 ? undefined : Math.min(this.#tryAt, ...ends);
  }
}
