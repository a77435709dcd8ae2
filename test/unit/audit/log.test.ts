/** The writer: what it writes, when it answers, and what it refuses. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { appendFileSync, chmodSync, mkdirSync, rmSync, statSync, symlinkSync } from "node:fs";
import { auditLimits } from "../../../src/audit/limits.ts";
import { AuditLog } from "../../../src/audit/log.ts";
import { verifyAudit } from "../../../src/audit/verify.ts";
import { callOf, LogFiles, testSigner, verified, writeCalls } from "../../support/audit.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

// Many small files: on a loaded machine it takes its time.
setDefaultTimeout(60_000);

const { signer, keys } = testSigner();

describe("append", () => {
  test("a record says who did what from where, with a place and the hash before", async () => {
    using folder = temporaryFolder();
    const now = () => Date.parse("2026-11-28T10:00:00Z");
    await using log = await AuditLog.open({ directory: folder.path, now });
    const head = await log.append(callOf(1));
    expect(log.head).toEqual(head);
    const [, before, line] = new LogFiles(folder.path).lines(0).map((text) => JSON.parse(text));
    expect(line).toEqual({
      sequence: 3,
      time: "2026-11-28T10:00:00.000Z",
      kind: "call",
      ...callOf(1),
      previous: before.hash,
      hash: head.hash,
    });
  });

  test("it is there when append has returned, and not before the turn is over", async () => {
    using folder = temporaryFolder();
    await using log = await AuditLog.open({ directory: folder.path });
    const heads = [1, 2, 3].map((number) => log.append(callOf(number)));
    expect(new LogFiles(folder.path).lines(0)).toHaveLength(2);
    const { sequence } = (await heads[0]) ?? { sequence: 0 };
    // Those of one turn come with one write.
    expect(sequence).toBe(3);
    expect(new LogFiles(folder.path).lines(0)).toHaveLength(5);
    expect((await Promise.all(heads)).map((head) => head.sequence)).toEqual([3, 4, 5]);
  });

  test("modes: 0700 and 0600", async () => {
    using folder = temporaryFolder();
    const directory = folder.file("deep/audit");
    await writeCalls({ directory }, 1);
    const mode = (path: string) => statSync(path).mode & 0o7777;
    expect(mode(directory)).toBe(0o700);
    expect(mode(`${directory}/segment-0000000000000001.jsonl`)).toBe(0o600);
    expect(mode(`${directory}/lock`)).toBe(0o600);
  });

  test("opening goes on with the chain, and says so", async () => {
    using folder = temporaryFolder();
    for (const count of [2, 1, 0]) await writeCalls({ directory: folder.path, signer }, count);
    const kinds = new LogFiles(folder.path).lines(0).map((line) => JSON.parse(line).kind);
    expect(kinds).toEqual([
      ...["segment", "opened", "call", "call", "checkpoint"],
      ...["opened", "call", "checkpoint", "opened"],
    ]);
    expect(await verifyAudit({ directory: folder.path, keys })).toMatchObject({
      verdict: "intact",
      records: 9,
      unsigned: 0,
    });
  });

  test("a signature comes after a hundred records at the latest", async () => {
    using folder = temporaryFolder();
    await using log = await AuditLog.open({ directory: folder.path, signer });
    for (let turn = 0; turn < 30; turn += 1) {
      await Promise.all(Array.from({ length: 9 }, (_, number) => log.append(callOf(number))));
      const { unsigned } = await verifyAudit({ directory: folder.path, keys });
      expect(unsigned).toBeLessThan(auditLimits.unsignedRecords);
    }
  });

  test("any clock will do: the order is the sequence's", async () => {
    using folder = temporaryFolder();
    const times = [0, -1e15, 9e18, Number.NaN, 4e12, 0, 2_366_841_600_000];
    let index = 0;
    const now = () => times[index % times.length] ?? 0;
    for (; index < 14; index += 1) await writeCalls({ directory: folder.path, signer, now }, 1);
    const found = await verifyAudit({ directory: folder.path, keys });
    expect(found).toMatchObject({ verdict: "intact", dropped: null });
  });

  test("a line never passes its limit, whatever is put in", async () => {
    using folder = temporaryFolder();
    const long = "\u0000".repeat(100_000);
    const texts = { who: long, from: long, verb: long, object: long, result: long };
    const values = { before: [long.slice(0, 2_700)], after: { [long.slice(0, 2_700)]: 1 } };
    await using log = await AuditLog.open({ directory: folder.path, signer });
    await log.append({ ...texts, ...values });
    await log.append({ ...texts, before: long, after: long });
    const lengths = new LogFiles(folder.path).lines(0).map((line) => Buffer.byteLength(line));
    expect(Math.max(...lengths)).toBeLessThan(auditLimits.lineBytes);
    expect(Math.max(...lengths)).toBeGreaterThan(2 * auditLimits.changeBytes);
    expect((await verified(folder.path)).verdict).toBe("intact");
  });
});

describe("refused", () => {
  test("a second writer, until the first one has gone", async () => {
    using folder = temporaryFolder();
    const options = { directory: folder.path };
    const first = await AuditLog.open(options);
    const error = await rejectionOf(AuditLog.open(options));
    expect(error).toMatchObject({ problem: "locked", exitCode: 111 });
    await first.close();
    await using _second = await AuditLog.open(options);
  });

  test("one record more than may wait", async () => {
    using folder = temporaryFolder();
    await using log = await AuditLog.open({ directory: folder.path });
    const taken = Array.from({ length: auditLimits.queueRecords }, () => log.append(callOf(1)));
    expect(await rejectionOf(log.append(callOf(2)))).toMatchObject({ problem: "busy" });
    expect(() => log.admit()).toThrow("records that wait");
    await Promise.all(taken);
    log.admit();
    await log.append(callOf(3));
  });

  test("after its end; what waits before it is written", async () => {
    using folder = temporaryFolder();
    const log = await AuditLog.open({ directory: folder.path });
    const last = log.append(callOf(1));
    await log.close();
    await log.close();
    expect((await last).sequence).toBe(3);
    expect(await rejectionOf(log.append(callOf(2)))).toMatchObject({ problem: "closed" });
    expect(() => log.admit()).toThrow("closed");
  });

  test("less free room than the reserve: nothing is admitted", async () => {
    using folder = temporaryFolder();
    await using log = await AuditLog.open({ directory: folder.path, reserve: 2 ** 62 });
    expect(() => log.admit()).toThrow("expected room on its file system");
    // A record of a call that is refused for that is written as long as it can be.
    await log.append(callOf(1, { result: "refused" }));
  });

  test.each(["appended to", "removed", "replaced"])("a segment that was %s", async (what) => {
    using folder = temporaryFolder();
    const log = await AuditLog.open({ directory: folder.path });
    await log.append(callOf(1));
    const path = folder.file("segment-0000000000000001.jsonl");
    if (what !== "appended to") rmSync(path);
    if (what !== "removed") appendFileSync(path, "x");
    const error = await rejectionOf(log.append(callOf(2)));
    expect(error).toMatchObject({ problem: "broken" });
    expect(await rejectionOf(log.append(callOf(3)))).toMatchObject({ cause: error });
    expect(() => log.admit()).toThrow("before it is opened anew");
    await log.close();
  });

  test("a signer that fails, once: nothing is written, and the next one is", async () => {
    using folder = temporaryFolder();
    let fails = false;
    const failing = {
      publicKey: signer.publicKey,
      sign: (bytes: Uint8Array) => {
        if (fails) throw new Error("the key is away");
        return signer.sign(bytes);
      },
    };
    await using log = await AuditLog.open({ directory: folder.path, signer: failing });
    const many = Array.from({ length: auditLimits.unsignedRecords }, (_, n) => callOf(n));
    fails = true;
    const outcomes = await Promise.allSettled(many.map((call) => log.append(call)));
    expect(new Set(outcomes.map(({ status }) => status))).toEqual(new Set(["rejected"]));
    expect(() => log.admit()).toThrow("Cannot write");
    fails = false;
    log.admit();
    await log.append(callOf(1));
    expect(await verifyAudit({ directory: folder.path, keys })).toMatchObject({
      verdict: "intact",
      records: 4,
    });
  });

  test("folders in which others may write, files, and links in the place of segments", async () => {
    using folder = temporaryFolder();
    const directory = folder.file("audit");
    mkdirSync(directory);
    chmodSync(directory, 0o777);
    expect((await rejectionOf(AuditLog.open({ directory }))).message).toContain("mode 0777");
    chmodSync(directory, 0o755);
    await writeCalls({ directory }, 1);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    await Bun.write(folder.file("file"), "");
    const error = await rejectionOf(AuditLog.open({ directory: folder.file("file") }));
    expect(error.message).toContain("received a file in the place of one");
    symlinkSync("/dev/zero", `${directory}/segment-0000000000000099.jsonl`);
    expect(await rejectionOf(verified(directory))).toMatchObject({
      name: "FileRefused",
      message: expect.stringContaining("received a symbolic link. Somebody has put it there"),
    });
    rmSync(`${directory}/segment-0000000000000099.jsonl`);
    mkdirSync(`${directory}/segment-0000000000000099.jsonl`);
    expect(await rejectionOf(verified(directory))).toMatchObject({ name: "FileRefused" });
  });

  test.each([
    ...[{ age: 1 }, { age: Number.NaN }, { size: 1 }, { segmentBytes: 1 }],
    { segmentBytes: 1024 ** 2, size: 2 * 1024 ** 2 },
  ])("out of bounds: %o", async (options) => {
    using folder = temporaryFolder();
    const error = await rejectionOf(AuditLog.open({ directory: folder.path, ...options }));
    expect(error).toBeInstanceOf(RangeError);
  });
});
