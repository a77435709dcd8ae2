/** Watchers: what waits for a slow one, how many there may be, and when one lists again. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { MemoryTable } from "../../../src/store/memory-table.ts";
import type { Entry, WatchEvent } from "../../../src/store/store.ts";
import { WatchHub, watchLimits } from "../../../src/store/watch-hub.ts";
import { bucket } from "../../support/embedded-store.ts";
import { problemOf } from "../../support/store-conformance.ts";

setDefaultTimeout(60_000);

/** A table with its hub, and how often the table was read. */
function world(options: { size?: number } = {}) {
  const definition = bucket({ name: "b", expendable: true, ...options });
  const table = new MemoryTable(definition, 0);
  let reads = 0;
  let revision = 0;
  const hub = new WatchHub({
    after: (_bucket, pattern, after, limit) => {
      reads += 1;
      return table.after(pattern, after, limit);
    },
    last: () => table.last,
    floor: () => table.floor,
    vouchesFor: (_bucket, since) => since >= table.floor && since <= revision,
  });
  const write = (key: string, value = "v", operation: Entry["operation"] = "put") => {
    revision += 1;
    const entry = {
      bucket: "b",
      key,
      revision,
      operation,
      value,
      writeId: `w${revision}`,
      time: 0,
    };
    table.put(entry, 0);
    hub.publish([entry]);
    return revision;
  };
  return { hub, table, write, reads: () => reads };
}

async function take(events: AsyncIterator<WatchEvent>, count: number): Promise<string[]> {
  const told: string[] = [];
  while (told.length < count) {
    const { value } = await events.next();
    const event = value as WatchEvent;
    const isEntry = event.kind === "entry";
    told.push(isEntry ? `${event.entry.key}=${event.entry.value}` : event.kind);
  }
  return told;
}

const watch = (hub: WatchHub, pattern = "", since?: number) =>
  hub.watch("b", pattern, since === undefined ? {} : { since })[Symbol.asyncIterator]();

describe("what waits for a watcher", () => {
  test("is handed over up to the limit, without reading the table", async () => {
    const { hub, write, reads } = world();
    const events = watch(hub);
    expect(await take(events, 1)).toEqual(["synced"]);
    const before = reads();
    for (let key = 0; key < watchLimits.waitingKeys; key += 1) write(`k.${key}`);
    write("k.3", "later");
    const told = await take(events, watchLimits.waitingKeys);
    expect(told.at(-1)).toBe("k.3=later");
    expect(told.filter((one) => one.startsWith("k.3="))).toHaveLength(1);
    expect(reads()).toBe(before);
  });

  test("over the limit is let go of, and read from the table", async () => {
    const { hub, write, reads } = world();
    const events = watch(hub);
    await take(events, 1);
    const before = reads();
    const count = 3 * watchLimits.waitingKeys;
    for (let key = 0; key < count; key += 1) write(`k.${key}`);
    const told = await take(events, count);
    expect(told).toEqual(Array.from({ length: count }, (_, key) => `k.${key}=v`));
    expect(reads()).toBeGreaterThan(before);
    write("last");
    expect(await take(events, 1)).toEqual(["last=v"]);
  });
});

describe("a watcher lists again", () => {
  test("when retention removed what it had not been told", async () => {
    const { hub, write } = world({ size: 2_000 });
    const events = watch(hub);
    await take(events, 1);
    for (let key = 0; key < 500; key += 1) write(`k.${key}`, "0123456789");
    const told = await take(events, 2);
    expect(told[0]).toBe("reset");
    expect(told[1]).not.toBe("k.0=0123456789");
  });

  test("never when it keeps up, however much is removed behind it", async () => {
    const { hub, write } = world({ size: 2_000 });
    const events = watch(hub);
    await take(events, 1);
    for (let key = 0; key < 500; key += 1) {
      write(`k.${key}`);
      expect(await take(events, 1)).toEqual([`k.${key}=v`]);
    }
  });

  test("when it resumes from before what retention removed", async () => {
    const { hub, write, table } = world({ size: 200 });
    const since = write("a");
    write("a", "", "delete");
    for (let key = 0; key < 100; key += 1) write(`k.${key}`);
    expect(table.floor).toBeGreaterThan(since);
    expect((await take(watch(hub, "", since), 1))[0]).toBe("reset");
  });

  test("a deletion between two looks at a long list is told", async () => {
    const { hub, write } = world();
    for (let key = 0; key < 300; key += 1) write(`k.${key}`);
    const events = watch(hub);
    expect(await take(events, 10)).toHaveLength(10);
    write("k.5", "", "delete");
    const told = await take(events, 292);
    expect(told.at(-2)).toBe("k.5=");
    expect(told.at(-1)).toBe("synced");
  });
});

describe("watchers", () => {
  test("are bounded in number, and leave when they end", async () => {
    const { hub } = world();
    const all: AsyncGenerator<WatchEvent, void>[] = [];
    for (let count = 0; count < watchLimits.watchers; count += 1) {
      const one = hub.watch("b", "a");
      await one.next();
      all.push(one);
    }
    expect(await problemOf(hub.watch("b", "a").next())).toEqual({ kind: "unavailable" });
    await all[0]?.return();
    expect((await hub.watch("b", "a").next()).value).toMatchObject({ kind: "synced" });
    hub.close();
    expect((await all[1]?.next())?.done).toBe(true);
    expect(hub.count).toBeLessThan(watchLimits.watchers);
  });
});
