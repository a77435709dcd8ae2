/** The embedded store's bounds, its retention, and what becomes of what grows old. */

import { Database as Sqlite } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { Database } from "../../../src/store/database.ts";
import { type EmbeddedStore, embeddedLimits } from "../../../src/store/embedded-store.ts";
import { incarnationLimits } from "../../../src/store/incarnation.ts";
import { retentionLimits } from "../../../src/store/retention.ts";
import { storeLimits } from "../../../src/store/store.ts";
import { bucket, openStore, putOne, testClocks } from "../../support/embedded-store.ts";
import { freshWriteId, problemOf, WatchReader } from "../../support/store-conformance.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

setDefaultTimeout(60_000);

let folder: TemporaryFolder;
let place: string;
let store: EmbeddedStore | undefined;

beforeEach(() => {
  folder = temporaryFolder();
  place = folder.file("store");
});
afterEach(async () => {
  await store?.[Symbol.asyncDispose]();
  store = undefined;
  folder[Symbol.dispose]();
});

const days = (count: number) => count * 24 * 3_600_000;
const buckets = [
  bucket({ name: "facts" }),
  bucket({ name: "logs", age: days(10), expendable: true }),
  bucket({ name: "notes", age: days(20), expendable: true }),
  bucket({ name: "beats", age: days(1), volatile: true }),
];

describe("writes that wait", () => {
  test("over the limit are unavailable, the others land", async () => {
    store = openStore(place, { buckets });
    const writes = Array.from({ length: embeddedLimits.waitingWrites + 1 }, (_, key) =>
      putOne(store as EmbeddedStore, "facts", `k.${key}`, ""),
    );
    const outcomes = await Promise.allSettled(writes);
    const refused = outcomes.filter(({ status }) => status === "rejected");
    expect(refused).toHaveLength(1);
    expect(outcomes.at(-1)).toMatchObject({ reason: { problem: { kind: "unavailable" } } });
    await putOne(store, "facts", "later", "");
  });

  test("have a limit in bytes", async () => {
    store = openStore(place, { buckets });
    const value = "v".repeat(storeLimits.valueBytes);
    const count = Math.floor(embeddedLimits.waitingBytes / (value.length + 1)) + 1;
    const writes = Array.from({ length: count }, () =>
      putOne(store as EmbeddedStore, "facts", "k", value),
    );
    const refused = (await Promise.allSettled(writes)).filter((one) => one.status === "rejected");
    expect(refused).toHaveLength(1);
  });

  test("other work has its turn between two transactions", async () => {
    store = openStore(place, { buckets });
    let turns = 0;
    let isOver = false;
    const count = () => {
      turns += 1;
      if (!isOver) setImmediate(count);
    };
    setImmediate(count);
    const writes = Array.from({ length: 8 * embeddedLimits.writesAtOnce }, (_, key) =>
      putOne(store as EmbeddedStore, "facts", `k.${key}`, ""),
    );
    await Promise.all(writes);
    isOver = true;
    expect(turns).toBeGreaterThanOrEqual(8);
  });

  test("all land when the store is closed", async () => {
    store = openStore(place, { buckets });
    const writes = Array.from({ length: 1_000 }, (_, key) =>
      putOne(store as EmbeddedStore, "facts", `k.${key}`, ""),
    );
    await store[Symbol.asyncDispose]();
    expect(new Set(await Promise.all(writes)).size).toBe(1_000);
    expect((await problemOf(putOne(store, "facts", "k", ""))).kind).toBe("unavailable");
  });
});

describe("revisions", () => {
  test("are promised outside of the database, again and again", async () => {
    store = openStore(place, { buckets });
    const promised = () =>
      JSON.parse(readFileSync(`${place}/incarnation.json`, "utf8")).reserved as number;
    const before = promised();
    for (let count = 0; count <= incarnationLimits.reservation; count += 1) {
      await store.put("beats", "k", "", { writeId: `w${count}` });
    }
    expect(promised()).toBeGreaterThan(before);
    expect(store.revision).toBeLessThanOrEqual(promised());
  });

  test("go on above whatever was promised, when it is opened again", async () => {
    store = openStore(place, { buckets });
    const first = await putOne(store, "facts", "a", "1");
    const promised = JSON.parse(readFileSync(`${place}/incarnation.json`, "utf8")).reserved;
    await store[Symbol.asyncDispose]();
    store = openStore(place, { buckets });
    expect(await putOne(store, "facts", "a", "2")).toBeGreaterThan(promised);
    expect(promised).toBeGreaterThan(first);
  });
});

