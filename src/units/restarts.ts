import { formatDuration, type Milliseconds, type MonotonicTime } from "./units.ts";

/** The rules by which what died is started again: waits that grow, and a limit of starts. */

/** How long to wait before a restart, after the one immediate restart that everything gets. */
export interface Backoff {
  /** The first wait. */
  readonly first: Milliseconds;
  /** Each further wait is this many times the one before. */
  readonly factor: number;
  /** No wait is longer. */
  readonly cap: Milliseconds;
  /** Each wait varies by up to this part of itself, either way: 0 to 1. */
  readonly jitter: number;
  /** What ran this long starts from the beginning again. */
  readonly resetAfter: Milliseconds;
}

export const defaultBackoff: Backoff = {
  first: 100,
  factor: 2,
  cap: 30_000,
  jitter: 0.1,
  resetAfter: 10_000,
};

/** More than `starts` starts within `within` end in the phase "failed". */
export interface StartLimit {
  readonly starts: number;
  readonly within: Milliseconds;
}

/** The wait before a restart after this many quick deaths in a row; the first restarts at once. */
export function backoffWait(backoff: Backoff, failures: number, random: number): Milliseconds {
  if (failures <= 1) return 0;
  // The power grows to infinity, and nothing times infinity is no number.
  const grown = backoff.first === 0 ? 0 : backoff.first * backoff.factor ** (failures - 2);
  const wait = Math.min(backoff.cap, grown);
  return Math.min(backoff.cap, wait * (1 + backoff.jitter * (2 * random - 1)));
}

/** Starts that the start limit counts at a time: those that its window has not left by then. */
export function countedStarts(
  starts: readonly MonotonicTime[],
  limit: StartLimit | "none",
  at: MonotonicTime,
): readonly MonotonicTime[] {
  return limit === "none" ? [] : starts.filter((time) => time > at - limit.within);
}

/** "at most 4 starts within 1 h 0 min", wherever a start limit is spoken of. */
export function describeStartLimit({ starts, within }: StartLimit): string {
  const counted = starts === 1 ? "1 start" : `${starts} starts`;
  return `at most ${counted} within ${formatDuration(within)}`;
}
