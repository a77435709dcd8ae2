/** What a master that acts no more has begun to write lands nowhere. */
import { expect, test } from "bun:test";
import { MemoryStore } from "../../../src/store/memory-store.ts";
import { newWriteId } from "../../../src/store/put-once.ts";
import { FencedStore } from "../../../src/vm/master/fenced-store.ts";
import { masterBucket } from "../../../src/vm/master/records.ts";
import { rejectionOf } from "../../support/wait-for.ts";

const { name: bucket } = masterBucket;

function fenced(store: MemoryStore, { jump = 0 } = {}) {
  const place = { isActing: true, overtaken: [] as string[] };
  const over = new FencedStore({
    store,
    isOther: (key) => key === "acting",
    jump,
    isActing: () => place.isActing,
    onOvertaken: (key) => place.overtaken.push(key),
    write: async ({ key, value, expect: expected = 0 }) =>
      await store.put(bucket, key, value, { writeId: newWriteId(), expect: expected }),
  });
  const put = (key: string, value: string) =>
    over.put(bucket, key, value, { writeId: newWriteId() });
  return { over, place, put };
}

const readValue = async (store: MemoryStore, key: string) => (await store.get(bucket, key))?.value;

test("a late write of the one before finds another revision, whatever it is of", async () => {
  const store = new MemoryStore({ buckets: [masterBucket] });
  const old = fenced(store);
  await old.put("worker.a", "1");
  await old.put("current", "1");
  const next = fenced(store);
  await next.over.adopt();
  expect(await readValue(store, "worker.a")).toBe("1");
  for (const key of ["worker.a", "current"]) {
    await rejectionOf(old.put(key, "late"));
    expect(await readValue(store, key)).toBe("1");
  }
  const gone = old.over.delete(bucket, "worker.a", { writeId: newWriteId() });
  await rejectionOf(gone);
  expect(old.place.overtaken).toEqual(["worker.a", "current", "worker.a"]);
  // And it hinders nobody.
  await next.put("worker.a", "2");
  await next.over.delete(bucket, "current", { writeId: newWriteId() });
  await next.put("current", "2");
  expect(next.place.overtaken).toEqual([]);
  await store[Symbol.asyncDispose]();
});

test("a write of the one before that came first is taken over as well", async () => {
  const store = new MemoryStore({ buckets: [masterBucket] });
  const old = fenced(store);
  await old.put("worker.a", "1");
  let came = false;
  const next = new FencedStore({
    store,
    isOther: () => false,
    jump: 0,
    isActing: () => true,
    onOvertaken: () => {},
    write: async ({ key, value, expect: expected = 0 }) => {
      if (!came) await old.put("worker.a", "2");
      came = true;
      return await store.put(bucket, key, value, { writeId: newWriteId(), expect: expected });
    },
  });
  await next.adopt();
  expect(await readValue(store, "worker.a")).toBe("2");
  await rejectionOf(old.put("worker.a", "3"));
  await next.put(bucket, "worker.a", "4", { writeId: newWriteId() });
  await store[Symbol.asyncDispose]();
});

test("who does not act writes nothing, and takes nothing over", async () => {
  const store = new MemoryStore({ buckets: [masterBucket] });
  const one = fenced(store);
  await one.put("worker.a", "1");
  one.place.isActing = false;
  const refused = await rejectionOf(one.put("worker.a", "2"));
  expect((refused as Error).message).toContain("does not act");
  await rejectionOf(one.over.adopt());
  expect(await readValue(store, "worker.a")).toBe("1");
  await store[Symbol.asyncDispose]();
});

test("who says who acts is left alone, and revisions go on above the jump", async () => {
  const store = new MemoryStore({ buckets: [masterBucket] });
  const revision = await store.put(bucket, "acting", "x", { writeId: newWriteId() });
  const one = fenced(store, { jump: 1_000 });
  await one.over.adopt();
  expect((await store.get(bucket, "acting"))?.revision).toBe(revision);
  expect(await one.put("numbers", "1")).toBeGreaterThan(1_000);
  await store[Symbol.asyncDispose]();
});
