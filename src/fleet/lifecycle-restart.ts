import type { Milliseconds } from "../units/units.ts";

/** When a supervisor starts its agent again; compare RestartSteps= of systemd.service(5). */
export const restartLimits = {
  /** From the end of an agent to its next start. */
  first: 1_000,
  /** So many come after that time: the boot guard counts three, and the fourth goes back. */
  evenly: 3,
  /** Then each wait is twice the one before, and none is longer. */
  longest: 30_000,
  /** What has run for so long begins anew. */
  steady: 10_000,
} as const;

/**
 * @param setbacks quick ends in a row, before this one
 * @param ended how long it ran, and whether its end was asked for: then it comes at once
 */
export function nextStart(
  setbacks: number,
  { ran, isWanted }: { readonly ran: Milliseconds; readonly isWanted: boolean },
): { readonly setbacks: number; readonly wait: Milliseconds } {
  if (isWanted) return { setbacks: 0, wait: 0 };
  const { first, evenly, longest, steady } = restartLimits;
  const count = ran >= steady ? 1 : setbacks + 1;
  const wait = Math.min(longest, first * 2 ** Math.max(0, count - evenly));
  return { setbacks: count, wait };
}
