/** A restored older backup repeats no revision, reuses no address, and accepts no spent token. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  copyFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { FileRefused } from "../../../src/journal/file-refused.ts";
import type { EmbeddedStore } from "../../../src/store/embedded-store.ts";
import { incarnationLimits } from "../../../src/store/incarnation.ts";
import { LedgerUnknown, restore } from "../../../src/store/restore.ts";
import { MOST_KEPT } from "../../../src/store/store-folder.ts";
import { backupOf, storageOf, verifyBackup, verifyStore } from "../../../src/store/verify.ts";
import { openStore, putOne, testClocks } from "../../support/embedded-store.ts";
import { conformanceBuckets, freshWriteId, WatchReader } from "../../support/store-conformance.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

setDefaultTimeout(60_000);

let folder: TemporaryFolder;
let place: string;
let backup: string;
let store: EmbeddedStore | undefined;

beforeEach(() => {
  folder = temporaryFolder();
  place = folder.file("store");
  backup = folder.file("backup");
});
afterEach(async () => {
  await store?.[Symbol.asyncDispose]();
  store = undefined;
  folder[Symbol.dispose]();
});

const close = async () => {
  await store?.[Symbol.asyncDispose]();
  store = undefined;
};
const restoreHere = (options: { file?: string; withoutLedger?: boolean; folder?: string } = {}) =>
  restore({ folder: place, file: backup, withoutLedger: false, ...options });

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof FileRefused) return error.message;
    throw error;
  }
  throw new Error("Expected a refusal.");
}

describe("a backup", () => {
  test("has one moment, while writes go on, and says so in its manifest", async () => {
    store = openStore(place);
    const keys = Array.from({ length: 1_000 }, (_, key) => `k.${key}`);
    await Promise.all(keys.map((key) => putOne(store as EmbeddedStore, "facts", key, "before")));
    await store.delete("facts", "k.0", { writeId: freshWriteId() });
    const last = store.revision;
    const writing = store.backup(backup);
    let later = 0;
    let isOver = false;
    const write = (async () => {
      while (!isOver) {
        await putOne(store as EmbeddedStore, "facts", `k.${later % 1_000}`, "after");
        later += 1;
      }
    })();
    const report = await writing;
    isOver = true;
    await write;
    expect(later).toBeGreaterThan(2);
    expect(report).toMatchObject({ file: backup, entries: 1_000, last });
    expect(verifyBackup(backup)).toEqual(report);
    await close();
    restoreHere();
    store = openStore(place);
    await using watch = new WatchReader(store, "facts", "");
    const { values } = await watch.synced();
    expect(values.size).toBe(999);
    expect(new Set(values.values())).toEqual(new Set(["before"]));
  });

  test("overwrites nothing, and leaves nothing behind when it cannot be written", async () => {
    store = openStore(place);
    writeFileSync(backup, "mine");
    const refused = await rejectionOf(store.backup(backup));
    expect(refused.message).toContain("overwrites nothing");
    expect(readFileSync(backup, "utf8")).toBe("mine");
    const nowhere = await rejectionOf(store.backup(folder.file("no/such/folder")));
    expect(nowhere.message).toContain("mkdir -p");
    const long = await rejectionOf(store.backup(folder.file("x".repeat(256))));
    expect(long).toMatchObject({
      name: "FileRefused",
      message: expect.stringContaining("at most 255 bytes"),
    });
    expect(readdirSync(folder.path).toSorted()).toEqual(["backup", "store"]);
    // The longest name is one.
    expect((await store.backup(folder.file("x".repeat(255)))).entries).toBe(0);
    expect(statSync(place).isDirectory()).toBe(true);
  });

  test("that is not as it was written is refused, and the store stays", async () => {
    store = openStore(place);
    await putOne(store, "facts", "a", "content of an entry");
    await store.ledger.spend({ kind: "token", id: "spent-token", issued: store.revision });
    await store.backup(backup);
    await close();
    const content = readFileSync(backup);
    for (const text of ["content of", "spent-token", '"entries":1', "SQLite format"]) {
      const changed = Buffer.from(content);
      const at = changed.indexOf(text);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(at).toBeGreaterThanOrEqual(0);
      writeFileSync(backup, changed);
      refusal(() => restoreHere());
      refusal(() => verifyBackup(backup));
    }
    writeFileSync(backup, content.subarray(0, content.length / 2));
    refusal(() => restoreHere());
    expect(refusal(() => restoreHere({ file: folder.file("none") }))).toContain("nothing");
    expect(refusal(() => verifyBackup(`${place}/store.db`))).toContain("no backup");
    expect(verifyStore(place).entries).toBe(1);
    expect(existsSync(`${place}/store.db.before-restore`)).toBe(false);
  });

  test("is made of a store that does not run, and so is told what it has", async () => {
    store = openStore(place);
    await putOne(store, "facts", "a", "1");
    await close();
    const options = { folder: place, buckets: conformanceBuckets, clocks: testClocks() };
    expect((await backupOf(options, backup)).entries).toBe(1);
    expect((await storageOf(options)).buckets[0]).toMatchObject({ bucket: "facts", entries: 1 });
  });
});

describe("a restore", () => {
  test("is refused while the store runs", async () => {
    store = openStore(place);
    await store.backup(backup);
    expect(refusal(() => restoreHere())).toContain("another process has it");
  });

  test("keeps the database that it replaces, which can be restored as well", async () => {
    store = openStore(place);
    await putOne(store, "facts", "a", "1");
    await store.backup(backup);
    await putOne(store, "facts", "a", "2");
    await close();
    const { keptAs = "", fenced, entries } = restoreHere();
    expect([fenced, entries]).toEqual([false, 1]);
    expect(keptAs).toBe(`${place}/store.db.before-restore`);
    store = openStore(place);
    expect((await store.get("facts", "a"))?.value).toBe("1");
    await close();
    expect(restoreHere({ file: keptAs }).fenced).toBe(false);
    store = openStore(place);
    expect((await store.get("facts", "a"))?.value).toBe("2");
  });

  test("keeps what each one replaces, up to a number, and then refuses first", async () => {
    store = openStore(place);
    await store.backup(backup);
    const kept: string[] = [];
    for (let round = 1; round <= MOST_KEPT; round += 1) {
      store ??= openStore(place);
      await putOne(store, "facts", "a", `${round}`);
      await close();
      kept.push(restoreHere().keptAs ?? "");
    }
    expect(new Set(kept).size).toBe(MOST_KEPT);
    expect(kept.slice(0, 2)).toEqual([
      `${place}/store.db.before-restore`,
      `${place}/store.db.before-restore-2`,
    ]);
    const before = readFileSync(`${place}/incarnation.json`, "utf8");
    expect(refusal(() => restoreHere())).toContain("Move away those of");
    expect(readFileSync(`${place}/incarnation.json`, "utf8")).toBe(before);
    // The first one is what it was; what stood beside one that is gone is not taken for its log.
    const [first = "", second = ""] = kept;
    rmSync(second);
    writeFileSync(`${second}-wal`, "of another");
    expect(restoreHere({ file: first }).keptAs).toBe(second);
    store = openStore(place);
    expect((await store.get("facts", "a"))?.value).toBe("1");
    expect(existsSync(`${second}-wal`)).toBe(false);
  });

  test("jumps over all revisions that were given, again and again", async () => {
    store = openStore(place);
    await putOne(store, "facts", "a", "1");
    await store.backup(backup);
    let highest = 0;
    for (let round = 0; round < 3; round += 1) {
      highest = await putOne(store as EmbeddedStore, "facts", "a", `${round}`);
      await close();
      const { first, incarnation } = restoreHere();
      expect(first - highest).toBeGreaterThanOrEqual(incarnationLimits.jump);
      store = openStore(place);
      expect(store.incarnation).toBe(incarnation);
      expect(store.revision).toBeGreaterThan(highest);
    }
  });

  test("a damaged database is replaced, and kept", async () => {
    store = openStore(place);
    await putOne(store, "facts", "a", "1");
    await store.backup(backup);
    await close();
    writeFileSync(`${place}/store.db`, "rubbish");
    expect(restoreHere().fenced).toBe(false);
    expect(readFileSync(`${place}/store.db.before-restore`, "utf8")).toBe("rubbish");
    store = openStore(place);
    expect((await store.get("facts", "a"))?.value).toBe("1");
  });
});

/** One-shot tokens and addresses, as identity and machines keep them at this seam. */
describe("what was spent once", () => {
  const issueToken = async (id: string) => {
    const issued = (store as EmbeddedStore).revision;
    await putOne(store as EmbeddedStore, "facts", `token.${id}`, JSON.stringify({ issued }));
  };
  const useToken = async (id: string): Promise<boolean> => {
    const current = store as EmbeddedStore;
    const entry = await current.get("facts", `token.${id}`);
    if (entry === undefined) return false;
    const { issued } = JSON.parse(entry.value) as { issued: number };
    return await current.ledger.spend({ kind: "token", id, issued });
  };
  /** The first address of a pool that nobody ever had. */
  const takeAddress = async (): Promise<string> => {
    const current = store as EmbeddedStore;
    for (let number = 1; ; number += 1) {
      const id = `10-0-0-${number}`;
      const issued = current.revision;
      if (await current.ledger.spend({ kind: "address", id, issued })) return id;
    }
  };
  /** A commit id that carries its revision. */
  const commit = async (): Promise<string> =>
    `commit-${await putOne(store as EmbeddedStore, "facts", "commit", "x")}`;

  test("stays spent here, after an older backup was restored", async () => {
    store = openStore(place);
    await issueToken("used-before");
    await issueToken("used-after");
    await issueToken("fresh");
    expect(await useToken("used-before")).toBe(true);
    const seen = new Set([await takeAddress(), await commit()]);
    await store.backup(backup);
    expect(await useToken("used-after")).toBe(true);
    for (let round = 0; round < 5; round += 1) seen.add(await takeAddress()).add(await commit());
    await close();

    expect(restoreHere().fenced).toBe(false);
    store = openStore(place);
    expect(await useToken("used-before")).toBe(false);
    expect(await useToken("used-after")).toBe(false);
    expect(await useToken("fresh")).toBe(true);
    const before = seen.size;
    for (let round = 0; round < 5; round += 1) seen.add(await takeAddress()).add(await commit());
    expect(seen.size).toBe(before + 10);
  });

  test("elsewhere all that was issued before is fenced off, once that is said", async () => {
    store = openStore(place);
    await issueToken("used-before");
    await issueToken("used-after");
    await issueToken("fresh");
    expect(await useToken("used-before")).toBe(true);
    const address = await takeAddress();
    await store.backup(backup);
    expect(await useToken("used-after")).toBe(true);
    const last = await putOne(store, "facts", "later", "1");
    await close();

    const elsewhere = folder.file("elsewhere");
    const refused = refusal(() => restoreHere({ folder: elsewhere }));
    expect(refused).toContain("--without-ledger");
    expect(existsSync(`${elsewhere}/store.db`)).toBe(false);
    const report = restoreHere({ folder: elsewhere, withoutLedger: true });
    expect(report).toMatchObject({ fenced: true, keptAs: undefined });
    store = openStore(elsewhere);
    for (const id of ["used-before", "used-after", "fresh"]) {
      expect(await useToken(id)).toBe(false);
    }
    expect(store.ledger.isSpent({ kind: "address", id: address, issued: 1 })).toBe(true);
    expect(store.ledger.fence("token")).toBe(report.first);
    await issueToken("issued-there");
    expect(await useToken("issued-there")).toBe(true);
    expect(await useToken("issued-there")).toBe(false);
    expect(await putOne(store, "facts", "later", "1")).toBeGreaterThan(last);
  });

  test("the fence stays through later backups and restores", async () => {
    store = openStore(place);
    await issueToken("old");
    await store.backup(backup);
    await close();
    const elsewhere = folder.file("elsewhere");
    restoreHere({ folder: elsewhere, withoutLedger: true });
    store = openStore(elsewhere);
    const second = folder.file("second");
    await store.backup(second);
    await close();
    expect(restoreHere({ folder: elsewhere, file: second }).fenced).toBe(false);
    store = openStore(elsewhere);
    expect(await useToken("old")).toBe(false);
    await close();
    // Back where it came from, what was spent elsewhere is not known.
    expect(refusal(() => restoreHere({ file: second }))).toContain("--without-ledger");
    expect(restoreHere({ file: second, withoutLedger: true }).fenced).toBe(true);
  });

  test("a ledger that is lost or damaged needs the same word, and is kept", async () => {
    store = openStore(place);
    await issueToken("a");
    expect(await useToken("a")).toBe(true);
    await store.backup(backup);
    await issueToken("b");
    await close();
    writeFileSync(`${place}/spent.log`, "rubbish\n");
    expect(refusal(() => openStore(place))).toContain("--without-ledger");
    expect(() => restoreHere()).toThrow(LedgerUnknown);
    expect(restoreHere({ withoutLedger: true }).fenced).toBe(true);
    expect(readFileSync(`${place}/spent.log.damaged`, "utf8")).toBe("rubbish\n");
    store = openStore(place);
    expect(await useToken("a")).toBe(false);
    await close();
    rmSync(`${place}/spent.log`);
    expect(() => restoreHere()).toThrow(LedgerUnknown);
    expect(restoreHere({ withoutLedger: true }).fenced).toBe(true);
  });

  test("another store's backup is fenced off, however well this ledger is kept", async () => {
    store = openStore(place);
    await issueToken("a");
    await store.backup(backup);
    await close();
    const other = folder.file("other");
    store = openStore(other);
    await putOne(store, "facts", "mine", "1");
    await close();
    expect(() => restoreHere({ folder: other })).toThrow(LedgerUnknown);
    expect(restoreHere({ folder: other, withoutLedger: true }).fenced).toBe(true);
  });

  test("a whole folder that is put back is what it was: nothing here can tell", async () => {
    store = openStore(place);
    const revision = await putOne(store, "facts", "a", "1");
    await close();
    cpSync(place, folder.file("copy"), { recursive: true });
    store = openStore(folder.file("copy"));
    expect((await store.get("facts", "a"))?.revision).toBe(revision);
  });

  test("a database that was copied over by hand cannot take back what was spent", async () => {
    store = openStore(place);
    await issueToken("a");
    await close();
    copyFileSync(`${place}/store.db`, folder.file("copy"));
    store = openStore(place);
    expect(await useToken("a")).toBe(true);
    const highest = await putOne(store, "facts", "b", "1");
    await close();
    copyFileSync(folder.file("copy"), `${place}/store.db`);
    store = openStore(place);
    expect(await useToken("a")).toBe(false);
    expect(await putOne(store, "facts", "c", "1")).toBeGreaterThan(highest);
  });
});
