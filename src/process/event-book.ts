import { describeEnding } from "../units/ending.ts";
import { EventBook as Book, type BookedEvent as Booked } from "../units/event-book.ts";
import { formatDuration } from "../units/units.ts";
import type { HistoryEntry } from "./lifecycle.ts";

/** One thing that happened to a process. */
export type BookedEvent = Booked<HistoryEntry>;

/** What happened: all of it in order, and of each process. */
export class EventBook extends Book<HistoryEntry> {}

/** Why it does its work no more, by its last word; undefined when it does. */
export function degradedBy(history: readonly BookedEvent[]): string | undefined {
  const told = ["degraded", "recovered", "started"];
  const last = history.findLast(({ entry }) => told.includes(entry.what))?.entry;
  return last?.what === "degraded" ? last.reason : undefined;
}

/** What an entry says beyond its name, in words. */
export function describeEntry(
  entry: HistoryEntry,
  nameSignal: (signal: number) => string,
): string | undefined {
  switch (entry.what) {
    case "start-refused":
      return entry.refusal.message;
    case "ready":
      return entry.after > 0 ? `after ${formatDuration(entry.after)}` : undefined;
    case "died":
      return `ran for ${formatDuration(entry.ranFor)}`;
    case "ended":
      return describeEnding(entry.ending, nameSignal);
    case "backing-off":
      return `restart in ${formatDuration(entry.wait)} (failure ${entry.failures} in a row)`;
    case "failed":
      return entry.reason;
    case "lost":
    case "unhealthy":
    case "degraded":
      return entry.reason;
    case "dependency-failed":
      return `of ${entry.dependency}, which it comes after`;
    case "strays-ended":
      return `${entry.count} that had left the session of a dead instance`;
    case "uncertain":
      return "the start was not answered; looking for its invocation";
    case "readiness-timeout":
      return "not ready in time; killed";
    default:
      return undefined;
  }
}
