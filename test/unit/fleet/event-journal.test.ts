/** The last events of a fleet: what is there after a restart, how much, and what is not kept. */
import { describe, expect, test } from "bun:test";
import { HappeningBook } from "../../../src/fleet/operator/event-book.ts";
import { EVENTS_AT_ONCE, EventJournal } from "../../../src/fleet/operator/event-journal.ts";
import { fleetStoreBuckets } from "../../../src/fleet/operator/records.ts";
import { fleetBuckets } from "../../../src/fleet/protocol.ts";
import { MemoryStore } from "../../../src/store/memory-store.ts";
import { newWriteId } from "../../../src/store/put-once.ts";
import { type Store, StoreError } from "../../../src/store/store.ts";

const happening = (message: string) => ({
  ...{ what: "done", device: "box", rollout: null, message, time: 1 },
});

/** A store that outlives its operators, and timers that a test has come. */
class World {
  readonly memory = new MemoryStore({ buckets: fleetStoreBuckets });
  readonly said: string[] = [];
  readonly failures: unknown[] = [];
  timers: (() => void)[] = [];
  refuse: (() => Error) | undefined;

  get store(): Store {
    const { memory } = this;
    return {
      ...{ capabilities: memory.capabilities, [Symbol.asyncDispose]: async () => {} },
      get: (bucket, key) => memory.get(bucket, key),
      put: async (bucket, key, value, options) => {
        if (this.refuse !== undefined) throw this.refuse();
        return await memory.put(bucket, key, value, options);
      },
      delete: (bucket, key, options) => memory.delete(bucket, key, options),
      watch: (bucket, pattern, options) => memory.watch(bucket, pattern, options),
      link: (signal) => memory.link(signal),
    };
  }

  async open(limit?: number) {
    return await EventJournal.open({
      store: this.store,
      logger: { warn: (message) => void this.said.push(message) },
      wakeAfter: (_wait, call) => {
        this.timers.push(call);
        const drop = () => {
          this.timers = this.timers.filter((one) => one !== call);
        };
        return { [Symbol.dispose]: drop };
      },
      onFailure: (failure) => void this.failures.push(failure),
      ...(limit !== undefined && { limit }),
    });
  }

  come(): void {
    for (const timer of this.timers.splice(0)) timer();
  }

  async pages(): Promise<string[]> {
    const keys: string[] = [];
    for await (const event of this.memory.watch(fleetBuckets.events, "")) {
      if (event.kind === "synced") return keys;
      if (event.kind === "entry" && event.entry.operation === "put") keys.push(event.entry.key);
    }
    return keys;
  }
}

const event = (id: string) => ({ id, happening: happening(id) });
const idsOf = (events: readonly { readonly id: string }[]) => events.map(({ id }) => id);

describe("after a restart", () => {
  test("what was told is there, in its order, with its ids", async () => {
    const world = new World();
    const { journal, events } = await world.open();
    expect(events).toEqual([]);
    for (const id of ["a-1", "a-2"]) journal.add(event(id));
    world.come();
    journal.add(event("a-3"));
    await journal.stop();
    const next = await world.open();
    expect(next.events).toEqual([event("a-1"), event("a-2"), event("a-3")]);
    next.journal.add(event("b-1"));
    await next.journal.stop();
    expect(idsOf((await world.open()).events)).toEqual(["a-1", "a-2", "a-3", "b-1"]);
  });

  test("whoever has seen one of before goes on behind it, also while it follows", async () => {
    const former = ["a-1", "a-2", "a-3"].map(event);
    const book = new HappeningBook("b", { former });
    book.add(happening("new"));
    expect(idsOf(book.after("a-2"))).toEqual(["a-3", "b-1"]);
    expect(idsOf(book.after(undefined))).toEqual(["a-1", "a-2", "a-3", "b-1"]);
    expect(idsOf(book.after("b-0"))).toEqual(["b-1"]);
    expect(["a-3", "b-1", "a-9", "c-1"].map((id) => book.knows(id))).toEqual([
      ...[true, true, false, false],
    ]);
    const stop = new AbortController();
    const told: string[] = [];
    for await (const { id } of book.follow("a-2", stop.signal)) {
      told.push(id);
      if (told.length === 2) stop.abort();
    }
    expect(told).toEqual(["a-3", "b-1"]);
    const few = new HappeningBook("b", { former, limit: 2 });
    expect(idsOf(few.after(undefined))).toEqual(["a-2", "a-3"]);
  });
});

describe("bounds", () => {
  test("as many are kept as are told, and what goes are the oldest", async () => {
    const world = new World();
    const { journal } = await world.open(3);
    for (let count = 1; count <= 7; count += 1) {
      journal.add(event(`a-${count}`));
      world.come();
      await journal.stop();
    }
    expect(await world.pages()).toHaveLength(3);
    expect(idsOf((await world.open(3)).events)).toEqual(["a-5", "a-6", "a-7"]);
  });

  test("no stored value has more than so many", async () => {
    const world = new World();
    const { journal } = await world.open();
    for (let count = 0; count <= EVENTS_AT_ONCE; count += 1) journal.add(event(`a-${count}`));
    expect(world.timers).toHaveLength(1);
    await journal.stop();
    expect(await world.pages()).toHaveLength(2);
    expect((await world.open()).events).toHaveLength(EVENTS_AT_ONCE + 1);
  });
});

describe("faults", () => {
  test("a store that takes none is named, and they are written with the next one", async () => {
    const world = new World();
    const { journal } = await world.open();
    world.refuse = () => new StoreError("No room", { kind: "full" });
    journal.add(event("a-1"));
    await journal.stop();
    expect(world.said).toEqual(["events are not kept, ignoring: No room"]);
    expect(await world.pages()).toEqual([]);
    world.refuse = undefined;
    await journal.stop();
    expect(idsOf((await world.open()).events)).toEqual(["a-1"]);
    world.refuse = () => new Error("Bug");
    journal.add(event("a-2"));
    await journal.stop();
    expect(world.failures).toEqual([new Error("Bug")]);
  });

  test("where another operator has written, it writes behind", async () => {
    const world = new World();
    const [one, other] = [await world.open(), await world.open()];
    other.journal.add(event("b-1"));
    await other.journal.stop();
    one.journal.add(event("a-1"));
    await one.journal.stop();
    expect(idsOf((await world.open()).events)).toEqual(["b-1", "a-1"]);
  });

  test("what is not understood is left out, and what was written twice told once", async () => {
    const world = new World();
    const { journal } = await world.open();
    journal.add(event("a-1"));
    await journal.stop();
    const put = async (key: string, value: string) =>
      await world.memory.put(fleetBuckets.events, key, value, { writeId: newWriteId() });
    await put("000000000002", JSON.stringify({ version: 1, events: [event("a-1")] }));
    await put("000000000003", '{"version":9}');
    expect(idsOf((await world.open()).events)).toEqual(["a-1"]);
    expect(world.said).toEqual(["fleet-events/000000000003 is left out: no events"]);
  });
});
