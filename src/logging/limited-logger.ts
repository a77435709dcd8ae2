import { formatDuration, type Milliseconds, type MonotonicTime } from "../units/units.ts";
import type { LogLevel } from "./format.ts";
import { LIMIT_INTERVAL, LogLimiter } from "./limiter.ts";
import type { Logger } from "./logger.ts";

/** The time of a daemon. */
export interface LimiterClock {
  now(): MonotonicTime;
  wakeAfter(delay: Milliseconds, call: () => void): Disposable;
}

/**
 * A logger for lines that a peer can cause: of each kind a few in an interval, and then one line
 * that says how many more there were.
 */
export class LimitedLogger implements Disposable {
  readonly #logger: Logger;
  readonly #clock: LimiterClock;
  readonly #limiter = new LogLimiter();
  #wake: Disposable | undefined;

  constructor(logger: Logger, clock: LimiterClock) {
    this.#logger = logger;
    this.#clock = clock;
  }

  /** @param kind the words that all lines like this one have, which no peer chooses */
  say(level: LogLevel, kind: string, message: string): void {
    const now = this.#clock.now();
    this.#tellEnded(now);
    if (this.#limiter.take(kind, level, now)) this.#logger[level](message);
    else this.#wakeAtEnd(now);
  }

  /** `say`, where the kind is what stands before the first colon. */
  warn(message: string): void {
    this.say("warn", beginningOf(message), message);
  }

  #wakeAtEnd(now: MonotonicTime): void {
    const end = this.#limiter.nextEnd;
    if (this.#wake !== undefined || end === undefined) return;
    this.#wake = this.#clock.wakeAfter(end - now, () => {
      this.#wake = undefined;
      const woken = this.#clock.now();
      this.#tellEnded(woken);
      this.#wakeAtEnd(woken);
    });
  }

  #tellEnded(now: MonotonicTime): void {
    for (const { kind, level, count } of this.#limiter.ended(now)) {
      const last = `in the last ${formatDuration(LIMIT_INTERVAL)}`;
      this.#logger[level](`${kind}: … ${count} more like it ${last}`);
    }
  }

  /** Tells what was held back and has not been told. */
  [Symbol.dispose](): void {
    this.#wake?.[Symbol.dispose]();
    this.#wake = undefined;
    this.#tellEnded(Number.POSITIVE_INFINITY);
  }
}

/** What a line is about; a partition's name belongs to it. */
function beginningOf(message: string): string {
  return /^(?:partition [^:]*: )?[^:]*/.exec(message)?.[0] ?? "";
}
