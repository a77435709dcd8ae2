/** What a store's folder may hold, and what is refused with the way to mend it. */

import { Database as Sqlite } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { FileRefused } from "../../../src/journal/file-refused.ts";
import type { EmbeddedStore } from "../../../src/store/embedded-store.ts";
import { verifyStore } from "../../../src/store/verify.ts";
import { bucket, openStore, putOne } from "../../support/embedded-store.ts";
import { problemOf, WatchReader } from "../../support/store-conformance.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

setDefaultTimeout(60_000);

let folder: TemporaryFolder;
let place: string;
let store: EmbeddedStore | undefined;
const database = () => `${place}/store.db`;

beforeEach(() => {
  folder = temporaryFolder();
  place = folder.file("store");
});
afterEach(async () => {
  await store?.[Symbol.asyncDispose]();
  store = undefined;
  folder[Symbol.dispose]();
});

/** A store with many entries, closed. */
async function filled(count = 2_000, words = 20): Promise<void> {
  const made = openStore(place, { buckets: [bucket({})] });
  const value = "content ".repeat(words);
  for (let first = 0; first < count; first += 1_000) {
    const keys = Array.from({ length: Math.min(1_000, count - first) }, (_, key) => first + key);
    await Promise.all(keys.map((key) => putOne(made, "facts", `k.${key}`, value)));
  }
  await made[Symbol.asyncDispose]();
}

/** Whether the changed bytes were of no use to anybody: the store opens, with all that it had. */
async function isWhole(): Promise<boolean> {
  const copy = folder.file("copy");
  cpSync(place, copy, { recursive: true });
  try {
    await using opened = openStore(copy);
    await using watch = new WatchReader(opened, "facts", "");
    const { values } = await watch.synced();
    expect(values.size).toBe(2_000);
    expect(new Set(values.values()).size).toBe(1);
    return true;
  } catch (error) {
    if (error instanceof FileRefused) return false;
    throw error;
  } finally {
    rmSync(copy, { recursive: true });
  }
}

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof FileRefused) return error.message;
    throw error;
  }
  throw new Error("Expected a refusal.");
}

describe("one at a time", () => {
  test("a second opener is refused while the first has it", async () => {
    store = openStore(place);
    expect(refusal(() => openStore(place))).toContain("another process has it");
    expect(refusal(() => verifyStore(place))).toContain("another process has it");
    await store[Symbol.asyncDispose]();
    store = openStore(place);
  });

  test("a folder that others may write is refused", () => {
    mkdirSync(place);
    chmodSync(place, 0o777);
    expect(refusal(() => openStore(place))).toContain(`chmod 700 ${place}`);
  });

  test("a file in the folder's place is refused", () => {
    writeFileSync(place, "");
    expect(refusal(() => openStore(place))).toContain("Remove");
  });
});

