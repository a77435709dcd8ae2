/** Every way in which somebody can change a log, and that it is found and named. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { noHash } from "../../../src/audit/hash.ts";
import { AuditLog } from "../../../src/audit/log.ts";
import { verifyAudit } from "../../../src/audit/verify.ts";
import {
  faultsOf,
  LogFiles,
  rechain,
  testSigner,
  verified,
  writeCalls,
} from "../../support/audit.ts";
import { SeededChance } from "../../support/chance.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

// Many small files: on a loaded machine it takes its time.
setDefaultTimeout(60_000);

const { signer, keys } = testSigner();

/** A log of one segment: segment, opened, calls, and a checkpoint with a signer. */
async function smallLog(folder: TemporaryFolder, count = 3): Promise<LogFiles> {
  await writeCalls({ directory: folder.path, signer }, count);
  return new LogFiles(folder.path);
}

/** A log of several segments, one for each time that it was opened. */
async function largeLog(folder: TemporaryFolder): Promise<LogFiles> {
  // A day passes between two openings, and a thirty-second of a day is a segment.
  for (let day = 0; day < 4; day += 1) {
    const now = () => day * 24 * 3_600_000;
    const options = { directory: folder.path, signer, now, age: 24 * 3_600_000 * 31 };
    await writeCalls(options, 2);
  }
  const files = new LogFiles(folder.path);
  expect(files.names).toHaveLength(4);
  return files;
}

describe("one byte", () => {
  for (const [name, change] of [
    ["another letter", (byte: number) => byte ^ 1],
    ["the other case", (byte: number) => byte ^ 0x20],
    ["zero", () => 0],
    ["a newline", (byte: number) => (byte === 0x0a ? 0x0b : 0x0a)],
  ] as const) {
    test(`changed at every place: ${name}`, async () => {
      using folder = temporaryFolder();
      const files = await smallLog(folder, 2);
      const original = files.bytes(0);
      let line = 1;
      for (let at = 0; at < original.length; at += 1) {
        const bytes = Buffer.from(original);
        bytes[at] = change(bytes[at] ?? 0);
        files.write(0, bytes);
        const { verdict, faults } = await verified(folder.path);
        expect({ at, verdict }).toEqual({ at, verdict: "broken" });
        // What follows a newline that is gone or new is named at its line, or the one after it.
        expect([0, line, line + 1]).toContain(faults[0]?.line ?? -1);
        // Whoever would write on sees the same.
        if (at % 7 === 0) {
          const opening = await rejectionOf(AuditLog.open({ directory: folder.path, signer }));
          expect(opening).toMatchObject({ problem: "broken" });
        }
        if (original[at] === 0x0a) line += 1;
      }
    });
  }

  test("put in, and taken out, at every place", async () => {
    using folder = temporaryFolder();
    const files = await smallLog(folder, 1);
    const original = files.bytes(0);
    for (let at = 0; at < original.length; at += 1) {
      const [before, after] = [original.subarray(0, at), original.subarray(at)];
      files.write(0, Buffer.concat([before, Buffer.from(" "), after]));
      const more = await verified(folder.path);
      files.write(0, Buffer.concat([before, after.subarray(1)]));
      const less = await verified(folder.path);
      // Without its last byte the file is one whose last line was cut short.
      const expected = at === original.length - 1 ? "intact" : "broken";
      const got = [more.verdict, less.verdict];
      expect({ at, got }).toEqual({ at, got: ["broken", expected] });
    }
    files.write(0, Buffer.concat([original, Buffer.from("x")]));
    expect((await verified(folder.path)).verdict).toBe("broken");
  });

  test("it opens no more, and says what to do", async () => {
    using folder = temporaryFolder();
    const files = await smallLog(folder);
    const bytes = Buffer.from(files.bytes(0));
    bytes[bytes.length >> 1] = 0x20;
    files.write(0, bytes);
    const error = await rejectionOf(AuditLog.open({ directory: folder.path, signer }));
    expect(error).toMatchObject({ name: "AuditError", problem: "broken", exitCode: 111 });
    expect(error.message).toContain("Move the folder aside as evidence");
    // And it has the lock no longer.
    files.restore();
    await using _log = await AuditLog.open({ directory: folder.path, signer });
  });
});

