import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import type { LogLevel } from "./format.ts";

/** Lines of one kind that are said in one interval; those that follow are counted. */
export const LINES_AN_INTERVAL = 10;
export const LIMIT_INTERVAL: Milliseconds = 30_000;
/** Kinds that are told apart; what comes beyond counts as one kind more. */
export const KINDS_LIMIT = 1_024;

/** How many lines of a kind were held back in an interval that has ended. */
export interface HeldLines {
  readonly kind: string;
  readonly level: LogLevel;
  readonly count: number;
}

interface Interval {
  readonly began: MonotonicTime;
  readonly level: LogLevel;
  lines: number;
}

/**
 * Decides which lines are said where a peer decides how many there are. Pure but for what it
 * remembers: the clock is an argument.
 */
export class LogLimiter {
  readonly #intervals = new Map<string, Interval>();

  /**
   * True when the line is to be said. Call `ended` first: the line may begin an interval anew.
   * @param kind what is the same in all lines that say the same
   */
  take(kind: string, level: LogLevel, now: MonotonicTime): boolean {
    const isKnown = this.#intervals.has(kind) || this.#intervals.size < KINDS_LIMIT;
    const key = isKnown ? kind : "other lines";
    const interval = this.#intervals.get(key) ?? { began: now, level, lines: 0 };
    this.#intervals.set(key, interval);
    interval.lines += 1;
    return interval.lines <= LINES_AN_INTERVAL;
  }

  /** Forgets the intervals that have ended by now, and tells what was held back in them. */
  ended(now: MonotonicTime): HeldLines[] {
    const held: HeldLines[] = [];
    for (const [kind, { began, level, lines }] of this.#intervals) {
      if (now < began + LIMIT_INTERVAL) continue;
      this.#intervals.delete(kind);
      if (lines > LINES_AN_INTERVAL) held.push({ kind, level, count: lines - LINES_AN_INTERVAL });
    }
    return held;
  }

  /** When the next interval ends in which lines were held back. */
  get nextEnd(): MonotonicTime | undefined {
    const ends = [...this.#intervals.values()]
      .filter(({ lines }) => lines > LINES_AN_INTERVAL)
      .map(({ began }) => began + LIMIT_INTERVAL);
    return ends.length === 0 ? undefined : Math.min(...ends);
  }
}