test("a volatile bucket leaves the disk alone", async () => {
  store = openStore(place, { buckets });
  await putOne(store, "facts", "a", "1");
  const sizes = () => readdirSync(place).map((name) => statSync(`${place}/${name}`).size);
  const before = sizes();
  for (let count = 0; count < 1_000; count += 1) await putOne(store, "beats", "a", "v".repeat(99));
  expect(sizes()).toEqual(before);
});

describe("age", () => {
  test("what was not written for so long goes, by the time that the store ran", async () => {
    const clocks = testClocks();
    store = openStore(place, { buckets, clocks });
    await putOne(store, "logs", "old", "1");
    await putOne(store, "notes", "old", "1");
    await putOne(store, "facts", "old", "1");
    await putOne(store, "beats", "old", "1");
    clocks.pass(days(11));
    await putOne(store, "logs", "new", "1");
    await store.tend();
    expect(await store.get("logs", "old")).toBeUndefined();
    expect((await store.get("logs", "new"))?.value).toBe("1");
    expect((await store.get("notes", "old"))?.value).toBe("1");
    expect((await store.get("facts", "old"))?.value).toBe("1");
    expect(await store.get("beats", "old")).toBeUndefined();
  });

  test("a wall clock of 1970 or 2045 makes nothing older, nor does a pause", async () => {
    for (const wall of [0, Date.UTC(2045, 0, 1)]) {
      store = openStore(place, { buckets, clocks: { wall: () => wall, monotonic: () => 5 } });
      if (wall === 0) await putOne(store, "logs", "a", "1");
      await store.tend();
      expect((await store.get("logs", "a"))?.value).toBe("1");
      await store[Symbol.asyncDispose]();
    }
  });

  test("the time that it ran is counted over openings", async () => {
    for (let opening = 0; opening < 3; opening += 1) {
      const clocks = testClocks();
      store = openStore(place, { buckets, clocks });
      if (opening === 0) await putOne(store, "logs", "a", "1");
      clocks.pass(days(4));
      await store.tend();
      expect((await store.get("logs", "a")) === undefined).toBe(opening === 2);
      await store[Symbol.asyncDispose]();
    }
  });

  test("deletions go after a time of their own; who resumes from before lists again", async () => {
    const clocks = testClocks();
    store = openStore(place, { buckets, clocks });
    const since = await putOne(store, "facts", "a", "1");
    await putOne(store, "facts", "b", "1");
    await store.delete("facts", "a", { writeId: freshWriteId() });
    clocks.pass(retentionLimits.deletionAge - 1_000_000);
    await store.tend();
    expect((await store.get("facts", "a"))?.operation).toBe("delete");
    clocks.pass(2_000_000);
    await store.tend();
    expect(await store.get("facts", "a")).toBeUndefined();
    expect((await store.get("facts", "b"))?.value).toBe("1");
    await using watch = new WatchReader(store, "facts", "", since);
    expect(await watch.synced()).toMatchObject({ resets: 1, values: new Map([["b", "1"]]) });
  });

  test("more than a transaction may hold goes in several", async () => {
    const clocks = testClocks();
    store = openStore(place, { buckets, clocks });
    const count = 2 * retentionLimits.atOnce + 1;
    const keys = Array.from({ length: count }, (_, index) => `k.${index}`);
    await Promise.all(keys.map((key) => putOne(store as EmbeddedStore, "logs", key, "")));
    clocks.pass(days(11));
    await store.tend();
    expect(store.usage().buckets.find((one) => one.bucket === "logs")?.entries).toBe(0);
  });
});

describe("a budget", () => {
  const budget = 8 * 1024 ** 2;
  const value = "v".repeat(10_000);
  const fill = async (name: string, count: number) => {
    const keys = Array.from({ length: count }, (_, key) => `k.${key}`);
    await Promise.all(keys.map((key) => putOne(store as EmbeddedStore, name, key, value)));
  };
  const present = async (name: string, key: number) =>
    (await store?.get(name, `k.${key}`)) !== undefined;

  test("below nine tenths nothing goes; above, the oldest that may", async () => {
    const clocks = testClocks();
    store = openStore(place, { buckets, clocks, budget });
    await fill("facts", 100);
    await fill("logs", 100);
    clocks.pass(1_000);
    await fill("notes", 300);
    await store.tend();
    expect(await present("logs", 0)).toBe(true);
    await fill("facts", 360);
    await store.tend();
    const { database } = store.usage();
    expect(database.bytes).toBeLessThanOrEqual(budget * retentionLimits.fullness);
    expect(await present("logs", 0)).toBe(false);
    expect(await present("notes", 299)).toBe(true);
    expect(await present("facts", 0)).toBe(true);
    expect(statSync(`${place}/store.db`).size).toBe(database.bytes);
  });

  test("what may not go stays, and more of it is refused; the rest goes at once", async () => {
    store = openStore(place, { buckets, budget });
    await fill("logs", 200);
    await fill("facts", 600).catch(() => {});
    expect(await problemOf(fill("facts", 900))).toEqual({ kind: "full" });
    expect(await present("logs", 199)).toBe(false);
    expect(await present("facts", 0)).toBe(true);
    await store.tend();
    expect(await present("facts", 0)).toBe(true);
    const revision = (await store.get("facts", "k.0"))?.revision ?? 0;
    await store[Symbol.asyncDispose]();
    store = openStore(place, { buckets });
    expect((await store.get("facts", "k.0"))?.revision).toBe(revision);
    await fill("facts", 1);
  });
});

