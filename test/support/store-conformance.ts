/** What every store does: one suite over memory, the embedded one, a wire, and NATS. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  type BucketDefinition,
  type Entry,
  type Store,
  StoreError,
  type StoreProblem,
  storeLimits,
  type WatchEvent,
} from "../../src/store/store.ts";
import { conformanceBuckets } from "./store-buckets.ts";
import { rejectionOf, withDeadline } from "./wait-for.ts";

export { conformanceBuckets };

/** A store to test, and what can be done to it. What cannot be is left out. */
export interface StoreHarness extends AsyncDisposable {
  readonly store: Store;
  /** Another client of the same store. */
  readonly another?: () => Promise<Store>;
  /** The server is killed (SIGKILL), and started again. Gives the store to go on with. */
  readonly restart?: () => Promise<Store>;
  /** The server is put back to what it was at `mark`: an older backup is restored. */
  readonly rewind?: { readonly mark: () => Promise<void>; readonly back: () => Promise<Store> };
  /** The server stands still (SIGSTOP), or cannot be reached, and is there again. */
  readonly away?: readonly {
    readonly name: string;
    readonly leave: () => Promise<void>;
    readonly comeBack: () => Promise<void>;
  }[];
  /** The disk of the server is filled, and has room again. */
  readonly disk?: { readonly fill: () => Promise<void>; readonly clear: () => Promise<void> };
  /** Whether a bucket that is over its size loses its oldest by the bytes of the seam. */
  readonly countsBytes?: boolean;
}

export type MakeStore = (buckets: readonly BucketDefinition[]) => Promise<StoreHarness>;

/** What a harness can do: known before there is one, because tests are defined before. */
export interface HarnessAbilities {
  readonly another?: boolean;
  readonly restart?: boolean;
  readonly rewind?: boolean;
  /** The names of `away`. */
  readonly away?: readonly string[];
  readonly disk?: boolean;
  readonly countsBytes?: boolean;
}

let count = 0;

/** A write id that no other write has. */
export function freshWriteId(): string {
  count += 1;
  return `${crypto.randomUUID()}-${count}`;
}

/** The problem of what a promise is rejected with. */
export async function problemOf(promise: Promise<unknown>): Promise<StoreProblem> {
  const error = await rejectionOf(promise);
  if (error instanceof StoreError) return error.problem;
  throw error;
}

/** Reads a watch event by event. */
export class WatchReader implements AsyncDisposable {
  readonly #end = new AbortController();
  readonly #events: AsyncIterator<WatchEvent>;

