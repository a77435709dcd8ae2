import { wallClock } from "../event-loop/clock.ts";
import type { HistoryEntry } from "./lifecycle-state.ts";
import type { UpdateEventRecord } from "./protocol.ts";

/** Events that are kept for who comes late: an update of a thousand clients has some four each. */
export const EVENT_LIMIT = 8_192;

/** What happened, in order; the oldest are forgotten. */
export class EventBook {
  #events: UpdateEventRecord[] = [];
  #sequence = 0;

  add(entry: HistoryEntry): UpdateEventRecord {
    this.#sequence += 1;
    const event = { sequence: this.#sequence, time: wallClock(), ...entry };
    if (this.#events.length >= EVENT_LIMIT * 2) this.#events = this.#events.slice(-EVENT_LIMIT);
    this.#events.push(event);
    return event;
  }

  /** The kept events after a sequence number. */
  after(sequence: number): readonly UpdateEventRecord[] {
    const count = Math.min(this.#sequence - sequence, EVENT_LIMIT);
    return count <= 0 ? [] : this.#events.slice(-count);
  }

  get last(): number {
    return this.#sequence;
  }
}
