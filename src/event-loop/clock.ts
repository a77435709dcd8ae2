import { bootNanoseconds, monotonicNanoseconds, realtimeNanoseconds } from "../../ffi/process.ts";
import type { MonotonicTime } from "../units/units.ts";

/** Now on CLOCK_MONOTONIC, in milliseconds with fractions; comparable between processes. */
export function monotonicNow(): MonotonicTime {
  return monotonicNanoseconds() / 1_000_000;
}

/** Now on CLOCK_BOOTTIME, in milliseconds: time in which the host was suspended counts as well. */
export function bootClockNow(): number {
  return bootNanoseconds() / 1_000_000;
}

/** Microseconds that the wall clock is ahead of the monotonic one, as they were last measured. */
let lastOffset = Number.NaN;

/**
 * The same from call to call until the wall clock was set, or has drifted by a millisecond: what
 * happened in some order has times in that order, although this thread may be held up between
 * the readings of the two clocks.
 */
function wallOffset(): number {
  const before = monotonicNanoseconds();
  const wall = realtimeNanoseconds();
  const between = monotonicNanoseconds() - before;
  const offset = (wall - before - between / 2) / 1_000;
  const MOST_DRIFT = 1_000;
  const isSame = Math.abs(offset - lastOffset) <= MOST_DRIFT + between / 1_000;
  if (!isSame) lastOffset = offset;
  return lastOffset;
}

/** What makes times of the wall clock of monotonic ones, in microseconds; undefined before any. */
export function wallClockOffset(): number | undefined {
  return Number.isNaN(lastOffset) ? undefined : lastOffset;
}

/** Goes on with the offset of the program before this one: what has happened keeps its time. */
export function goOnWithOffset(offset: number): void {
  lastOffset = offset;
}

/** The wall clock, RFC 3339 in UTC with microseconds: for people and logs, never to decide by. */
export function wallClock(at: MonotonicTime = monotonicNow()): string {
  const microseconds = Math.floor(at * 1_000 + wallOffset());
  const text = new Date(Math.floor(microseconds / 1_000)).toISOString();
  return text.replace("Z", `${String(microseconds % 1_000).padStart(3, "0")}Z`);
}
