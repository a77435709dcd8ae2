/** Files in pieces: what is read while something else is written, and what then fails. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { pieceBytes, readPieces, writeSparsely } from "../../../src/image/pieces.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

let folder: TemporaryFolder;
let source: number;
const size = pieceBytes * 5 + 3;
const content = Buffer.alloc(size, "0123456789abcdefghijk");

beforeEach(() => {
  folder = temporaryFolder();
  writeFileSync(folder.file("x"), content);
  source = openSync(folder.file("x"), "r");
});
afterEach(() => {
  closeSync(source);
  folder[Symbol.dispose]();
});

const options = {
  size,
  signal: undefined,
  changed: (received: string) => new Error(`changed: ${received}`),
};

test("a piece stays as it is until its use is over, however late that is", async () => {
  const seen = Buffer.alloc(size);
  const waiting: (() => void)[] = [];
  const reading = readPieces(source, options, async (piece, position) => {
    const later = new Promise<void>((resolve) => waiting.push(resolve));
    // Whoever waits longest is let go when the next but one has come.
    if (waiting.length >= 2) waiting.shift()?.();
    if (position + piece.length === size) for (const resolve of waiting) resolve();
    await later;
    seen.set(piece, position);
  });
  await reading;
  expect(seen.equals(content)).toBe(true);
});

test("nothing of an empty file is used", async () => {
  let uses = 0;
  await readPieces(source, { ...options, size: 0 }, () => {
    uses += 1;
  });
  expect(uses).toBe(0);
});

test.each([0, 1, 2, 5])("the use of piece %d that fails ends it all", async (number) => {
  let uses = 0;
  const failing = readPieces(source, options, async (_, position) => {
    uses += 1;
    if (position === number * pieceBytes) throw new Error("no room");
  });
  expect((await rejectionOf(failing)).message).toBe("no room");
  expect(uses).toBeLessThanOrEqual(number + 2);
});

test("a use that throws at once ends it all", async () => {
  const failing = readPieces(source, options, () => {
    throw new Error("at once");
  });
  expect((await rejectionOf(failing)).message).toBe("at once");
});

test("a file that became shorter", async () => {
  truncateSync(folder.file("x"), pieceBytes + 7);
  const failing = readPieces(source, options, () => undefined);
  expect((await rejectionOf(failing)).message).toBe(
    `changed: ${pieceBytes + 7} bytes, then its end`,
  );
});

test("zeros are not written, at the begin, in the middle and at the end", async () => {
  const block = 64 * 1024;
  const piece = Buffer.alloc(block * 6 + 10);
  piece.fill("a", block, block * 2);
  piece.fill("b", block * 4 - 1, block * 4 + 1);
  const path = folder.file("y");
  writeFileSync(path, "");
  truncateSync(path, piece.length);
  const target = openSync(path, "r+");
  await writeSparsely(target, piece, 0);
  closeSync(target);
  expect(readFileSync(path).equals(piece)).toBe(true);
  expect(statSync(path).blocks * 512).toBe(block * 3);
});

test("the kernel's refusal to write is told", async () => {
  const full = openSync("/dev/full", "w");
  const refused = await rejectionOf(writeSparsely(full, content.subarray(0, 100), 0));
  closeSync(full);
  expect(refused).toMatchObject({ code: "ENOSPC" });
});