describe("a damaged database", () => {
  test("is refused when it is opened, with the way to restore, and is left as it is", async () => {
    await filled();
    const content = readFileSync(database());
    const page = 4096;
    let refused = 0;
    let tried = 0;
    for (let at = page; at < content.length; at += 7 * page) {
      const changed = Buffer.from(content);
      changed.fill(0xa5, at + page - 300, at + page);
      writeFileSync(database(), changed);
      tried += 1;
      if (await isWhole()) continue;
      const message = refusal(() => openStore(place));
      expect(message).toContain("damaged");
      expect(message).toContain("hostler store restore FILE");
      expect(readFileSync(database()).equals(changed)).toBe(true);
      refused += 1;
    }
    // The end of some pages is not in use.
    expect(refused).toBeGreaterThan(tried * 0.9);
    writeFileSync(database(), content);
    store = openStore(place);
  });

  test("one changed byte of a value is found by its checksum", async () => {
    await filled(10);
    const content = readFileSync(database());
    const at = content.indexOf("content content");
    content[at] = "C".charCodeAt(0);
    writeFileSync(database(), content);
    expect(refusal(() => openStore(place))).toContain("another checksum");
    expect(refusal(() => verifyStore(place))).toContain("another checksum");
  });

  test("a file that is cut short, empty, or no database", async () => {
    await filled();
    const { length } = readFileSync(database());
    for (const size of [length - 4_096, 5_000, 100]) {
      truncateSync(database(), size);
      expect(refusal(() => openStore(place))).toContain("hostler store restore FILE");
    }
    truncateSync(database(), 0);
    expect(refusal(() => openStore(place))).toContain("hostler store restore FILE");
    writeFileSync(database(), "hello ".repeat(1_000));
    expect(refusal(() => openStore(place))).toContain("hostler store restore FILE");
  });

  test("another's database, and one of a format to come", async () => {
    await filled(1);
    {
      using other = new Sqlite(database());
      other.run("PRAGMA user_version = 3");
    }
    expect(refusal(() => openStore(place))).toContain("newer hostler");
    {
      using other = new Sqlite(database());
      other.run("PRAGMA application_id = 7");
    }
    expect(refusal(() => openStore(place))).toContain("damaged");
  });

  test("that is damaged while it is open answers nothing more, and says so", async () => {
    // More than what the store keeps in memory.
    await filled(1_800, 1_000);
    store = openStore(place, { buckets: [bucket({})] });
    const revision = await putOne(store, "facts", "last", "1");
    const end = new AbortController();
    const states = store.link(end.signal)[Symbol.asyncIterator]();
    expect((await states.next()).value).toBe("up");
    const { length } = readFileSync(database());
    const file = openSync(database(), "r+");
    writeSync(file, Buffer.alloc(length - 3 * 4_096, 0xa5), 0, undefined, 2 * 4_096);
    await using watch = new WatchReader(store, "facts", "");
    expect(await problemOf(watch.synced())).toEqual({ kind: "damaged" });
    expect((await states.next()).value).toBe("down");
    end.abort();
    for (const act of [
      store.get("facts", "k.1"),
      putOne(store, "facts", "k.1", "2"),
      store.backup(folder.file("backup")),
      (async () => store?.usage())(),
    ]) {
      expect(await problemOf(act)).toEqual({ kind: "damaged" });
    }
    expect(revision).toBeGreaterThan(0);
    expect(existsSync(folder.file("backup"))).toBe(false);
  });
});

describe("files that are missing, or another's", () => {
  test("the database", async () => {
    await filled(1);
    rmSync(database());
    const message = refusal(() => openStore(place));
    expect(message).toContain("hostler store restore FILE");
    expect(message).toContain("remove the whole folder");
  });

  test("the incarnation", async () => {
    await filled(1);
    rmSync(`${place}/incarnation.json`);
    expect(refusal(() => openStore(place))).toContain("restore FILE --without-ledger");
    writeFileSync(`${place}/incarnation.json`, '{"format":1}');
    expect(refusal(() => openStore(place))).toContain("--without-ledger");
  });

  test("the ledger", async () => {
    await filled(1);
    rmSync(`${place}/spent.log`);
    expect(refusal(() => openStore(place))).toContain("--without-ledger");
  });

  test("the database of another store, copied there", async () => {
    await filled(1);
    const other = openStore(folder.file("other"));
    await other[Symbol.asyncDispose]();
    copyFileSync(`${folder.file("other")}/store.db`, database());
    expect(refusal(() => openStore(place))).toContain("received another's");
  });

  test("an older copy of the same one: revisions go on, who knows more lists again", async () => {
    await filled(1);
    copyFileSync(database(), folder.file("copy"));
    store = openStore(place);
    const since = await putOne(store, "facts", "later", "1");
    await store[Symbol.asyncDispose]();
    copyFileSync(folder.file("copy"), database());
    store = openStore(place);
    expect(await putOne(store, "facts", "again", "1")).toBeGreaterThan(since);
    await using watch = new WatchReader(store, "facts", "", since);
    const { resets, values } = await watch.synced();
    expect(resets).toBe(1);
    expect([...values.keys()]).toEqual(["k.0", "again"]);
  });
});

test("verify tells what it found in order", async () => {
  await filled(7);
  expect(verifyStore(place)).toMatchObject({ format: 2, entries: 7, ledgerEntries: 0 });
  expect(refusal(() => verifyStore(folder.file("none")))).toContain("received none");
  expect(existsSync(folder.file("none"))).toBe(false);
});

test("files that others may write are refused, with the command that mends it", async () => {
  await filled(1);
  for (const name of ["store.db", "incarnation.json", "spent.log", "lock"]) {
    const path = `${place}/${name}`;
    for (const mode of [0o666, 0o620]) {
      chmodSync(path, mode);
      expect(refusal(() => openStore(place))).toContain(`chmod 600 ${path}`);
    }
    chmodSync(path, 0o600);
  }
  store = openStore(place);
  expect(await store.get("facts", "k.0")).toBeDefined();
});
