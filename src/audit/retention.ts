import type { Bytes, Milliseconds } from "../units/units.ts";
import { auditLimits } from "./limits.ts";

/** Which segments may go: whole ones, the oldest first, never the one that is written. */

/** A segment that is no longer written. */
export interface ClosedSegment {
  readonly bytes: Bytes;
  /** The log's age when its last record was written. */
  readonly elapsed: Milliseconds;
}

export interface RetentionPlan {
  /** How many of the oldest. */
  readonly count: number;
  /** Why the last of them goes. */
  readonly reason: "age" | "size";
}

/**
 * @param log `bytes` of all segments with what is about to be written
 * @returns what must go; undefined when nothing must
 */
export function planRetention(
  closed: readonly ClosedSegment[],
  log: { readonly bytes: Bytes; readonly elapsed: Milliseconds },
  bounds: { readonly age: Milliseconds; readonly size: Bytes },
): RetentionPlan | undefined {
  let { bytes } = log;
  let plan: RetentionPlan | undefined;
  for (const [index, segment] of closed.entries()) {
    const isOld = log.elapsed - segment.elapsed > bounds.age;
    if (!isOld && bytes <= bounds.size) break;
    plan = { count: index + 1, reason: isOld ? "age" : "size" };
    bytes -= segment.bytes;
  }
  return plan;
}

/**
 * The log's age after one more record. A clock that jumps ahead by decades adds no more than
 * `longestGap`, and one that goes back adds nothing: no wrong clock can make a log look old.
 */
export function ageAfter(
  elapsed: Milliseconds,
  times: { readonly last: number; readonly now: number },
): Milliseconds {
  const gap = times.now - times.last;
  return elapsed + Math.min(auditLimits.longestGap, Math.max(0, Number.isNaN(gap) ? 0 : gap));
}
