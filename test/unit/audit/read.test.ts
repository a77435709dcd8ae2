/** Reading: filters, both directions, over segments, and while somebody writes. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { AuditLog } from "../../../src/audit/log.ts";
import { followAudit, matchesText, type ReadOptions, readAudit } from "../../../src/audit/read.ts";
import { callOf, LogFiles, testSigner, writeCalls } from "../../support/audit.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { withDeadline } from "../../support/wait-for.ts";

// Many small files: on a loaded machine it takes its time.
setDefaultTimeout(60_000);

const { signer } = testSigner();

/** 400 calls in several segments. */
async function longLog(directory: string): Promise<void> {
  await using log = await AuditLog.open({ directory, signer, segmentBytes: 64 * 1024 });
  for (let number = 0; number < 400; number += 1) {
    const who = number % 10 === 0 ? "operator bob" : "operator alice";
    const verb = number % 2 === 0 ? "identity.hosts.revoke" : "store.put";
    await log.append(callOf(number, { who, verb, before: "x".repeat(500) }));
  }
  await log.close();
  expect(new LogFiles(directory).names.length).toBeGreaterThan(3);
}

async function objects(options: ReadOptions): Promise<string[]> {
  const found: string[] = [];
  for await (const item of readAudit(options)) {
    if (item.kind === "broken") found.push("broken");
    else found.push(item.record.kind === "call" ? item.record.object : item.record.kind);
  }
  return found;
}

const hosts = (numbers: readonly number[]) => numbers.map((number) => `host web-${number}`);
const every = Array.from({ length: 400 }, (_, number) => number);

test("all of it, both ways; the log's own records where they are asked for", async () => {
  using folder = temporaryFolder();
  await longLog(folder.path);
  const directory = folder.path;
  expect(await objects({ directory })).toEqual(hosts(every));
  expect(await objects({ directory, newestFirst: true })).toEqual(hosts(every.toReversed()));
  const own = (await objects({ directory, isAll: true })).filter(
    (name) => !name.startsWith("host"),
  );
  expect(own.slice(0, 3)).toEqual(["segment", "opened", "segment"]);
});

test("filters, limits, and where to begin", async () => {
  using folder = temporaryFolder();
  await longLog(folder.path);
  const directory = folder.path;
  const tens = every.filter((number) => number % 10 === 0);
  expect(await objects({ directory, who: "operator bob" })).toEqual(hosts(tens));
  expect(await objects({ directory, who: "* bob", limit: 2 })).toEqual(hosts([0, 10]));
  expect(await objects({ directory, verb: "store.*", limit: 2, newestFirst: true })).toEqual(
    hosts([399, 397]),
  );
  expect(await objects({ directory, object: "host web-39*" })).toEqual(
    hosts([39, ...every.slice(390)]),
  );
  expect(await objects({ directory, verb: "store.put", who: "operator bob" })).toEqual([]);
  expect(await objects({ directory, limit: 0 })).toEqual([]);
  const items: number[] = [];
  for await (const item of readAudit({ directory, limit: 300 })) {
    if (item.kind === "record") items.push(item.record.sequence);
  }
  const after = items.at(-1) ?? 0;
  expect(await objects({ directory, after })).toEqual(hosts(every.slice(300)));
  const backwards = { directory, after, newestFirst: true };
  expect(await objects(backwards)).toEqual(hosts(every.slice(300).toReversed()));
  expect(await objects({ directory, after: 1e9 })).toEqual([]);
});

test("a line that was changed is told as broken, and the others are read", async () => {
  using folder = temporaryFolder();
  await writeCalls({ directory: folder.path }, 3);
  const files = new LogFiles(folder.path);
  files.write(0, Buffer.from(files.bytes(0).toString().replace("web-2", "web-9")));
  const directory = folder.path;
  expect(await objects({ directory })).toEqual(["host web-1", "broken", "host web-3"]);
  const backwards = await objects({ directory, newestFirst: true });
  expect(backwards).toEqual(["host web-3", "broken", "host web-1"]);
});

test("a last line that is being written is not read yet", async () => {
  using folder = temporaryFolder();
  await writeCalls({ directory: folder.path }, 3);
  const files = new LogFiles(folder.path);
  files.write(0, files.bytes(0).subarray(0, -9));
  const directory = folder.path;
  expect(await objects({ directory })).toEqual(hosts([1, 2]));
  expect(await objects({ directory, newestFirst: true })).toEqual(hosts([2, 1]));
});

test("follow: what is there, what comes, over the end of a segment, until the signal", async () => {
  using folder = temporaryFolder();
  const options = { directory: folder.path, segmentBytes: 64 * 1024 };
  await using log = await AuditLog.open(options);
  await log.append(callOf(0));
  const stop = new AbortController();
  const follower = followAudit({ directory: folder.path, signal: stop.signal });
  const next = async () => {
    const { value } = await withDeadline("a record", follower.next());
    return value?.kind === "record" && value.record.kind === "call" ? value.record.object : value;
  };
  expect(await next()).toBe("host web-0");
  for (let number = 1; number < 300; number += 1) {
    const following = next();
    await log.append(callOf(number, { before: "x".repeat(700) }));
    expect(await following).toBe(`host web-${number}`);
  }
  expect(new LogFiles(folder.path).names.length).toBeGreaterThan(2);
  const end = follower.next();
  stop.abort();
  expect(await withDeadline("the end", end)).toMatchObject({ done: true });
});

describe("patterns", () => {
  test.each([
    ["", "", true],
    ["a", "", false],
    ["", "*", true],
    ["abc", "abc", true],
    ["abc", "ab", false],
    ["abc", "a*c", true],
    ["abc", "a*b", false],
    ["abab", "ab*ab", true],
    ["ab", "ab*ab", false],
    ["aXbXc", "a*X*c", true],
    ["abc", "*b*", true],
    ["a.c", "a?c", false],
    ["(a", "(*", true],
  ])("%j with %j: %p", (text, pattern, expected) => {
    expect(matchesText(text, pattern)).toBe(expected);
  });

  test("no pattern takes long", () => {
    const begin = performance.now();
    expect(matchesText("a".repeat(1_000), `${"a*".repeat(400)}b`)).toBe(false);
    expect(performance.now() - begin).toBeLessThan(100);
  });
});
