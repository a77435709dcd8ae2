/** A store that stands before another: one watch for many, and writes that wait their turn. */
import { describe, expect, test } from "bun:test";
import { MemoryStore } from "../../../src/store/memory-store.ts";
import { type RelayParts, RelayStore, relayLimits } from "../../../src/store/relay-store.ts";
import {
  type Entry,
  type Store,
  StoreError,
  type WatchEvent,
  type WatchOptions,
} from "../../../src/store/store.ts";
import { WatchQueue } from "../../../src/store/wire/watch-queue.ts";
import { conformanceBuckets } from "../../support/store-buckets.ts";
import {
  describeStore,
  freshWriteId,
  problemOf,
  WatchReader,
} from "../../support/store-conformance.ts";
import { waitFor } from "../../support/wait-for.ts";

describeStore(
  "a relay before the store in memory",
  async (buckets) => {
    const behind = new MemoryStore({ buckets });
    const mirrored = buckets.map(({ name }) => name);
    const store = new RelayStore({ store: behind, mirrored, onLost: () => {} });
    return {
      store,
      [Symbol.asyncDispose]: async () => {
        await store[Symbol.asyncDispose]();
        await behind[Symbol.asyncDispose]();
      },
    };
  },
  { countsBytes: true },
);

const entry = (key: string, revision: number, value = `${revision}`): Entry => ({
  ...{ bucket: "facts", key, revision, operation: "put", value, time: 0 },
  writeId: `w${revision}`,
});

/** A store whose watches a test tells itself, and whose writes it answers. */
class Behind {
  readonly queues: WatchQueue[] = [];
  readonly writes: PromiseWithResolvers<number>[] = [];
  readonly memory = new MemoryStore({ buckets: conformanceBuckets });
  readonly store: Store = {
    capabilities: this.memory.capabilities,
    get: (bucket, key) => this.memory.get(bucket, key),
    put: () => this.#write(),
    delete: () => this.#write(),
    watch: (_bucket, _pattern, options) => this.#watch(options),
    link: (signal) => this.memory.link(signal),
    [Symbol.asyncDispose]: async () => {},
  };

  relay(parts: Partial<RelayParts> = {}): RelayStore {
    const onLost = () => {};
    return new RelayStore({ store: this.store, mirrored: ["facts"], onLost, ...parts });
  }

  get queue(): WatchQueue {
    const [queue] = this.queues;
    if (queue === undefined) throw new Error("Nobody watches");
    return queue;
  }

  #write(): Promise<number> {
    const write = Promise.withResolvers<number>();
    this.writes.push(write);
    return write.promise;
  }

  #watch({ signal }: WatchOptions = {}): AsyncIterable<WatchEvent> {
    const queue = new WatchQueue({ limit: 1_000_000, onOverflow: () => {} });
    this.queues.push(queue);
    signal?.addEventListener("abort", () => queue.end());
    return queue.events();
  }
}

const put = (store: Store, key: string) =>
  store.put("facts", key, "1", { writeId: freshWriteId() });

describe("watches of single keys", () => {
  test("stand on one of their bucket, however many there are", async () => {
    const behind = new Behind();
    await using relay = behind.relay();
    const readers = Array.from(
      { length: 500 },
      (_, key) => new WatchReader(relay, "facts", `k.${key}`),
    );
    for (const key of [3, 4]) behind.queue.entry(entry(`k.${key}`, key));
    behind.queue.synced(9);
    expect(await readers[3]?.next()).toEqual({ kind: "entry", entry: entry("k.3", 3) });
    expect(await readers[3]?.next()).toEqual({ kind: "synced", revision: 9 });
    expect(await readers[400]?.next()).toEqual({ kind: "synced", revision: 9 });
    behind.queue.entry(entry("k.400", 10));
    expect(await readers[400]?.next()).toEqual({ kind: "entry", entry: entry("k.400", 10) });
    expect(behind.queues).toHaveLength(1);
    // One that comes later is told the latest.
    await using late = new WatchReader(relay, "facts", "k.400");
    expect(await late.next()).toEqual({ kind: "entry", entry: entry("k.400", 10) });
    expect(await late.next()).toEqual({ kind: "synced", revision: 10 });
    for (const reader of readers) await reader[Symbol.asyncDispose]();
  });

  test("are told all anew when the store went back, what is gone too", async () => {
    const behind = new Behind();
    await using relay = behind.relay();
    behind.queue.entry(entry("a", 7));
    behind.queue.entry(entry("b", 8));
    behind.queue.synced(8);
    await using a = new WatchReader(relay, "facts", "a");
    await using b = new WatchReader(relay, "facts", "b");
    for (const reader of [a, b]) expect((await reader.next()).kind).toBe("entry");
    for (const reader of [a, b]) expect((await reader.next()).kind).toBe("synced");
    behind.queue.reset();
    behind.queue.entry(entry("a", 2));
    behind.queue.synced(3);
    expect(await a.next()).toEqual({ kind: "reset" });
    expect(await a.next()).toEqual({ kind: "entry", entry: entry("a", 2) });
    expect(await a.next()).toEqual({ kind: "synced", revision: 3 });
    expect(await b.next()).toEqual({ kind: "reset" });
    expect(await b.next()).toEqual({ kind: "synced", revision: 3 });
  });

  test("that go on after a revision are told all anew", async () => {
    const behind = new Behind();
    await using relay = behind.relay();
    behind.queue.entry(entry("a", 7));
    behind.queue.synced(8);
    await using again = new WatchReader(relay, "facts", "a", 7);
    expect(await again.next()).toEqual({ kind: "reset" });
    expect(await again.next()).toEqual({ kind: "entry", entry: entry("a", 7) });
    expect((await again.next()).kind).toBe("synced");
  });

  test("that begin after a write know of it", async () => {
    const behind = new Behind();
    await using relay = behind.relay();
    behind.queue.synced(3);
    const write = put(relay, "a");
    behind.writes[0]?.resolve(5);
    await write;
    await using a = new WatchReader(relay, "facts", "a");
    const next = a.next();
    behind.queue.entry(entry("b", 4));
    behind.queue.entry(entry("a", 5));
    expect(await next).toEqual({ kind: "entry", entry: entry("a", 5) });
    expect(await a.next()).toEqual({ kind: "synced", revision: 5 });
  });

  test("end with the watch that they stand on, which is told", async () => {
    const behind = new Behind();
    const lost: unknown[] = [];
    await using relay = behind.relay({ onLost: (reason) => lost.push(reason) });
    await using a = new WatchReader(relay, "facts", "a");
    const next = a.next();
    const failure = new StoreError("Denied", { kind: "denied" });
    behind.queue.end(failure);
    expect(await problemOf(next)).toEqual({ kind: "denied" });
    await waitFor("a word of it", () => (lost.length === 1 ? true : undefined));
    expect(lost).toEqual([failure]);
    await using late = new WatchReader(relay, "facts", "a");
    expect(await problemOf(late.next())).toEqual({ kind: "denied" });
  });
});

