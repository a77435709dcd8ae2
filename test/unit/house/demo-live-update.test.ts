/** The parts of the demo of live update that a guest is not needed for. */
import { expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { lookAtDisk } from "../../../scripts/demo/live-update/disk.ts";
import { Table, tableBytes } from "../../../scripts/demo/live-update/guest/table.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

/** Runs on an empty file, or on what an earlier run has left there. */
function onTable<T>(path: string, use: (table: Table) => T): T {
  const descriptor = openSync(path, "r+");
  try {
    return use(Table.open(descriptor, readFileSync(path).length));
  } finally {
    closeSync(descriptor);
  }
}

test("rows are found again in the bytes of a table alone", () => {
  using folder = temporaryFolder();
  const path = folder.file("table");
  writeFileSync(path, "");
  const keys = Array.from({ length: 5_000 }, (_, index) => `key-${index}`);
  onTable(path, (table) => {
    for (const key of keys) expect(table.set(key, `value of ${key}`)).toBeUndefined();
    expect(table.set("key-7", "")).toBeUndefined();
  });
  onTable(path, (table) => {
    expect(table.rows).toBe(keys.length);
    expect(table.get("key-7")).toBe("");
    const wrong = keys.filter((key) => key !== "key-7" && table.get(key) !== `value of ${key}`);
    expect(wrong).toEqual([]);
    expect(table.get("key")).toBeUndefined();
  });
});

test("a row that is too long, and a file that is no table, are refused", () => {
  using folder = temporaryFolder();
  const path = folder.file("table");
  writeFileSync(path, "");
  onTable(path, (table) => {
    expect(table.set("key", "v".repeat(123))).toBeUndefined();
    expect(table.set("key", "v".repeat(124))).toContain("received 127 bytes");
    expect(table.get("key")).toBe("v".repeat(123));
    expect(table.set("", "value")).toContain("expected a key");
  });
  truncateSync(path, tableBytes - 1);
  expect(() => onTable(path, () => {})).toThrow(`Expected a table of ${tableBytes} bytes`);
});

test("a word is found on a disk wherever it stands", () => {
  using folder = temporaryFolder();
  const path = folder.file("disk");
  const piece = 2 ** 22;
  const word = "0123456789abcdef";
  const disk = Buffer.alloc(2 * piece + 100);
  for (const place of [0, piece - 3, 2 * piece - 16, disk.length - 16]) disk.write(word, place);
  writeFileSync(path, disk);
  expect(lookAtDisk(path, word).found).toBe(4);
  expect(lookAtDisk(path, "not there").found).toBe(0);
  const { sha256 } = lookAtDisk(path, word);
  expect(sha256).toBe(new Bun.CryptoHasher("sha256").update(disk).digest("hex"));
});
