import { monotonicNow } from "../event-loop/clock.ts";
import type { Milliseconds } from "../units/units.ts";

/** The clocks that a store reads; arguments, so that tests can set them. */
export interface StoreClocks {
  /** Milliseconds since 1970: for people. */
  readonly wall: () => Milliseconds;
  /** Milliseconds of a clock that nobody sets: by it entries grow old. */
  readonly monotonic: () => Milliseconds;
}

/** Those of this machine. */
export const machineClocks: StoreClocks = { wall: () => Date.now(), monotonic: monotonicNow };
