/**
 * The formats of the database. `store-format-1.sql` is what a hostler wrote that knew format 1
 * alone; it is never written anew. What is read from it "by old rules" names each column itself,
 * as that hostler did.
 */
import { Database as Sqlite } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { metaBucket } from "../../src/store/collection.ts";
import type { EmbeddedStore } from "../../src/store/embedded-store.ts";
import { Ledger } from "../../src/store/ledger.ts";
import { restore } from "../../src/store/restore.ts";
import { verifyBackup } from "../../src/store/verify.ts";
import { openStore, putOne } from "../support/embedded-store.ts";
import { conformanceBuckets, problemOf, WatchReader } from "../support/store-conformance.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(60_000);

const golden = readFileSync(join(import.meta.dirname, "store-format-1.sql"), "utf8");
/** Format 2 adds this to it, and nothing else. */
const addedByTwo = "checksum INTEGER";

let folder: TemporaryFolder;
let place: string;
let store: EmbeddedStore | undefined;
const buckets = [...conformanceBuckets, metaBucket];

beforeEach(() => {
  folder = temporaryFolder();
  place = folder.file("store");
  mkdirSync(place, { mode: 0o700 });
  const database = new Sqlite(`${place}/store.db`, { create: true });
  database.run(golden);
  database.close();
  chmodSync(`${place}/store.db`, 0o600);
  writeFileSync(
    `${place}/incarnation.json`,
    '{"format":1,"incarnation":"00112233445566778899aabbccddeeff","history":[],"first":1,' +
      '"reserved":65536,"fence":0,"state":"ready"}\n',
  );
  Ledger.create(`${place}/spent.log`);
});
afterEach(async () => {
  await close();
  folder[Symbol.dispose]();
});

async function close(): Promise<void> {
  await store?.[Symbol.asyncDispose]();
  store = undefined;
}

interface OldEntry {
  readonly revision: number;
  readonly key: string;
  readonly operation: number;
  readonly value: string;
}

/** What a hostler of format 1 sees, and whether it opens the file at all. */
function readByOldRules(): OldEntry[] | "refused" {
  using database = new Sqlite(`${place}/store.db`, { readonly: true });
  const [version] = database.query("PRAGMA user_version").values()[0] as number[];
  if (version !== 1) return "refused";
  const columns = "revision, bucket, key, operation, value, write_id, time, clock, bytes";
  const sql = `SELECT ${columns} FROM entries WHERE bucket = 'facts' ORDER BY revision`;
  return database.query(sql).all() as OldEntry[];
}

/** As a hostler of format 1 writes: nine columns, and no checksum. */
function writeByOldRules(key: string, value: string): void {
  using database = new Sqlite(`${place}/store.db`);
  database.run(
    "INSERT OR REPLACE INTO entries " +
      "(revision, bucket, key, operation, value, write_id, time, clock, bytes) " +
      "VALUES ((SELECT max(revision) FROM entries) + 1, 'facts', ?, 0, ?, 'old', 0, 0, ?)",
    [key, value, key.length + value.length],
  );
}

async function facts(): Promise<Record<string, string>> {
  await using watch = new WatchReader(store as EmbeddedStore, "facts", "");
  return Object.fromEntries((await watch.synced()).values);
}

const before = {
  a: "1",
  "host.b": '{"version":1,"value":{"host":"B"}}',
  text: "ü 😀 'quoted'",
};

describe("a database of format 1", () => {
  test("is read as it was written", async () => {
    store = openStore(place, { buckets });
    expect(await facts()).toEqual(before);
    expect(await store.get("facts", "gone")).toMatchObject({ operation: "delete", revision: 5 });
    expect(await store.get("facts", "a")).toEqual({
      ...{ bucket: "facts", key: "a", revision: 2, operation: "put", value: "1" },
      ...{ writeId: "write-2", time: 1764000000002 },
    });
    expect(store.capabilities.server).toBe("embedded, format 1");
  });

  test("is written so that an older hostler reads it, and goes on with it", async () => {
    store = openStore(place, { buckets });
    await putOne(store, "facts", "new", "by the new one");
    await putOne(store, "facts", "a", "2");
    await close();
    const old = readByOldRules();
    if (old === "refused") throw new Error("An older hostler refuses it.");
    expect(old.map(({ key, value }) => [key, value])).toContainEqual(["new", "by the new one"]);
    expect(old.map(({ key, value }) => [key, value])).toContainEqual(["a", "2"]);
    writeByOldRules("a", "3");
    store = openStore(place, { buckets });
    expect((await facts())["a"]).toBe("3");
    await close();
    const schema = schemaOf();
    expect(schema).not.toContain(addedByTwo);
    expect(golden).toContain(schema.split("\n")[0] ?? "");
  });

  test("becomes format 2 when that is committed, with writes going on", async () => {
    store = openStore(place, { buckets });
    const current = store;
    const keys = Array.from({ length: 1_000 }, (_, key) => `k.${key}`);
    await Promise.all(keys.map((key) => putOne(current, "facts", key, "1")));
    const upgrade = store.commitFormat(2);
    await Promise.all(keys.slice(0, 500).map((key) => putOne(current, "facts", key, "2")));
    await upgrade;
    await putOne(store, "facts", "after", "1");
    await store.commitFormat(2);
    expect(store.usage().database.format).toBe(2);
    expect(await problemOf(store.commitFormat(1))).toMatchObject({ kind: "refused" });
    await close();
    expect(readByOldRules()).toBe("refused");
    expect(schemaOf()).toContain(addedByTwo);
    store = openStore(place, { buckets });
    const now = await facts();
    expect(now).toMatchObject(before);
    expect([now["k.0"], now["k.999"], now["after"]]).toEqual(["2", "1", "1"]);
    expect(store.capabilities.server).toBe("embedded, format 2");
  });

  test("an upgrade that was cut short leaves what an older hostler writes and reads", async () => {
    {
      using database = new Sqlite(`${place}/store.db`);
      database.run("ALTER TABLE entries ADD COLUMN checksum INTEGER");
    }
    writeByOldRules("a", "old");
    store = openStore(place, { buckets });
    await putOne(store, "facts", "new", "1");
    await store.commitFormat(2);
    await close();
    store = openStore(place, { buckets });
    expect(await facts()).toMatchObject({ a: "old", new: "1" });
  });

  test("its backup has format 1, and is restored as such", async () => {
    store = openStore(place, { buckets });
    const backup = folder.file("backup");
    await store.backup(backup);
    await close();
    expect(verifyBackup(backup).entries).toBe(6);
    restore({ folder: place, file: backup, withoutLedger: false });
    expect(readByOldRules()).not.toBe("refused");
    store = openStore(place, { buckets });
    expect(await facts()).toEqual(before);
  });
});

test("a new database has format 2: the schema of format 1, and checksums", async () => {
  const elsewhere = folder.file("new");
  await openStore(elsewhere)[Symbol.asyncDispose]();
  using database = new Sqlite(`${elsewhere}/store.db`);
  const sql = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid";
  const statements = (database.query(sql).values() as string[][]).map(([text]) =>
    (text ?? "").replaceAll(/\s+/g, " ").replace(`, ${addedByTwo}`, ""),
  );
  for (const statement of statements) expect(golden).toContain(`${statement};`);
  expect(statements).toHaveLength(golden.match(/^CREATE/gm)?.length ?? 0);
});

function schemaOf(): string {
  using database = new Sqlite(`${place}/store.db`, { readonly: true });
  const sql = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid";
  return (database.query(sql).values() as string[][]).map(([text]) => text).join("\n");
}
