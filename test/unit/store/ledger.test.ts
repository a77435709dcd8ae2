/** What was spent once stays spent, whatever is cut short, damaged, settled or fenced. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { appendFileSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { Ledger, ledgerLimits } from "../../../src/store/ledger.ts";
import { problemOf } from "../../support/store-conformance.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

setDefaultTimeout(60_000);

let folder: TemporaryFolder;
let path: string;

beforeEach(() => {
  folder = temporaryFolder();
  path = folder.file("spent.log");
  Ledger.create(path);
});
afterEach(() => folder[Symbol.dispose]());

const token = (id: string, issued = 10) => ({ kind: "token", id, issued });

describe("spending", () => {
  test("once, and never again, also after it was opened again", async () => {
    {
      using ledger = new Ledger(path, 0);
      expect(ledger.isSpent(token("a"))).toBe(false);
      expect(await ledger.spend(token("a"))).toBe(true);
      expect(await ledger.spend(token("a"))).toBe(false);
      expect(await ledger.spend({ ...token("a"), kind: "address" })).toBe(true);
    }
    using again = new Ledger(path, 0);
    expect(again.isSpent(token("a"))).toBe(true);
    expect(await again.spend(token("a"))).toBe(false);
    expect(again.isSpent(token("b"))).toBe(false);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("of two at once, one", async () => {
    using ledger = new Ledger(path, 0);
    const both = await Promise.all([ledger.spend(token("a")), ledger.spend(token("a"))]);
    expect(both.toSorted()).toEqual([false, true]);
  });

  test("what was issued before the fence is spent", async () => {
    using ledger = new Ledger(path, 100);
    expect(ledger.isSpent(token("a", 99))).toBe(true);
    expect(await ledger.spend(token("a", 99))).toBe(false);
    expect(await ledger.spend(token("a", 100))).toBe(true);
  });

  test("what cannot be an id is refused, and nothing of it is written", async () => {
    using ledger = new Ledger(path, 0);
    for (const spending of [
      { ...token("a"), kind: "Token" },
      token(""),
      token("a b"),
      token("a".repeat(201)),
      token("a", -1),
      token("a", 0.5),
    ]) {
      expect((await problemOf(ledger.spend(spending))).kind).toBe("refused");
    }
    expect((await problemOf(ledger.settle("Token", 1))).kind).toBe("refused");
    expect(ledger.entries).toBe(0);
  });
});

describe("settling", () => {
  test("makes room, and what was issued before counts as spent for good", async () => {
    {
      using ledger = new Ledger(path, 0);
      for (const [id, issued] of [
        ["a", 10],
        ["b", 20],
      ] as const) {
        await ledger.spend(token(id, issued));
      }
      await ledger.settle("token", 20);
      expect(ledger.entries).toBe(1);
    }
    using again = new Ledger(path, 0);
    expect(again.entries).toBe(1);
    expect(again.isSpent(token("a", 10))).toBe(true);
    expect(again.isSpent(token("never-seen", 19))).toBe(true);
    expect(again.isSpent(token("never-seen", 20))).toBe(false);
    expect(again.isSpent({ kind: "address", id: "x", issued: 1 })).toBe(false);
  });

  test("the file is written anew when most of it is needed no more", async () => {
    const ids = Array.from({ length: 15_000 }, (_, index) => `${"i".repeat(100)}.${index}`);
    {
      using ledger = new Ledger(path, 0);
      ledger.add(ids.map((id) => token(id, 10)));
      const before = statSync(path).size;
      expect(before).toBeGreaterThan(2 * ledgerLimits.waste);
      await ledger.settle("token", 11);
      await ledger.spend(token("later", 11));
      expect(statSync(path).size).toBeLessThan(500);
    }
    using again = new Ledger(path, 0);
    expect(again.isSpent(token(ids[0] ?? "", 10))).toBe(true);
    expect(again.isSpent(token("later", 11))).toBe(true);
    expect(again.isSpent(token("other", 11))).toBe(false);
  });
});

describe("limits", () => {
  test("of entries", async () => {
    using ledger = new Ledger(path, 0);
    const ids = Array.from({ length: ledgerLimits.entries }, (_, index) => token(`${index}`));
    ledger.add(ids);
    expect(await problemOf(ledger.spend(token("more")))).toEqual({ kind: "full" });
    expect(ledger.isSpent(token("more"))).toBe(false);
    await ledger.settle("token", 11);
    expect(await ledger.spend(token("more", 11))).toBe(true);
  });

  test("of spendings that wait", async () => {
    using ledger = new Ledger(path, 0);
    const count = ledgerLimits.waiting + 1;
    const tries = Array.from({ length: count }, (_, index) => ledger.spend(token(`${index}`)));
    const refused = (await Promise.allSettled(tries)).filter((one) => one.status === "rejected");
    expect(refused).toHaveLength(1);
    expect(ledger.isSpent(token(`${ledgerLimits.waiting}`))).toBe(false);
  });
});

describe("a file that is not as it was written", () => {
  beforeEach(async () => {
    using ledger = new Ledger(path, 0);
    await ledger.spend(token("a"));
    await ledger.spend(token("b"));
  });
  const open = () => new Ledger(path, 0);

  test("every end that is cut short is taken, and what was whole before it", () => {
    const content = readFileSync(path);
    const wholeLines = (length: number) =>
      content.subarray(0, length).toString().split("\n").length;
    for (let length = content.length - 1; length > content.indexOf("\n"); length -= 1) {
      writeFileSync(path, content);
      truncateSync(path, length);
      using ledger = open();
      expect(ledger.entries).toBe(wholeLines(length) - 2);
    }
  });

  test("an end of blocks that were never written is cut off, and written over", async () => {
    appendFileSync(path, Buffer.concat([Buffer.alloc(100), Buffer.from("\n")]));
    {
      using ledger = open();
      expect(ledger.entries).toBe(2);
      await ledger.spend(token("c"));
    }
    using again = open();
    expect(again.entries).toBe(3);
  });

  test("a bit that fell over, anywhere, is refused with the way to restore", () => {
    const content = readFileSync(path);
    for (let index = 0; index < content.length - 1; index += 3) {
      const changed = Buffer.from(content);
      changed[index] = (changed[index] ?? 0) ^ 1;
      writeFileSync(path, changed);
      expect(open).toThrow("hostler store restore FILE --without-ledger");
    }
  });

  test("none, an empty one and another's are refused", () => {
    writeFileSync(path, "");
    expect(open).toThrow("first line");
    writeFileSync(path, "hello\n");
    expect(open).toThrow("another line 1");
    expect(() => new Ledger(folder.file("none"), 0)).toThrow("received none");
  });
});
