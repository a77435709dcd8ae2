import type { MaintenanceWindow } from "../protocol-operator.ts";

const MINUTE = 60_000;
const DAY_MINUTES = 1_440;
const DAYS = 7;
/** 1 January 1970 was a Thursday. */
const FIRST_DAY = 4;

/**
 * Whether one of these is open; none at all means always.
 * @param wall milliseconds since 1970, UTC
 */
export function isWindowOpen(windows: readonly MaintenanceWindow[], wall: number): boolean {
  return windows.length === 0 || windows.some((window) => isOpen(window, wall));
}

function isOpen({ days, from, to }: MaintenanceWindow, wall: number): boolean {
  const minutes = Math.floor(wall / MINUTE);
  const minute = ((minutes % DAY_MINUTES) + DAY_MINUTES) % DAY_MINUTES;
  const day = (((Math.floor(minutes / DAY_MINUTES) + FIRST_DAY) % DAYS) + DAYS) % DAYS;
  const yesterday = (day + DAYS - 1) % DAYS;
  if (from < to) return days.includes(day) && minute >= from && minute < to;
  return (days.includes(day) && minute >= from) || (days.includes(yesterday) && minute < to);
}