describe("cut off", () => {
  test("at every length: never mistaken for a change, and gone on with", async () => {
    using folder = temporaryFolder();
    const files = await smallLog(folder);
    const original = files.bytes(0);
    for (let length = original.length - 1; length >= 0; length -= 1) {
      const piece = original.subarray(0, length);
      files.write(0, piece);
      const whole = piece.lastIndexOf(0x0a) + 1;
      const found = await verified(folder.path);
      const { verdict, cutShort } = found;
      expect({ verdict, cutShort }).toEqual({ verdict: "intact", cutShort: length - whole });
      if (length % 13 !== 0) continue;
      await writeCalls({ directory: folder.path, signer }, 1);
      expect(await verifyAudit({ directory: folder.path, keys })).toMatchObject({
        verdict: "intact",
        cutShort: 0,
      });
    }
  });

  test.each([1, 40, 700, 1_100])(
    "%d bytes less: what is left goes on, with a note",
    async (less) => {
      using folder = temporaryFolder();
      const files = await smallLog(folder);
      const original = files.bytes(0);
      const piece = original.subarray(0, original.length - less);
      files.write(0, piece);
      const cut = piece.length - piece.lastIndexOf(0x0a) - 1;
      await writeCalls({ directory: folder.path, signer }, 1);
      const after = await verifyAudit({ directory: folder.path, keys });
      expect({ verdict: after.verdict, cutShort: after.cutShort }).toEqual({
        verdict: "intact",
        cutShort: 0,
      });
      const records = new LogFiles(folder.path).lines(0).map((line) => JSON.parse(line));
      expect(records.filter(({ kind }) => kind === "cut-short")).toMatchObject([{ bytes: cut }]);
    },
  );

  test("zeros behind a piece are a file that had grown; behind a line, a change", async () => {
    using folder = temporaryFolder();
    const files = await smallLog(folder);
    const original = files.bytes(0);
    const zeros = Buffer.alloc(512);
    files.write(0, Buffer.concat([original.subarray(0, -100), zeros]));
    expect(await verified(folder.path)).toMatchObject({ verdict: "intact" });
    files.write(0, Buffer.concat([original.subarray(0, -1), zeros]));
    expect(await verified(folder.path)).toMatchObject({ verdict: "broken" });
    const whole = original.lastIndexOf(0x0a, -2) + 1;
    files.write(0, Buffer.concat([original.subarray(0, whole), Buffer.from('{"sequence":7,')]));
    expect(await verified(folder.path)).toMatchObject({ verdict: "broken" });
    files.write(0, Buffer.concat([original.subarray(0, whole), zeros]));
    expect(await verified(folder.path)).toMatchObject({ verdict: "intact", cutShort: 512 });
    const { head } = await writeCalls({ directory: folder.path, signer }, 1).then(async () =>
      verified(folder.path),
    );
    expect(head?.sequence).toBe(9);
  });

  test("a segment that is not the last", async () => {
    using folder = temporaryFolder();
    const files = await largeLog(folder);
    files.write(1, files.bytes(1).subarray(0, -1));
    const found = await verified(folder.path);
    expect(faultsOf(found)[0]).toMatch(/^6:0 #10 end of the file$/);
  });

  test("a head that was noted elsewhere finds a log that was cut off at a line", async () => {
    using folder = temporaryFolder();
    const files = await smallLog(folder);
    const { head } = await verified(folder.path);
    if (head === null) throw new Error("no head");
    const options = { directory: folder.path, keys, heads: [head] };
    expect(await verifyAudit(options)).toMatchObject({
      verdict: "intact",
      heads: [{ status: "matches" }],
    });
    files.write(0, files.lines(0).slice(0, -1));
    const found = await verifyAudit(options);
    expect(found).toMatchObject({ verdict: "broken", heads: [{ status: "missing" }] });
    expect(found.faults).toMatchObject([{ what: "noted head", expected: head.hash }]);
  });
});

describe("lines", () => {
  test("removed", async () => {
    using folder = temporaryFolder();
    const files = await smallLog(folder);
    files.write(0, files.lines(0).toSpliced(2, 1));
    const found = await verified(folder.path);
    expect(found.faults).toEqual([
      {
        file: "segment-0000000000000001.jsonl",
        line: 3,
        sequence: 3,
        what: "sequence",
        expected: "3",
        received: "4 (1 record is missing)",
      },
    ]);
  });

  test.each([0, 1, 2, 3, 4])("line %d with the next one: swapped", async (index) => {
    using folder = temporaryFolder();
    const files = await smallLog(folder);
    const lines = files.lines(0);
    const [one = "", other = ""] = lines.slice(index, index + 2);
    files.write(0, lines.toSpliced(index, 2, other, one));
    const found = await verified(folder.path);
    expect(found.verdict).toBe("broken");
    expect(faultsOf(found)[0]).toStartWith(`1:${index + 1} #${index + 1} `);
  });

  test("put in: doubled, of another log, empty, no JSON, too long", async () => {
    using folder = temporaryFolder();
    using other = temporaryFolder();
    const files = await smallLog(folder);
    const [, , foreign = ""] = (await smallLog(other)).lines(0);
    const lines = files.lines(0);
    for (const [line, what] of [
      [lines[2] ?? "", "sequence"],
      [foreign, "hash of the line before"],
      ["", "line"],
      ["x", "line"],
      ["{}", "record"],
      [`{"a":"${"x".repeat(200_000)}"}`, "line"],
    ] as const) {
      files.write(0, lines.toSpliced(what === "sequence" ? 3 : 2, 0, line));
      const found = await verified(folder.path);
      const [first] = found.faults;
      expect({ line: line.slice(0, 9), what: first?.what }).toEqual({
        line: line.slice(0, 9),
        what,
      });
    }
  });

  test("changed with a hash that fits: the next line says so", async () => {
    using folder = temporaryFolder();
    const files = await smallLog(folder);
    const lines = files.lines(0);
    const before = JSON.parse(lines[1] ?? "") as { hash: string };
    const [forged = ""] = rechain([(lines[2] ?? "").replace("web-1", "web-9")], {
      sequence: 2,
      hash: before.hash,
    });
    files.write(0, lines.toSpliced(2, 1, forged));
    expect(faultsOf(await verified(folder.path))).toEqual(["1:4 #4 hash of the line before"]);
  });

  test("no more than a hundred faults are named, and all are counted", async () => {
    using folder = temporaryFolder();
    await writeCalls({ directory: folder.path }, 150);
    const files = new LogFiles(folder.path);
    files.write(0, Buffer.from(files.bytes(0).toString().replaceAll("alice", "Alice")));
    const { faults, faultCount } = await verified(folder.path);
    expect({ named: faults.length, faultCount }).toEqual({ named: 100, faultCount: 150 });
  });
});

describe("segments", () => {
  test.each([
    [0, "6:1 #1 beginning"],
    [1, "11:1 #6 sequence"],
    [2, "16:1 #11 sequence"],
  ])("segment %d is missing", async (index, expected) => {
    using folder = temporaryFolder();
    const files = await largeLog(folder);
    expect(await verified(folder.path)).toMatchObject({ verdict: "intact", segments: 4 });
    files.remove(index);
    expect(faultsOf(await verified(folder.path))).toEqual([expected]);
  });

  test("the last one is missing: a noted head says so", async () => {
    using folder = temporaryFolder();
    const files = await largeLog(folder);
    const { head } = await verified(folder.path);
    files.remove(3);
    const heads = head === null ? [] : [head];
    const found = await verifyAudit({ directory: folder.path, keys, heads });
    expect(found).toMatchObject({ verdict: "broken", heads: [{ status: "missing" }] });
  });

  test.each([
    [0, 1],
    [1, 2],
    [2, 3],
  ])("segments %d and %d are swapped", async (one, other) => {
    using folder = temporaryFolder();
    const files = await largeLog(folder);
    files.write(one, files.bytes(other));
    files.write(other, files.bytes(one));
    const found = await verified(folder.path);
    expect(found.verdict).toBe("broken");
    expect(found.faults[0]?.file).toBe(files.names[one] ?? "");
  });

  test("an empty one in the middle, and one at the end with a wrong name", async () => {
    using folder = temporaryFolder();
    const files = await largeLog(folder);
    files.write(1, Buffer.alloc(0));
    expect((await verified(folder.path)).faults[0]).toMatchObject({ received: "an empty file" });
    files.restore();
    await Bun.write(folder.file("segment-0000000000000099.jsonl"), "");
    expect((await verified(folder.path)).faults).toMatchObject([{ what: "name" }]);
    await Bun.write(folder.file("segment-0000000000000099.jsonl"), "x");
    expect((await verified(folder.path)).verdict).toBe("broken");
  });
});

test.each(Array.from({ length: 8 }, (_, seed) => seed))("any edit, seed %d", async (seed) => {
  using folder = temporaryFolder();
  const files = await largeLog(folder);
  const chance = new SeededChance(seed);
  for (let round = 0; round < 100; round += 1) {
    const index = chance.below(files.names.length);
    const original = files.bytes(index);
    const [from, to] = [chance.below(original.length), chance.below(original.length)].toSorted(
      (one, other) => one - other,
    );
    const piece = original.subarray(from, to);
    const edit = chance.pick(["cut out", "doubled", "reversed", "random", "of another"]);
    const other = files.bytes(chance.below(files.names.length));
    const put = {
      "cut out": Buffer.alloc(0),
      doubled: Buffer.concat([piece, piece]),
      reversed: Buffer.from(piece).reverse(),
      random: Buffer.from(piece).map(() => chance.below(256)),
      "of another": other.subarray(from, to),
    }[edit];
    const edited = Buffer.concat([original.subarray(0, from), put, original.subarray(to)]);
    files.write(index, edited);
    const { verdict } = await verified(folder.path);
    // Nothing but the end of the last segment may be away; a piece that reads the same is no edit.
    const isEnd = index === files.names.length - 1;
    const isCut = isEnd && original.subarray(0, edited.length).equals(edited);
    const isSame = edited.equals(original) || isCut;
    expect({ round, edit, verdict }).toEqual({
      round,
      edit,
      verdict: isSame ? "intact" : "broken",
    });
    files.restore();
  }
});

describe("without the key", () => {
  test("a whole chain made anew has hashes that fit, and no signature", async () => {
    using folder = temporaryFolder();
    const files = await smallLog(folder);
    const lines = files.lines(0).map((line) => line.replace("web-1", "web-9"));
    const unsigned = lines.map((line) => {
      const { key: _, signature: __, ...record } = JSON.parse(line);
      return JSON.stringify(record);
    });
    files.write(0, rechain(unsigned, { sequence: 0, hash: noHash }));
    expect(await verified(folder.path)).toMatchObject({ verdict: "intact", signed: null });
    const found = await verifyAudit({ directory: folder.path, keys });
    expect(faultsOf(found)).toEqual(["1:1 #1 signature", "1:2 #2 signature", "1:6 #6 signature"]);
  });

  test("signed by another key; with the signatures that were there; with half of one", async () => {
    using folder = temporaryFolder();
    const other = testSigner();
    await writeCalls({ directory: folder.path, signer: other.signer }, 1);
    expect(await verifyAudit({ directory: folder.path, keys: other.keys })).toMatchObject({
      verdict: "intact",
    });
    const found = await verifyAudit({ directory: folder.path, keys });
    expect(found.faults[0]).toMatchObject({
      what: "signature",
      expected: `one by ${[...keys][0]}`,
      received: `by ${[...other.keys][0]}`,
    });
    const files = new LogFiles(folder.path);
    const start = { sequence: 0, hash: noHash };
    files.write(
      0,
      rechain(
        files.lines(0).map((line) => line.replace("web-1", "web-2")),
        start,
      ),
    );
    expect((await verified(folder.path)).faults[0]?.what).toBe("signature");
    const half = files.lines(0).map((line) => line.replace(/"signature":"[^"]*",/, ""));
    files.write(0, rechain(half, start));
    expect((await verified(folder.path)).faults[0]).toMatchObject({ received: "one of them" });
  });

  test("an empty folder is a log that begins; only a noted head knows of more", async () => {
    using folder = temporaryFolder();
    const options = { directory: folder.path, keys };
    expect(await verifyAudit(options)).toMatchObject({ verdict: "intact", head: null });
    const heads = [{ sequence: 1, hash: noHash }];
    expect(await verifyAudit({ ...options, heads })).toMatchObject({
      verdict: "broken",
      heads: [{ status: "missing" }],
    });
  });
});

describe("while somebody writes", () => {
  /** Verifies, and once, when the whole file has been read, does something to it. */
  async function verifiedDuring(directory: string, act: () => void) {
    let passes = 0;
    const progress = () => {
      passes += 1;
      if (passes === 1) act();
    };
    return { ...(await verifyAudit({ directory, progress })), passes };
  }

  test("what is taken back from under a reader is no fault", async () => {
    using folder = temporaryFolder();
    const files = await smallLog(folder);
    const torn = files.bytes(0).subarray(0, -150);
    // What the next writer makes of it: the piece is gone, and other lines stand there.
    files.write(0, torn);
    await writeCalls({ directory: folder.path, signer }, 2);
    const repaired = new LogFiles(folder.path).bytes(0);
    files.write(0, torn);
    const found = await verifiedDuring(folder.path, () => files.write(0, repaired));
    expect(found).toMatchObject({ verdict: "intact", cutShort: 0, records: 10 });
    expect(found.passes).toBeGreaterThan(2);
  });

  test("what was changed stays a fault, however much is written", async () => {
    using folder = temporaryFolder();
    const files = await smallLog(folder);
    const changed = Buffer.from(files.bytes(0).toString().replace("alice", "Alice"));
    files.write(0, changed.subarray(0, -200));
    const found = await verifiedDuring(folder.path, () => files.write(0, changed));
    expect(found).toMatchObject({ verdict: "broken", faultCount: 1 });
  });
});