test("usage tells what there is, how it grows, and when it is full", async () => {
  const clocks = testClocks();
  store = openStore(place, { buckets, clocks });
  for (let hour = 0; hour < 24; hour += 1) {
    await putOne(store, "facts", `k.${hour}`, "v".repeat(99_000));
    await store.tend();
    clocks.pass(3_600_000);
  }
  const usage = store.usage();
  const facts = usage.buckets.find(({ bucket: name }) => name === "facts");
  expect(facts).toMatchObject({ entries: 24, size: 64 * 1024 ** 2 });
  expect(facts?.bytes).toBeGreaterThan(24 * 99_000);
  expect(facts?.bytesPerDay).toBeGreaterThan(2_300_000);
  expect((facts?.fullAfter ?? 0) / days(1)).toBeCloseTo(27, -1);
  expect(facts?.oldest).toBeGreaterThanOrEqual(24 * 3_600_000);
  expect(usage.database.bytesPerDay).toBeGreaterThan(2_000_000);
  expect(usage.disk.free).toBeLessThan(usage.disk.total);
});

test("samples are bounded", async () => {
  await openStore(place, { buckets })[Symbol.asyncDispose]();
  using database = Database.open(`${place}/store.db`);
  database.begin();
  const { samples } = retentionLimits;
  for (let hour = 0; hour < samples + 50; hour += 1) {
    database.addSample("facts", { clock: hour * 3_600_000, bytes: hour }, samples);
  }
  database.commit();
  expect(database.samples("facts")).toHaveLength(samples);
  expect(database.samples("facts")[0]?.bytes).toBe(50);
});

test("files are the owner's alone", async () => {
  store = openStore(place, { buckets });
  await putOne(store, "facts", "a", "1");
  await store.ledger.spend({ kind: "token", id: "a", issued: store.revision });
  await store.backup(folder.file("backup"));
  const files = readdirSync(place).map((name) => `${place}/${name}`);
  for (const path of [...files, folder.file("backup")]) {
    expect([path, (statSync(path).mode & 0o777).toString(8)]).toEqual([path, "600"]);
  }
  expect(statSync(place).mode & 0o777).toBe(0o700);
  expect(existsSync(`${place}/store.db-wal`)).toBe(true);
});

describe("what SQLite cannot do", () => {
  test("a commit that cannot be written through is ambiguous, and the store stops", async () => {
    store = openStore(place, { buckets });
    const before = await putOne(store, "facts", "a", "1");
    const failure = Object.assign(new Error("disk I/O error"), { code: "SQLITE_IOERR_FSYNC" });
    const commit = spyOn(Database.prototype, "commit").mockImplementationOnce(() => {
      throw failure;
    });
    const [first, second] = await Promise.all([
      problemOf(putOne(store, "facts", "a", "2")),
      problemOf(putOne(store, "facts", "b", "2")),
    ]);
    commit.mockRestore();
    expect([first, second]).toEqual([{ kind: "ambiguous" }, { kind: "ambiguous" }]);
    expect(await problemOf(putOne(store, "facts", "a", "3"))).toEqual({ kind: "unavailable" });
    expect(await problemOf(store.get("facts", "a"))).toEqual({ kind: "unavailable" });
    await store[Symbol.asyncDispose]();
    store = openStore(place, { buckets });
    expect((await store.get("facts", "a"))?.revision).toBe(before);
    await putOne(store, "facts", "a", "4");
  });

  test("a database that another program writes is unavailable for as long", async () => {
    store = openStore(place, { buckets });
    using other = new Sqlite(`${place}/store.db`);
    other.run("BEGIN IMMEDIATE");
    expect(await problemOf(putOne(store, "facts", "a", "1"))).toEqual({ kind: "unavailable" });
    expect(await store.get("facts", "a")).toBeUndefined();
    other.run("ROLLBACK");
    await putOne(store, "facts", "a", "1");
  });
});
