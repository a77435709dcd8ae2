/** Typed values in two versions: N reads both, and writes N-1 until the upgrade is committed. */
import { beforeEach, describe, expect, test } from "bun:test";
import * as v from "valibot";
import {
  Collection,
  type CollectionEvent,
  defineCollection,
  metaBucket,
  ValueUnreadable,
} from "../../../src/store/collection.ts";
import { MemoryStore } from "../../../src/store/memory-store.ts";
import { newWriteId } from "../../../src/store/put-once.ts";
import { bucket } from "../../support/embedded-store.ts";
import { problemOf } from "../../support/store-conformance.ts";
import { rejectionOf } from "../../support/wait-for.ts";

const one = v.object({ host: v.string() });
const two = v.object({ name: v.string(), note: v.optional(v.string()) });
const three = v.object({ name: v.string(), notes: v.array(v.string()) });

const first = defineCollection({ bucket: "hosts", version: 1, schema: one });
const second = defineCollection({
  bucket: "hosts",
  version: 2,
  schema: two,
  former: { schema: one, up: ({ host }) => ({ name: host }), down: ({ name }) => ({ host: name }) },
});
const third = defineCollection({
  bucket: "hosts",
  version: 3,
  schema: three,
  former: {
    schema: two,
    up: ({ name, note }) => ({ name, notes: note === undefined ? [] : [note] }),
    down: ({ name, notes: [note] }) => ({ name, ...(note !== undefined && { note }) }),
  },
});

let store: MemoryStore;
beforeEach(() => {
  store = new MemoryStore({ buckets: [bucket({ name: "hosts" }), metaBucket] });
});
const options = () => ({ writeId: newWriteId() });
const raw = async (key: string) => JSON.parse((await store.get("hosts", key))?.value ?? "null");

describe("an upgrade with live data", () => {
  test("old and new share the entries until the commit, and then the new has them", async () => {
    const old = await Collection.open(store, first);
    await old.put("a", { host: "A" }, options());
    const now = await Collection.open(store, second);
    expect(now.committed).toBe(1);
    expect((await now.get("a"))?.value).toEqual({ name: "A" });
    await now.put("b", { name: "B", note: "new" }, options());
    expect(await raw("b")).toEqual({ version: 1, value: { host: "B" } });
    expect((await old.get("b"))?.value).toEqual({ host: "B" });

    await now.commit();
    await now.put("c", { name: "C", note: "new" }, options());
    expect(await raw("c")).toEqual({ version: 2, value: { name: "C", note: "new" } });
    expect((await now.get("a"))?.value).toEqual({ name: "A" });
    const unread = await rejectionOf(old.get("c"));
    expect(unread).toBeInstanceOf(ValueUnreadable);
    expect(unread.message).toContain("version 2");
    expect(await rejectionOf(Collection.open(store, first))).toBeInstanceOf(ValueUnreadable);
  });

  test("one version after the other, never two at once", async () => {
    await Collection.open(store, first);
    const refused = await rejectionOf(Collection.open(store, third));
    expect(refused.message).toContain("one version after the other");
    await (await Collection.open(store, second)).commit();
    const now = await Collection.open(store, third);
    await now.put("a", { name: "A", notes: ["x", "y"] }, options());
    expect(await raw("a")).toEqual({ version: 2, value: { name: "A", note: "x" } });
    await now.commit();
    expect(now.committed).toBe(3);
  });

  test("a new store begins with the newest; who runs learns of a commit", async () => {
    expect((await Collection.open(store, third)).committed).toBe(3);
    store = new MemoryStore({ buckets: [bucket({ name: "hosts" }), metaBucket] });
    await Collection.open(store, first);
    const [here, there] = [
      await Collection.open(store, second),
      await Collection.open(store, second),
    ];
    await Promise.all([here.commit(), here.commit()]);
    expect(there.committed).toBe(1);
    await there.refresh();
    expect(there.committed).toBe(2);
    await there.commit();
  });

  test("entries of a time without versions are of the first", async () => {
    await store.put("hosts", "a", '{"version":1,"value":{"host":"A"}}', options());
    const now = await Collection.open(store, second);
    expect(now.committed).toBe(1);
    expect((await now.get("a"))?.value).toEqual({ name: "A" });
  });
});

describe("values", () => {
  test("that the schema refuses are not written", async () => {
    const hosts = await Collection.open(store, second);
    const wrong = { name: 7 } as unknown as { name: string };
    expect(await problemOf(hosts.put("a", wrong, options()))).toMatchObject({
      kind: "refused",
      expected: "name to be string",
    });
    expect(await store.get("hosts", "a")).toBeUndefined();
  });

  test("that cannot be read are told as such, and the others follow", async () => {
    const hosts = await Collection.open(store, second);
    for (const [key, text] of Object.entries({
      none: "",
      text: "hello",
      "no-version": '{"value":{"name":"A"}}',
      later: '{"version":3,"value":{"name":"A"}}',
      wrong: '{"version":2,"value":{"name":5}}',
      more: '{"version":2,"value":{"name":"A"},"more":1}',
      good: '{"version":2,"value":{"name":"A"}}',
    })) {
      await store.put("hosts", key, text, options());
    }
    await store.delete("hosts", "gone", options());
    const events: string[] = [];
    const tell = (event: CollectionEvent<unknown>) =>
      event.kind === "entry" || event.kind === "unreadable"
        ? `${event.kind} ${event.entry.key}`
        : event.kind;
    for await (const event of hosts.watch("")) {
      events.push(tell(event));
      if (event.kind === "synced") break;
    }
    expect(events).toEqual([
      ...["none", "text", "no-version", "later", "wrong", "more"].map((key) => `unreadable ${key}`),
      "entry good",
      "synced",
    ]);
    const later = await rejectionOf(hosts.get("later"));
    expect(later.message).toBe(
      "Cannot read later of hosts: expected a value of version 1 or 2, received version 3.",
    );
  });

  test("a deletion has none", async () => {
    const hosts = await Collection.open(store, second);
    const revision = await hosts.put("a", { name: "A" }, options());
    await hosts.delete("a", { ...options(), expect: revision });
    expect(await hosts.get("a")).toMatchObject({ operation: "delete", value: undefined });
  });
});

test("a definition needs a former version, unless it is the first", () => {
  expect(() => defineCollection({ bucket: "hosts", version: 2, schema: two })).toThrow("Bug");
});
