import { monotonicNanoseconds } from "../../ffi/process.ts";
import type { MonotonicTime } from "../units/units.ts";

/** Now on CLOCK_MONOTONIC, in milliseconds with fractions; comparable between processes. */
export function monotonicNow(): MonotonicTime {
  return monotonicNanoseconds() / 1_000_000;
}

/** The wall clock, RFC 3339 in UTC with microseconds: for people and logs, never to decide by. */
export function wallClock(at: MonotonicTime = monotonicNow()): string {
  // The wall clock of Bun has milliseconds; the rest comes from the monotonic clock beside it.
  const milliseconds = performance.timeOrigin + performance.now() - (monotonicNow() - at);
  const whole = Math.floor(milliseconds);
  const micro = Math.floor((milliseconds - whole) * 1_000);
  return new Date(whole).toISOString().replace("Z", `${String(micro).padStart(3, "0")}Z`);
}
