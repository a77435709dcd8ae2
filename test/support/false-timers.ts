/** An event loop whose clock the test turns, for what takes nothing else of one. */
import type { EventLoop } from "../../src/event-loop/event-loop.ts";

export interface FalseTimers {
  readonly loop: EventLoop;
  readonly now: () => number;
  /** Turns the clock on, and calls whoever waited. */
  advance(milliseconds: number): void;
  /** How many wait. */
  readonly waiting: number;
}

export function falseTimers(): FalseTimers {
  let time = 1_000;
  const timers = new Set<{ readonly at: number; readonly call: () => void }>();
  const wakeAt = (at: number, call: () => void): Disposable => {
    const timer = { at, call };
    timers.add(timer);
    return { [Symbol.dispose]: () => timers.delete(timer) };
  };
  const loop = { wakeAt, wakeAfter: (wait: number, call: () => void) => wakeAt(time + wait, call) };
  return {
    loop: loop as unknown as EventLoop,
    now: () => time,
    advance: (milliseconds) => {
      time += milliseconds;
      for (const timer of [...timers]) {
        if (timer.at <= time && timers.delete(timer)) timer.call();
      }
    },
    get waiting() {
      return timers.size;
    },
  };
}