test("one that retires writes nothing, and ends no watch but by its own signal", async () => {
  const behind = new Behind();
  const lost: unknown[] = [];
  const relay = behind.relay({ onLost: (reason) => lost.push(reason) });
  behind.queue.synced(1);
  const end = new AbortController();
  const events = relay.watch("facts", "a", { signal: end.signal });
  expect((await events.next()).value).toEqual({ kind: "synced", revision: 1 });
  let isOver = false;
  const next = events.next().finally(() => {
    isOver = true;
  });
  relay.retire();
  expect(await problemOf(put(relay, "a"))).toEqual({ kind: "unavailable" });
  // Its own watch of the bucket has ended by now, which an event later is seen.
  await behind.memory.get("facts", "a");
  expect([isOver, lost]).toEqual([false, []]);
  end.abort();
  expect((await next).done).toBe(true);
});

describe("requests", () => {
  const { requestsAtOnce, waitingRequests, longestWait } = relayLimits;

  test("over so many at once wait, and over so many that wait are refused", async () => {
    const behind = new Behind();
    await using relay = behind.relay();
    const writes = Array.from({ length: requestsAtOnce + waitingRequests }, () => put(relay, "a"));
    expect(behind.writes).toHaveLength(requestsAtOnce);
    expect(await problemOf(put(relay, "a"))).toEqual({ kind: "unavailable" });
    expect(await problemOf(relay.get("facts", "a"))).toEqual({ kind: "unavailable" });
    behind.writes[0]?.resolve(1);
    expect(await writes[0]).toBe(1);
    await waitFor("the next one", () => behind.writes.length === requestsAtOnce + 1 || undefined);
    for (let done = 1; done < writes.length; done += 1) {
      const write = await waitFor(`write ${done}`, () => behind.writes[done]);
      write.resolve(done + 1);
    }
    expect(await Promise.all(writes)).toHaveLength(writes.length);
  });

  test("that waited for too long are not sent any more", async () => {
    const behind = new Behind();
    const clock = { now: 1_000 };
    await using relay = behind.relay({ now: () => clock.now });
    const first = Array.from({ length: requestsAtOnce }, () => put(relay, "a"));
    const old = put(relay, "b");
    clock.now += 1;
    const newer = put(relay, "c");
    clock.now += longestWait;
    behind.writes[0]?.reject(new StoreError("No answer", { kind: "ambiguous" }));
    expect(await problemOf(old)).toEqual({ kind: "unavailable" });
    for (const write of behind.writes) write.resolve(1);
    expect(await newer).toBe(1);
    expect(
      (await Promise.allSettled(first)).filter(({ status }) => status === "rejected"),
    ).toHaveLength(1);
    expect(behind.writes).toHaveLength(requestsAtOnce + 1);
  });

  test("that wait when it is closed are refused", async () => {
    const behind = new Behind();
    const relay = behind.relay();
    const first = Array.from({ length: requestsAtOnce }, () => put(relay, "a"));
    const waiting = put(relay, "b");
    const ended = problemOf(waiting);
    await relay[Symbol.asyncDispose]();
    expect(await ended).toEqual({ kind: "unavailable" });
    for (const write of behind.writes) write.resolve(1);
    await Promise.all(first);
    expect(await problemOf(put(relay, "a"))).toEqual({ kind: "unavailable" });
  });
});
