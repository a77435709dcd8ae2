/** Acknowledged writes that a changed byte of the log would silently take back. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, cpSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { EmbeddedStore } from "../../../src/store/embedded-store.ts";
import { checkWriteAheadLog } from "../../../src/store/write-ahead-log.ts";
import { openStore, putOne } from "../../support/embedded-store.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

setDefaultTimeout(60_000);

const pageBytes = 4_096;
const frameBytes = 24 + pageBytes;
let folder: TemporaryFolder;
let killed: string;
let store: EmbeddedStore | undefined;
const log = () => `${killed}/store.db-wal`;

/** A store as a kill leaves it, with ten commits in its log. */
beforeEach(async () => {
  folder = temporaryFolder();
  killed = folder.file("killed");
  const place = folder.file("store");
  const running = openStore(place);
  for (let key = 0; key < 10; key += 1) await putOne(running, "facts", `k.${key}`, "v");
  cpSync(place, killed, { recursive: true });
  rmSync(`${killed}/store.db-shm`, { force: true });
  await running[Symbol.asyncDispose]();
});
afterEach(async () => {
  await store?.[Symbol.asyncDispose]();
  store = undefined;
  folder[Symbol.dispose]();
});

/** Where the frames of commits begin. */
function commits(content: Buffer): number[] {
  const frames: number[] = [];
  for (let at = 32; at + frameBytes <= content.length; at += frameBytes) {
    const isCurrent = content.compare(content, 16, 24, at + 8, at + 16) === 0;
    if (isCurrent && content.readUInt32BE(at + 4) !== 0) frames.push(at);
  }
  return frames;
}

const count = async () => {
  store = openStore(killed);
  return store.usage().buckets[0]?.entries;
};

test("as it was written it is taken", async () => {
  expect(() => checkWriteAheadLog(log())).not.toThrow();
  expect(commits(readFileSync(log())).length).toBeGreaterThanOrEqual(10);
  expect(await count()).toBe(10);
});

test("one changed byte before the last two commits is refused, with the way to restore", () => {
  const content = readFileSync(log());
  const last = commits(content).at(-2) ?? 0;
  for (let at = 32; at < last; at += 1_531) {
    const changed = Buffer.from(content);
    changed[at] = (changed[at] ?? 0) ^ 0x10;
    writeFileSync(log(), changed);
    expect(() => openStore(killed)).toThrow("hostler store restore FILE");
  }
});

test("a header that is not whole is refused", () => {
  const content = readFileSync(log());
  for (const at of [0, 8, 13, 17, 25, 31]) {
    const changed = Buffer.from(content);
    changed[at] = (changed[at] ?? 0) ^ 0x10;
    writeFileSync(log(), changed);
    expect([at, refuses()]).toEqual([at, true]);
  }
});

function refuses(): boolean {
  try {
    checkWriteAheadLog(log());
    return false;
  } catch {
    return true;
  }
}

test("an end that was cut short anywhere is taken", async () => {
  const content = readFileSync(log());
  const last = commits(content).at(-1) ?? 0;
  for (let length = content.length; length > last; length -= 500) {
    writeFileSync(log(), content.subarray(0, length));
    expect(() => checkWriteAheadLog(log())).not.toThrow();
  }
  writeFileSync(log(), content.subarray(0, last + 100));
  expect(await count()).toBe(9);
});

test("none, an empty one, and one that an earlier turn left are taken", async () => {
  writeFileSync(log(), "");
  expect(() => checkWriteAheadLog(log())).not.toThrow();
  rmSync(log());
  expect(() => checkWriteAheadLog(log())).not.toThrow();
  // The log is written from its beginning again after its pages went into the database.
  const place = folder.file("long");
  const running = openStore(place);
  for (let key = 0; key < 60; key += 1) {
    await putOne(running, "facts", `k.${key}`, "v".repeat(100_000)).catch(() => {});
  }
  await putOne(running, "records", "last", "1");
  const copy = folder.file("copy");
  copyFileSync(`${place}/store.db-wal`, copy);
  await running[Symbol.asyncDispose]();
  expect(() => checkWriteAheadLog(copy)).not.toThrow();
});
