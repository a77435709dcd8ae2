import * as v from "valibot";
import type { Logger } from "../../logging/logger.ts";
import { newWriteId } from "../../store/put-once.ts";
import { type Store, StoreError } from "../../store/store.ts";
import type { Milliseconds } from "../../units/units.ts";
import { fleetBuckets } from "../protocol.ts";
import { happeningSchema, operatorLimits, type ToldHappening } from "../protocol-operator.ts";

/** An event with its id, which stays its own after the operator that gave it has ended. */
export interface KeptEvent {
  readonly id: string;
  readonly happening: ToldHappening;
}

/** From an event to the write that keeps it: what a power cut takes at most. */
export const EVENTS_DELAY: Milliseconds = 1_000;
/** Events of one stored value. */
export const EVENTS_AT_ONCE = 200;

const pageSchema = v.strictObject({
  version: v.literal(1),
  events: v.array(v.strictObject({ id: v.string(), happening: happeningSchema })),
});

const digits = 12;
const keyOf = (page: number): string => String(page).padStart(digits, "0");

interface Page {
  readonly number: number;
  readonly events: number;
}

/**
 * The last events of a fleet in its store, some together, so that they are there when its operator
 * is started again, or another one acts. They decide nothing: one that cannot be kept is told all
 * the same, and one that is not understood is left out.
 */
export class EventJournal {
  readonly #store: Store;
  readonly #logger: Pick<Logger, "warn">;
  readonly #wakeAfter: (wait: Milliseconds, call: () => void) => Disposable;
  readonly #onFailure: (failure: unknown) => void;
  readonly #limit: number;
  #pages: Page[] = [];
  #next = 1;
  #waiting: KeptEvent[] = [];
  #wake: Disposable | undefined;
  #writing: Promise<void> = Promise.resolve();
  #isStopped = false;

  private constructor(parts: EventJournalParts) {
    this.#store = parts.store;
    this.#logger = parts.logger;
    this.#wakeAfter = (wait, call) => parts.wakeAfter(wait, call);
    this.#onFailure = (failure) => parts.onFailure(failure);
    this.#limit = parts.limit ?? operatorLimits.events;
  }

  /** @returns it, and what it has, in its order. @throws StoreError */
  static async open(
    parts: EventJournalParts,
  ): Promise<{ readonly journal: EventJournal; readonly events: readonly KeptEvent[] }> {
    const journal = new EventJournal(parts);
    return { journal, events: await journal.#load() };
  }

  async #load(): Promise<KeptEvent[]> {
    const pages = new Map<number, readonly KeptEvent[]>();
    for await (const event of this.#store.watch(fleetBuckets.events, "")) {
      if (event.kind === "synced") break;
      if (event.kind !== "entry" || event.entry.operation === "delete") continue;
      const { key, value } = event.entry;
      const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), pageSchema), value);
      // What a later operator wrote is its own, and goes when its turn comes.
      if (!parsed.success)
        this.#logger.warn(`${fleetBuckets.events}/${key} is left out: no events`);
      pages.set(Number(key), parsed.success ? parsed.output.events : []);
    }
    const sorted = [...pages].sort(([one], [other]) => one - other);
    this.#pages = sorted.map(([number, events]) => ({ number, events: events.length }));
    this.#next = (this.#pages.at(-1)?.number ?? 0) + 1;
    // A write whose answer was lost may have been done twice.
    const byId = new Map(sorted.flatMap(([, events]) => events.map((one) => [one.id, one])));
    return [...byId.values()].slice(-this.#limit);
  }

  /** It is kept a moment later, with what comes until then. */
  add(event: KeptEvent): void {
    this.#waiting.push(event);
    if (this.#waiting.length > this.#limit) this.#waiting = this.#waiting.slice(-this.#limit);
    if (this.#wake !== undefined || this.#isStopped) return;
    this.#wake = this.#wakeAfter(EVENTS_DELAY, () => {
      this.#wake = undefined;
      this.#writing = this.#writing.then(() => this.#write());
    });
  }

  /** What waits is written, as far as the store takes it. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#wake?.[Symbol.dispose]();
    this.#wake = undefined;
    this.#writing = this.#writing.then(() => this.#write());
    await this.#writing;
  }

  async #write(): Promise<void> {
    try {
      while (this.#waiting.length > 0) await this.#writePage();
    } catch (error) {
      if (!(error instanceof StoreError)) {
        this.#onFailure(error);
        return;
      }
      // They wait for the next event.
      this.#logger.warn(`events are not kept, ignoring: ${error.message}`);
    }
  }

  async #writePage(): Promise<void> {
    const events = this.#waiting.slice(0, EVENTS_AT_ONCE);
    const number = this.#next;
    this.#next += 1;
    const value = JSON.stringify({ version: 1, events });
    const options = { writeId: newWriteId(), expect: 0 };
    try {
      await this.#store.put(fleetBuckets.events, keyOf(number), value, options);
    } catch (error) {
      // Another operator has written there: it acted before this one, and ended late.
      if (error instanceof StoreError && error.problem.kind === "conflict") return;
      throw error;
    }
    this.#waiting = this.#waiting.slice(events.length);
    this.#pages.push({ number, events: events.length });
    await this.#removeOld();
  }

  /** As many stay as are told to those who come late. */
  async #removeOld(): Promise<void> {
    let kept = this.#pages.reduce((sum, { events }) => sum + events, 0);
    for (let [oldest] = this.#pages; oldest !== undefined; [oldest] = this.#pages) {
      if (kept - oldest.events < this.#limit) return;
      const options = { writeId: newWriteId() };
      await this.#store.delete(fleetBuckets.events, keyOf(oldest.number), options);
      kept -= oldest.events;
      this.#pages.shift();
    }
  }
}

export interface EventJournalParts {
  readonly store: Store;
  readonly logger: Pick<Logger, "warn">;
  wakeAfter(wait: Milliseconds, call: () => void): Disposable;
  onFailure(failure: unknown): void;
  /** Events that are kept; `operatorLimits.events` without it. */
  readonly limit?: number;
}
