import type { Ending } from "../units/ending.ts";
import { formatDuration, type MonotonicTime } from "../units/units.ts";
import type { HistoryEntry } from "./lifecycle.ts";

/** Events that are kept of each process. */
export const HISTORY_LIMIT = 100;
/** Events that are kept of all processes together, for subscribers that come late. */
export const EVENT_LIMIT = 4_096;

/** One thing that happened, as it was noted: times and words are made when somebody reads it. */
export interface BookedEvent {
  readonly sequence: number;
  readonly at: MonotonicTime;
  readonly name: string;
  readonly entry: HistoryEntry;
}

/** A list that forgets its oldest half when it is full: cheap to add to, bounded. */
class BoundedList<Item> {
  readonly #limit: number;
  #items: Item[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(item: Item): void {
    if (this.#items.length >= this.#limit * 2) this.#items = this.#items.slice(-this.#limit);
    this.#items.push(item);
  }

  /** The newest items, at most so many. */
  last(count: number): readonly Item[] {
    return this.#items.slice(Math.max(0, this.#items.length - Math.min(count, this.#limit)));
  }
}

/** What happened: all of it in order, and of each process. */
export class EventBook {
  readonly #all = new BoundedList<BookedEvent>(EVENT_LIMIT);
  readonly #byName = new Map<string, BoundedList<BookedEvent>>();
  #sequence = 0;

  /** The sequence number of the newest event; 0 before the first. */
  get newest(): number {
    return this.#sequence;
  }

  add(name: string, entry: HistoryEntry, at: MonotonicTime): BookedEvent {
    this.#sequence += 1;
    const event = { sequence: this.#sequence, at, name, entry };
    this.#all.push(event);
    let list = this.#byName.get(name);
    if (list === undefined) {
      list = new BoundedList(HISTORY_LIMIT);
      this.#byName.set(name, list);
    }
    list.push(event);
    return event;
  }

  /** Kept events after a sequence number. Sequences have no gaps, so they are the last ones. */
  after(sequence: number): readonly BookedEvent[] {
    return this.#all.last(Math.max(0, this.#sequence - sequence));
  }

  historyOf(name: string): readonly BookedEvent[] {
    return this.#byName.get(name)?.last(HISTORY_LIMIT) ?? [];
  }
}

/** An ending in words: "exit 0", "SIGKILL", "SIGSEGV (core dumped)", "unknown". */
export function describeEnding(ending: Ending, nameSignal: (signal: number) => string): string {
  if (ending.kind === "exited") return `exit ${ending.status}`;
  if (ending.kind === "unknown") return `unknown: ${ending.reason}`;
  return `${nameSignal(ending.signal)}${ending.coreDumped ? " (core dumped)" : ""}`;
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