  constructor(store: Store, bucket: string, pattern: string, since?: number) {
    const options = { signal: this.#end.signal, ...(since !== undefined && { since }) };
    this.#events = store.watch(bucket, pattern, options)[Symbol.asyncIterator]();
  }

  async next(): Promise<WatchEvent> {
    const { value, done } = await withDeadline("an event of the watch", this.#events.next());
    if (done === true) throw new Error("The watch ended.");
    return value;
  }

  async entry(): Promise<Entry> {
    const event = await this.next();
    if (event.kind === "entry") return event.entry;
    throw new Error(`Expected an entry, and got ${event.kind}`);
  }

  /** What comes up to the next `synced`: the values by key, without deletions, and resets. */
  async synced(): Promise<{ values: Map<string, string>; revision: number; resets: number }> {
    const values = new Map<string, string>();
    let resets = 0;
    for (;;) {
      const event = await this.next();
      if (event.kind === "synced") return { values, revision: event.revision, resets };
      if (event.kind === "reset") {
        resets += 1;
        values.clear();
      } else apply(values, event.entry);
    }
  }

  /** Reads until a key has this value; a reset on the way is fine. */
  async until(key: string, value: string): Promise<{ events: number; resets: number }> {
    let resets = 0;
    for (let events = 1; ; events += 1) {
      const event = await this.next();
      if (event.kind === "reset") resets += 1;
      if (event.kind !== "entry") continue;
      if (event.entry.key === key && event.entry.value === value) return { events, resets };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    await withDeadline("the end of the watch", drain(this.#events));
  }
}

async function drain(events: AsyncIterator<WatchEvent>): Promise<void> {
  while ((await events.next()).done !== true);
}

function apply(values: Map<string, string>, entry: Entry): void {
  if (entry.operation === "put") values.set(entry.key, entry.value);
  else values.delete(entry.key);
}

/** Writes until it has landed, whatever becomes of a try: the same write id each time. */
async function persist(store: Store, key: string, value: string): Promise<number> {
  const writeId = freshWriteId();
  for (let tries = 0; ; tries += 1) {
    try {
      return await store.put("facts", key, value, { writeId });
    } catch (error) {
      const kind = error instanceof StoreError ? error.problem.kind : undefined;
      if (tries === 100 || (kind !== "ambiguous" && kind !== "unavailable")) throw error;
    }
  }
}

/** Defines the suite. `makeStore` makes an empty store for each test. */
export function describeStore(
  name: string,
  makeStore: MakeStore,
  abilities: HarnessAbilities = {},
): void {
  setDefaultTimeout(60_000);
  describe(name, () => {
    let harness: StoreHarness;
    let store: Store;
    beforeEach(async () => {
      harness = await makeStore(conformanceBuckets);
      store = harness.store;
    });
    afterEach(async () => {
      await harness[Symbol.asyncDispose]();
    });
    const suite: Suite = { harness: () => harness, store: () => store };
    describeWrites(suite);
    describeRefusals(suite);
    describeWatches(suite);
    describeSlowWatches(suite);
    describeBounds(suite, abilities);
    if (abilities.another) describeClients(suite);
    if (abilities.restart) describeRestarts(suite);
    if (abilities.rewind) describeRewinds(suite);
    if (abilities.disk) describeDisk(suite);
    for (const [index, way] of (abilities.away ?? []).entries()) describeAway(suite, index, way);
  });
}

interface Suite {
  readonly harness: () => StoreHarness;
  readonly store: () => Store;
}

const put = (store: Store, key: string, value: string, expect?: number, bucket = "facts") =>
  store.put(bucket, key, value, {
    writeId: freshWriteId(),
    ...(expect !== undefined && { expect }),
  });
const remove = (store: Store, key: string, expect?: number, bucket = "facts") =>
  store.delete(bucket, key, {
    writeId: freshWriteId(),
    ...(expect !== undefined && { expect }),
  });

function describeWrites({ store }: Suite): void {
  describe("writes", () => {
    test("a key that never was has no entry", async () => {
      expect(await store().get("facts", "a.b")).toBeUndefined();
    });

    test("a put is there, with all that it was written with", async () => {
      const writeId = freshWriteId();
      const before = Date.now();
      const revision = await store().put("facts", "a.b-c_D", 'ü "😀"\u0000\n', { writeId });
      const entry = await store().get("facts", "a.b-c_D");
      expect(entry).toMatchObject({
        bucket: "facts",
        key: "a.b-c_D",
        revision,
        operation: "put",
        value: 'ü "😀"\u0000\n',
        writeId,
      });
      expect(Math.abs((entry?.time ?? 0) - before)).toBeLessThan(60_000);
    });

    test("revisions rise, in all buckets and through deletions", async () => {
      const revisions = [
        await put(store(), "a", "1"),
        await put(store(), "a", "2", undefined, "records"),
        await put(store(), "b", "3", undefined, "records"),
        await put(store(), "a", "4"),
        await remove(store(), "a"),
        await put(store(), "a", "5"),
      ];
      const facts = [0, 3, 4, 5].map((index) => revisions[index] ?? 0);
      expect(facts).toEqual([...new Set(facts)].toSorted((a, b) => a - b));
      expect(revisions[1]).toBeLessThan(revisions[2] ?? 0);
    });

    test("a deletion is an entry, which another deletion may follow", async () => {
      await put(store(), "a", "1");
      const revision = await remove(store(), "a");
      expect(await store().get("facts", "a")).toMatchObject({
        operation: "delete",
        value: "",
        revision,
      });
      expect(await remove(store(), "a")).toBeGreaterThan(revision);
    });

    test("the empty text is a value", async () => {
      await put(store(), "a", "");
      expect(await store().get("facts", "a")).toMatchObject({ operation: "put", value: "" });
    });

    test("many at once all land", async () => {
      const keys = Array.from({ length: 500 }, (_, index) => `k.${index}`);
      const revisions = await Promise.all(keys.map((key) => put(store(), key, key)));
      expect(new Set(revisions).size).toBe(keys.length);
      for (const key of keys) expect((await store().get("facts", key))?.value).toBe(key);
    });
  });
  describeExpectations({ store });
}

function describeExpectations({ store }: Pick<Suite, "store">): void {
  describe("expected revisions", () => {
    test("0 makes a key, once", async () => {
      const revision = await put(store(), "a", "1", 0);
      expect(await problemOf(put(store(), "a", "2", 0))).toEqual({
        kind: "conflict",
        received: revision,
      });
      expect((await store().get("facts", "a"))?.value).toBe("1");
    });

    test("0 makes a deleted key again", async () => {
      await put(store(), "a", "1");
      await remove(store(), "a");
      await put(store(), "a", "2", 0);
      expect((await store().get("facts", "a"))?.value).toBe("2");
    });

    test("the present revision is replaced and deleted, another is not", async () => {
      const first = await put(store(), "a", "1");
      const second = await put(store(), "a", "2", first);
      const conflict = { kind: "conflict", received: second } as const;
      expect(await problemOf(put(store(), "a", "3", first))).toEqual(conflict);
      expect(await problemOf(remove(store(), "a", first))).toEqual(conflict);
      const third = await remove(store(), "a", second);
      expect(await problemOf(put(store(), "a", "4", second))).toEqual({
        kind: "conflict",
        received: third,
      });
    });

    test("a revision of a key that never was is a conflict with 0", async () => {
      expect(await problemOf(put(store(), "a", "1", 7))).toEqual({ kind: "conflict", received: 0 });
    });

    test("of many that expect the same, one lands", async () => {
      const first = await put(store(), "a", "0");
      const tries = Array.from({ length: 50 }, (_, index) => put(store(), "a", `${index}`, first));
      const landed = (await Promise.allSettled(tries)).filter((one) => one.status === "fulfilled");
      expect(landed).toHaveLength(1);
    });
  });

  describe("repetitions", () => {
    test("are answered with the revision that is there, whatever they expect", async () => {
      const writeId = freshWriteId();
      const revision = await store().put("facts", "a", "1", { writeId, expect: 0 });
      expect(await store().put("facts", "a", "1", { writeId, expect: 0 })).toBe(revision);
      expect(await store().put("facts", "a", "1", { writeId })).toBe(revision);
      expect((await store().get("facts", "a"))?.revision).toBe(revision);
    });

    test("of a deletion too", async () => {
      await put(store(), "a", "1");
      const writeId = freshWriteId();
      const revision = await store().delete("facts", "a", { writeId });
      expect(await store().delete("facts", "a", { writeId })).toBe(revision);
    });

    test("at once land once", async () => {
      const writeId = freshWriteId();
      const twice = () => store().put("facts", "a", "1", { writeId, expect: 0 });
      const [first, second] = await Promise.all([twice(), twice()]);
      expect(first).toBe(second);
    });
  });
}

function describeRefusals({ store }: Suite): void {
  describe("refusals", () => {
    const writeId = "write-id-of-a-refusal";
    const cases: readonly [string, () => Promise<unknown>][] = [
      ["a key with a space", () => store().put("facts", "a b", "", { writeId })],
      ["a key with an empty word", () => store().put("facts", "a..b", "", { writeId })],
      ["an empty key", () => store().put("facts", "", "", { writeId })],
      ["a star", () => store().get("facts", "a.*")],
      ["a bucket that nobody defined", () => store().put("unknown", "a", "", { writeId })],
      ["a bucket that cannot be", () => store().get("Facts/", "a")],
      ["an empty write id", () => store().put("facts", "a", "", { writeId: "" })],
      [
        "a write id over its limit",
        () => store().put("facts", "a", "", { writeId: "w".repeat(storeLimits.writeIdBytes + 1) }),
      ],
      ["half a revision", () => store().put("facts", "a", "", { writeId, expect: 0.5 })],
      ["a negative revision", () => store().delete("facts", "a", { writeId, expect: -1 })],
      ["half of a surrogate pair", () => store().put("facts", "a", "\ud83d", { writeId })],
      [
        "a key over its limit",
        () => store().put("facts", "k".repeat(storeLimits.keyBytes + 1), "", { writeId }),
      ],
      [
        "a value over its limit",
        () => store().put("facts", "a", "v".repeat(storeLimits.valueBytes + 1), { writeId }),
      ],
      ["a pattern with a star", () => new WatchReader(store(), "facts", "a.*").next()],
    ];
    for (const [what, act] of cases) {
      test(what, async () => {
        expect((await problemOf(act())).kind).toBe("refused");
      });
    }

    test("what is at the limits is taken", async () => {
      const key = "k".repeat(storeLimits.keyBytes);
      const value = "ü".repeat(storeLimits.valueBytes / 2);
      await store().put("facts", key, value, { writeId: "w".repeat(storeLimits.writeIdBytes) });
      expect((await store().get("facts", key))?.value).toBe(value);
    });
  });
}

function describeWatches({ store }: Suite): void {
  describe("watches", () => {
    test("an empty bucket is synced at once, and then tells what comes", async () => {
      await using watch = new WatchReader(store(), "facts", "");
      expect((await watch.synced()).values.size).toBe(0);
      const revision = await put(store(), "a", "1");
      expect(await watch.entry()).toMatchObject({ key: "a", value: "1", revision });
      await remove(store(), "a");
      expect(await watch.entry()).toMatchObject({ key: "a", operation: "delete", value: "" });
    });

    test("the latest of each key comes before synced, what is deleted does not live", async () => {
      await put(store(), "a", "1");
      await put(store(), "a", "2");
      await put(store(), "b", "1");
      await remove(store(), "b");
      await put(store(), "c", "1");
      await put(store(), "c", "other bucket", undefined, "records");
      await using watch = new WatchReader(store(), "facts", "");
      const { values } = await watch.synced();
      expect([...values].toSorted()).toEqual([
        ["a", "2"],
        ["c", "1"],
      ]);
    });

    test("a key, and the beginning of one", async () => {
      for (const key of ["a", "a.b", "a.b.c", "a.bb", "ab"]) await put(store(), key, key);
      await using one = new WatchReader(store(), "facts", "a.b");
      expect([...(await one.synced()).values.keys()]).toEqual(["a.b"]);
      await using many = new WatchReader(store(), "facts", "a.");
      const keys = [...(await many.synced()).values.keys()];
      expect(keys.toSorted()).toEqual(["a.b", "a.b.c", "a.bb"]);
      await put(store(), "ab", "no");
      await put(store(), "a.b.c", "yes");
      await put(store(), "a.b", "both");
      expect((await many.entry()).value).toBe("yes");
      expect((await many.entry()).value).toBe("both");
      expect((await one.entry()).value).toBe("both");
    });

    test("more keys than any list takes at once", async () => {
      const keys = Array.from({ length: 700 }, (_, index) => `k.${index}`);
      await Promise.all(keys.map((key) => put(store(), key, "1")));
      await using watch = new WatchReader(store(), "facts", "");
      const { values } = await watch.synced();
      expect(values.size).toBe(700);
    });
  });
  describeResumption({ store });
}

function describeResumption({ store }: Pick<Suite, "store">): void {
  describe("watches", () => {
    test("since a revision tells what came after it, deletions too", async () => {
      await put(store(), "a", "1");
      await put(store(), "b", "1");
      let since = 0;
      {
        await using watch = new WatchReader(store(), "facts", "");
        ({ revision: since } = await watch.synced());
      }
      await remove(store(), "a");
      await put(store(), "c", "1");
      await using watch = new WatchReader(store(), "facts", "", since);
      expect(await watch.entry()).toMatchObject({ key: "a", operation: "delete" });
      expect(await watch.entry()).toMatchObject({ key: "c", value: "1" });
      expect((await watch.next()).kind).toBe("synced");
    });

    test("since a revision that the store never gave is a reset", async () => {
      await put(store(), "a", "1");
      await using watch = new WatchReader(store(), "facts", "", Number.MAX_SAFE_INTEGER);
      const { values, resets } = await watch.synced();
      expect(resets).toBe(1);
      expect(values.get("a")).toBe("1");
    });

    test("a volatile bucket is watched like any other", async () => {
      await put(store(), "a", "1", undefined, "beats");
      await using watch = new WatchReader(store(), "beats", "a");
      expect((await watch.synced()).values.get("a")).toBe("1");
      await put(store(), "a", "2", undefined, "beats");
      expect((await watch.entry()).value).toBe("2");
    });

    test("a signal that was given before ends it at once", async () => {
      const signal = AbortSignal.abort();
      const events: WatchEvent[] = [];
      for await (const event of store().watch("facts", "", { signal })) events.push(event);
      expect(events).toEqual([]);
    });

    test("the link is up, and its telling ends with the signal", async () => {
      const end = new AbortController();
      for await (const state of store().link(end.signal)) {
        expect(state).toBe("up");
        end.abort();
      }
    });
  });
}

function describeSlowWatches({ store }: Suite): void {
  describe("slow watchers", () => {
    test("are told the latest of each key at last, in the order of revisions", async () => {
      await using watch = new WatchReader(store(), "facts", "");
      await watch.synced();
      for (let round = 0; round < 20; round += 1) {
        const writes = Array.from({ length: 200 }, (_, key) =>
          put(store(), `k.${key}`, `${round}`),
        );
        await Promise.all(writes);
      }
      await put(store(), "end", "end");
      const values = new Map<string, string>();
      let last = 0;
      for (;;) {
        const event = await watch.next();
        if (event.kind !== "entry") {
          if (event.kind === "reset") last = 0;
          continue;
        }
        expect(event.entry.revision).toBeGreaterThan(last);
        last = event.entry.revision;
        values.set(event.entry.key, event.entry.value);
        if (event.entry.key === "end") break;
      }
      expect(values.size).toBe(201);
      for (let key = 0; key < 200; key += 1) expect(values.get(`k.${key}`)).toBe("19");
    });

    test("two watchers of different pace see the same end", async () => {
      await using slow = new WatchReader(store(), "facts", "");
      await using quick = new WatchReader(store(), "facts", "");
      await slow.synced();
      await quick.synced();
      for (let value = 1; value <= 100; value += 1) {
        await put(store(), "a", `${value}`);
        expect((await quick.until("a", `${value}`)).resets).toBe(0);
      }
      expect((await slow.until("a", "100")).resets).toBe(0);
    });
  });
}

function describeBounds({ store }: Suite, { countsBytes }: HarnessAbilities): void {
  if (countsBytes !== true) return;
  describe("bounds of a bucket", () => {
    const kilobyte = "v".repeat(1_000);

    test("the oldest of an expendable one go", async () => {
      for (let key = 0; key < 100; key += 1) {
        await put(store(), `k.${key}`, kilobyte, undefined, "records");
      }
      await using watch = new WatchReader(store(), "records", "");
      const keys = [...(await watch.synced()).values.keys()];
      expect(keys).toEqual(Array.from({ length: 65 }, (_, index) => `k.${index + 35}`));
      expect(await store().get("records", "k.34")).toBeUndefined();
    });

    test("one that may lose nothing refuses until something is deleted", async () => {
      for (let key = 0; key < 4; key += 1) {
        await put(store(), `k.${key}`, kilobyte, undefined, "few");
      }
      expect(await problemOf(put(store(), "k.4", kilobyte, undefined, "few"))).toEqual({
        kind: "full",
      });
      expect((await store().get("few", "k.0"))?.value).toBe(kilobyte);
      await put(store(), "k.0", "shorter", undefined, "few");
      await put(store(), "k.4", "v".repeat(900), undefined, "few");
      await remove(store(), "k.1", undefined, "few");
      await put(store(), "k.5", kilobyte, undefined, "few");
      expect((await store().get("few", "k.2"))?.value).toBe(kilobyte);
    });
  });
}

function describeClients({ harness, store }: Suite): void {
  describe("several clients", () => {
    test("see each other's writes, and one of two that expect the same lands", async () => {
      await using other = await harness().another?.();
      if (other === undefined) throw new Error("This harness has no other client.");
      const first = await put(store(), "a", "1");
      expect((await other.get("facts", "a"))?.revision).toBe(first);
      await using watch = new WatchReader(store(), "facts", "a");
      await watch.synced();
      const outcomes = await Promise.allSettled([
        put(store(), "a", "2", first),
        put(other, "a", "3", first),
      ]);
      expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
      const landed = outcomes[0].status === "fulfilled" ? "2" : "3";
      expect((await watch.entry()).value).toBe(landed);
    });
  });
}

function describeRestarts({ harness, store }: Suite): void {
  describe("a killed server", () => {
    const restart = async () => {
      const again = await harness().restart?.();
      if (again === undefined) throw new Error("This harness cannot restart.");
      return again;
    };

    test("has what was acknowledged, and lets go of what is volatile", async () => {
      const writes = Array.from({ length: 100 }, (_, key) => put(store(), `k.${key}`, `${key}`));
      const revisions = await Promise.all(writes);
      await put(store(), "a", "1", undefined, "beats");
      const again = await restart();
      for (let key = 0; key < 100; key += 1) {
        expect(await again.get("facts", `k.${key}`)).toMatchObject({
          revision: revisions[key] ?? 0,
          value: `${key}`,
        });
      }
      expect(await persist(again, "later", "1")).toBeGreaterThan(Math.max(...revisions));
      expect(await again.get("beats", "a")).toBeUndefined();
    });

    test("a write in flight has landed, or not, and its repetition lands once", async () => {
      const writeId = freshWriteId();
      const write = store()
        .put("facts", "a", "1", { writeId, expect: 0 })
        .catch(() => undefined);
      const again = await restart();
      await write;
      const revision = await again.put("facts", "a", "1", { writeId, expect: 0 });
      expect(await again.get("facts", "a")).toMatchObject({ writeId, revision });
    });

    test("a watch goes on since what it knew", async () => {
      await put(store(), "a", "1");
      await put(store(), "b", "1");
      let since = 0;
      {
        await using watch = new WatchReader(store(), "facts", "");
        ({ revision: since } = await watch.synced());
      }
      await put(store(), "b", "2");
      const again = await restart();
      await using watch = new WatchReader(again, "facts", "", since);
      const { values, resets } = await watch.synced();
      expect(resets).toBe(0);
      expect([...values]).toEqual([["b", "2"]]);
    });
  });
}

function describeRewinds({ harness, store }: Suite): void {
  test("a rewound store gives no revision twice, and resets who knows what is gone", async () => {
    const rewind = harness().rewind;
    if (rewind === undefined) throw new Error("This harness cannot be rewound.");
    await put(store(), "a", "1");
    await rewind.mark();
    await put(store(), "a", "2");
    await put(store(), "b", "1");
    let since = 0;
    {
      await using watch = new WatchReader(store(), "facts", "");
      ({ revision: since } = await watch.synced());
    }
    const again = await rewind.back();
    expect(await again.get("facts", "a")).toMatchObject({ value: "1" });
    expect(await persist(again, "c", "1")).toBeGreaterThan(since);
    await using watch = new WatchReader(again, "facts", "", since);
    const { values, resets } = await watch.synced();
    expect(resets).toBe(1);
    expect(Object.fromEntries(values)).toEqual({ a: "1", c: "1" });
  });
}

function describeDisk({ harness, store }: Suite): void {
  test("a full disk refuses writes with nothing half-written, and takes them again", async () => {
    const disk = harness().disk;
    if (disk === undefined) throw new Error("This harness has no disk to fill.");
    await put(store(), "a", "before");
    await disk.fill();
    const value = "v".repeat(storeLimits.valueBytes);
    let refusals = 0;
    for (let key = 0; key < 64 && refusals === 0; key += 1) {
      const problem = await put(store(), "a", value).then(() => undefined, problemIn);
      if (problem?.kind === "full") refusals += 1;
      else if (problem !== undefined) throw new Error(`Expected full, and got ${problem.kind}`);
    }
    expect(refusals).toBe(1);
    const { value: there } = (await store().get("facts", "a")) ?? { value: "" };
    expect(there === "before" || there === value).toBe(true);
    await disk.clear();
    await persist(store(), "a", "after");
    expect((await store().get("facts", "a"))?.value).toBe("after");
  });
}

const problemIn = (error: unknown): StoreProblem => {
  if (error instanceof StoreError) return error.problem;
  throw error;
};

function describeAway({ harness, store }: Suite, index: number, name: string): void {
  describe(`a server that is away (${name})`, () => {
    const away = () => {
      const way = harness().away?.[index];
      if (way === undefined) throw new Error(`This harness has no ${name}.`);
      return way;
    };

    test("a write meanwhile is no success, and its repetition lands once", async () => {
      await put(store(), "a", "0");
      await away().leave();
      const writeId = freshWriteId();
      const problem = await problemOf(store().put("facts", "b", "1", { writeId, expect: 0 }));
      expect(["unavailable", "ambiguous"]).toContain(problem.kind);
      await away().comeBack();
      for (;;) {
        try {
          const revision = await store().put("facts", "b", "1", { writeId, expect: 0 });
          expect(await store().get("facts", "b")).toMatchObject({ writeId, revision });
          return;
        } catch (error) {
          if (!["unavailable", "ambiguous"].includes(problemIn(error).kind)) throw error;
        }
      }
    });

    test("a watch waits, and tells what came meanwhile", async () => {
      await using watch = new WatchReader(store(), "facts", "");
      await watch.synced();
      await away().leave();
      await away().comeBack();
      await persist(store(), "a", "1");
      await watch.until("a", "1");
    });

    test("the link is told as down or stale, and as up again", async () => {
      const end = new AbortController();
      const states = store().link(end.signal)[Symbol.asyncIterator]();
      const next = async () =>
        (await withDeadline("a state of the link", states.next())).value as string;
      expect(await next()).toBe("up");
      await away().leave();
      expect(["down", "stale"]).toContain(await next());
      await away().comeBack();
      for (;;) if ((await next()) === "up") break;
      end.abort();
    });
  });
}
