import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";

/**
 * Between the last thing that happened to a machine and the tidying up after it. By itself the
 * runtime collects when it has taken much more: fifty starts left twenty mebibytes.
 */
export const TIDY_AFTER: Milliseconds = 1_000;

/**
 * Gives memory back when nothing more happens: a start that is under way is not held up by it. The
 * runtime's machine code stays. To give that back as well (Bun.shrink) halves what many machines
 * add, and costs the next start 18 ms.
 */
export class MemoryTidying implements Disposable {
  readonly #loop: Pick<EventLoop, "wakeAfter">;
  readonly #collect: () => void;
  #timer: Disposable | undefined;
  #isDisposed = false;

  constructor(loop: Pick<EventLoop, "wakeAfter">, collect: () => void = () => Bun.gc(true)) {
    this.#loop = loop;
    this.#collect = collect;
  }

  /** Something happened: the tidying waits for the time after it. */
  later(): void {
    this.#timer?.[Symbol.dispose]();
    if (this.#isDisposed) return;
    this.#timer = this.#loop.wakeAfter(TIDY_AFTER, this.#collect);
  }

  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#timer?.[Symbol.dispose]();
  }
}
