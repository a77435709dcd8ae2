import * as v from "valibot";
import type { Milliseconds, MonotonicTime } from "../units/units.ts";

/** One look at the clocks, such that the time since it can be told after a reboot as well. */
export interface Reading {
  /** The kernel's random id of the boot in which `monotonic` counts. */
  readonly boot: string;
  readonly monotonic: MonotonicTime;
  /** The wall clock, milliseconds since 1970. */
  readonly wall: Milliseconds;
}

export const readingSchema = v.strictObject({
  boot: v.string(),
  monotonic: v.number(),
  wall: v.number(),
});

/**
 * How long ago a reading was made: by the clock of the boot within a boot and by the wall clock
 * besides, whichever says more. A wall clock that stands before the reading, in another boot, says
 * nothing at all; then it was infinitely long ago, because whoever asks lets something expire.
 */
export function elapsedSince(reading: Reading, now: Reading): Milliseconds {
  const byWall = now.wall - reading.wall;
  if (now.boot !== reading.boot) return byWall < 0 ? Number.POSITIVE_INFINITY : byWall;
  return Math.max(now.monotonic - reading.monotonic, byWall, 0);
}
