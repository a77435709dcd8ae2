/** A record that is written where nothing else finds room, and a worker that dies meanwhile. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { RecordReserve, reserveBytes } from "../../../src/vm/perform/record-reserve.ts";
import { root, skipUnless } from "../../support/skips.ts";
import { SmallDisk } from "../../support/small-disk.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

let folder: TemporaryFolder;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder[Symbol.dispose]());

const path = "machine.json";
const begun = (text: string, sha256 = createHash("sha256").update(text).digest("hex")) =>
  `${JSON.stringify({ path, bytes: text.length, sha256 })}\n${text}`;

test("what a worker had begun is done by the next one, once", () => {
  writeFileSync(folder.file(path), "torn in the middle");
  writeFileSync(folder.file("reserve"), begun("whole\n"));
  const reserve = new RecordReserve(folder.path);
  expect(readFileSync(folder.file(path), "utf8")).toBe("whole\n");
  reserve.write(path, "later\n");
  new RecordReserve(folder.path);
  expect(readFileSync(folder.file(path), "utf8")).toBe("later\n");
  expect(statSync(folder.file("reserve")).size).toBe(reserveBytes);
});

test("what did not come into the reserve whole changes nothing", () => {
  for (const text of [begun("other\n", "0"), begun("other\n").slice(0, -2), "", "no JSON\n"]) {
    writeFileSync(folder.file(path), "own\n");
    writeFileSync(folder.file("reserve"), text);
    new RecordReserve(folder.path);
    expect(readFileSync(folder.file(path), "utf8")).toBe("own\n");
  }
});

test("of a machine that was removed since, nothing is made anew", () => {
  writeFileSync(folder.file("reserve"), begun("whole\n"));
  new RecordReserve(folder.path);
  expect(() => statSync(folder.file(path))).toThrow("ENOENT");
});

skipUnless("a disk without room", [root], () => {
  test("a record is written over what was there; a longer or a new one is refused", () => {
    mkdirSync(folder.file("small"));
    using disk = new SmallDisk(folder.file("small"), "1m");
    const reserve = new RecordReserve(disk.path);
    const file = `${disk.path}/${path}`;
    reserve.write(path, `${"a".repeat(3000)}\n`);
    disk.fill();
    for (const length of [4000, 10, 3500]) {
      reserve.write(path, `${"b".repeat(length)}\n`);
      expect(readFileSync(file, "utf8")).toBe(`${"b".repeat(length)}\n`);
    }
    expect(disk.free).toBe(0);
    expect(() => reserve.write(path, "c".repeat(4097))).toThrow("ENOSPC");
    expect(() => reserve.write("another.json", "c")).toThrow("ENOSPC");
    expect(readFileSync(file, "utf8")).toBe(`${"b".repeat(3500)}\n`);
    rmSync(`${disk.path}/reserve`);
    disk.fill();
    expect(() => reserve.write(path, "d")).toThrow("ENOSPC");
    disk.clear();
    reserve.write(path, "e");
    expect(statSync(`${disk.path}/reserve`).size).toBe(reserveBytes);
  });
});
