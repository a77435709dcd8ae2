import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import type { CallRecord } from "./route.ts";

/** Refusals alike that are recorded one by one in a window; those that follow are counted. */
export const RECORDED_REFUSALS = 10;
export const REFUSAL_WINDOW: Milliseconds = 60_000;
/** Windows that are told apart; what comes beyond is counted as one kind more. */
export const REFUSAL_KINDS = 1_024;
/** Addresses that a counting record names. */
const NAMED_ADDRESSES = 4;

interface Window {
  readonly began: MonotonicTime;
  refusals: number;
  last: CallRecord;
  readonly addresses: Set<string>;
}

/**
 * Decides which refusals are recorded where a caller decides how many there are: without it
 * whoever can reach the server could fill the audit log. Nothing is left out: what is not
 * recorded by itself is in the count of one record. Pure but for what it remembers.
 */
export class RefusalWindows {
  readonly #windows = new Map<string, Window>();

  /** @returns whether this refusal is to be recorded by itself; call `ended` first */
  take(record: CallRecord, now: MonotonicTime): boolean {
    const named = JSON.stringify([record.who, record.verb, record.result]);
    const isKnown = this.#windows.has(named) || this.#windows.size < REFUSAL_KINDS;
    const key = isKnown ? named : "others";
    const window = this.#windows.get(key) ?? {
      began: now,
      refusals: 0,
      last: record,
      addresses: new Set(),
    };
    this.#windows.set(key, window);
    window.refusals += 1;
    window.last = isKnown ? record : { ...record, who: "others", verb: "others" };
    if (window.refusals <= RECORDED_REFUSALS) return true;
    if (window.addresses.size <= NAMED_ADDRESSES) window.addresses.add(addressOf(record.from));
    return false;
  }

  /** Forgets the windows that have ended by now; one record for all that each held back. */
  ended(now: MonotonicTime): CallRecord[] {
    const records: CallRecord[] = [];
    for (const [key, { began, refusals, last, addresses }] of this.#windows) {
      if (now < began + REFUSAL_WINDOW) continue;
      this.#windows.delete(key);
      const count = refusals - RECORDED_REFUSALS;
      if (count > 0) records.push({ ...last, from: nameAddresses(addresses), count });
    }
    return records;
  }

  /** When the first window ends in which something was held back. */
  get nextEnd(): MonotonicTime | undefined {
    // The oldest window stands first, and all last equally long.
    for (const { began, refusals } of this.#windows.values()) {
      if (refusals > RECORDED_REFUSALS) return began + REFUSAL_WINDOW;
    }
    return undefined;
  }
}

function nameAddresses(addresses: ReadonlySet<string>): string {
  const named = [...addresses];
  const more = named.length > NAMED_ADDRESSES ? " and others" : "";
  return `${named.slice(0, NAMED_ADDRESSES).join(", ")}${more}`;
}

/** "192.0.2.1" of "192.0.2.1:40112"; what has no port stays. */
export function addressOf(from: string): string {
  return from.replace(/:\d+$/, "");
}
