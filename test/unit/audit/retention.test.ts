/** What goes, when, and that the rest still verifies. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { noHash } from "../../../src/audit/hash.ts";
import { auditLimits } from "../../../src/audit/limits.ts";
import { AuditLog } from "../../../src/audit/log.ts";
import { ageAfter, planRetention } from "../../../src/audit/retention.ts";
import { verifyAudit } from "../../../src/audit/verify.ts";
import {
  callOf,
  faultsOf,
  LogFiles,
  rechain,
  testSigner,
  verified,
  writeCalls,
} from "../../support/audit.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

// Many small files: on a loaded machine it takes its time.
setDefaultTimeout(60_000);

const { signer, keys } = testSigner();
const day = 24 * 3_600_000;
const mebibyte = 1024 ** 2;

describe("the plan", () => {
  const closed = [
    { bytes: 100, elapsed: 10 },
    { bytes: 100, elapsed: 20 },
    { bytes: 100, elapsed: 30 },
  ];
  const plan = (bytes: number, elapsed: number) =>
    planRetention(closed, { bytes, elapsed }, { age: 100, size: 350 });

  test("nothing, at the bounds", () => expect(plan(350, 110)).toBeUndefined());
  test("one byte more", () => expect(plan(351, 110)).toEqual({ count: 1, reason: "size" }));
  test("many more", () => expect(plan(551, 0)).toEqual({ count: 3, reason: "size" }));
  test("more than there is", () => expect(plan(9_999, 0)).toEqual({ count: 3, reason: "size" }));
  test("older by one", () => expect(plan(0, 111)).toEqual({ count: 1, reason: "age" }));
  test("both", () => expect(plan(451, 111)).toEqual({ count: 2, reason: "size" }));
});

test("the age of a log: a jump ahead adds at most 90 days, one back adds nothing", () => {
  const year2045 = Date.parse("2045-01-01T00:00:00Z");
  expect(ageAfter(5, { last: 100, now: 130 })).toBe(35);
  expect(ageAfter(5, { last: year2045, now: 0 })).toBe(5);
  expect(ageAfter(5, { last: 0, now: year2045 })).toBe(5 + auditLimits.longestGap);
  expect(ageAfter(5, { last: 0, now: Number.NaN })).toBe(5);
});

test("by size: never over it, whole oldest segments, and it says what was dropped", async () => {
  using folder = temporaryFolder();
  const size = mebibyte;
  const options = { directory: folder.path, signer, size };
  let last = 0;
  for (let opening = 0; opening < 3; opening += 1) {
    await using log = await AuditLog.open(options);
    for (let turn = 0; turn < 60; turn += 1) {
      const calls = Array.from({ length: 100 }, (_, number) => callOf(number));
      await Promise.all(calls.map((call) => log.append(call)));
      expect(log.size).toBeLessThanOrEqual(size);
      const files = new LogFiles(folder.path);
      const bytes = [...files.files.values()].reduce((sum, file) => sum + file.length, 0);
      expect(bytes).toBe(log.size);
    }
    const found = await verifyAudit({ directory: folder.path, keys });
    expect(found).toMatchObject({ verdict: "intact", dropped: { reason: "size" } });
    expect(found.dropped?.sequence).toBe((found.first ?? 0) - 1);
    expect(found.dropped?.sequence).toBeGreaterThan(last);
    last = found.dropped?.sequence ?? 0;
    expect(found.bytes).toBeGreaterThan(size / 2);
  }
});

test("by age: a thirty-second more is kept, and no more", async () => {
  using folder = temporaryFolder();
  const age = 32 * day;
  const start = Date.parse("2026-01-01T00:00:00Z");
  let today = 0;
  const now = () => start + today * day;
  for (; today < 100; today += 1) {
    await writeCalls({ directory: folder.path, signer, age, now }, 1);
    const [oldest = ""] = new LogFiles(folder.path).lines(0);
    const days = (now() - Date.parse(JSON.parse(oldest).time)) / day;
    expect(days).toBeLessThanOrEqual(32 + 2);
    if (today > 40) expect(days).toBeGreaterThanOrEqual(32);
  }
  const found = await verifyAudit({ directory: folder.path, keys });
  expect(found).toMatchObject({ verdict: "intact", dropped: { reason: "age" } });
});

test("a clock at 2045 drops nothing of this year's", async () => {
  using folder = temporaryFolder();
  const options = { directory: folder.path, signer, age: 365 * day };
  await writeCalls({ ...options, now: () => Date.parse("2026-01-01T00:00:00Z") }, 3);
  for (const time of ["2045-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2045-01-01T00:00:00Z"]) {
    await writeCalls({ ...options, now: () => Date.parse(time) }, 3);
  }
  const found = await verifyAudit({ directory: folder.path, keys });
  expect(found).toMatchObject({ verdict: "intact", first: 1, dropped: null });
});

describe("the anchor", () => {
  async function dropped(directory: string) {
    await using log = await AuditLog.open({ directory, signer, size: mebibyte });
    for (let turn = 0; turn < 40; turn += 1) {
      const calls = Array.from({ length: 100 }, (_, number) => callOf(number));
      await Promise.all(calls.map((call) => log.append(call)));
    }
    await log.close();
    return new LogFiles(directory);
  }

  test("does not cover a segment more", async () => {
    using folder = temporaryFolder();
    const files = await dropped(folder.path);
    const { first, head } = await verified(folder.path);
    files.remove(0);
    expect(faultsOf(await verified(folder.path))[0]).toEndWith("#1 beginning");
    files.restore();
    // A head that retention took is no fault; the last of them can still be compared.
    const heads = [
      { sequence: 1, hash: noHash },
      { sequence: (first ?? 0) - 1, hash: (await verified(folder.path)).dropped?.hash ?? "" },
      { sequence: (first ?? 0) - 1, hash: noHash },
      ...(head === null ? [] : [head]),
    ];
    const found = await verifyAudit({ directory: folder.path, keys, heads });
    const statuses = found.heads.map(({ status }) => status);
    expect(statuses).toEqual(["dropped", "matches", "differs", "matches"]);
    expect(found).toMatchObject({ verdict: "broken", faultCount: 1 });
  });

  test("is nothing without a signature, where there is a key", async () => {
    using folder = temporaryFolder();
    const files = await dropped(folder.path);
    files.remove(0);
    const left = new LogFiles(folder.path);
    const [oldest = ""] = left.lines(0);
    const { sequence, previous } = JSON.parse(oldest);
    const lines = left.lines(left.names.length - 1);
    const end = JSON.parse(lines.at(-1) ?? "");
    const forged = {
      ...{ sequence: 0, time: end.time, kind: "dropped", first: 1, last: sequence - 1 },
      ...{ head: previous, segments: 1, bytes: 1, reason: "size", previous: "", hash: "" },
    };
    const [line = ""] = rechain([JSON.stringify(forged)], end);
    left.write(left.names.length - 1, [...lines, line]);
    expect((await verified(folder.path)).verdict).toBe("intact");
    const found = await verifyAudit({ directory: folder.path, keys });
    expect(found.faults).toMatchObject([{ what: "signature", received: "none" }]);
  });
});
