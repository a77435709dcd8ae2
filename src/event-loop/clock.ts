import { monotonicNanoseconds, realtimeNanoseconds } from "../../ffi/process.ts";
import type { MonotonicTime } from "../units/units.ts";

/** Now on CLOCK_MONOTONIC, in milliseconds with fractions; comparable between processes. */
export function monotonicNow(): MonotonicTime {
  return monotonicNanoseconds() / 1_000_000;
}

/** The wall clock, RFC 3339 in UTC with microseconds: for people and logs, never to decide by. */
export function wallClock(at: MonotonicTime = monotonicNow()): string {
  const microseconds = Math.floor(realtimeNanoseconds() / 1_000 - (monotonicNow() - at) * 1_000);
  const text = new Date(Math.floor(microseconds / 1_000)).toISOString();
  return text.replace("Z", `${String(microseconds % 1_000).padStart(3, "0")}Z`);
}
