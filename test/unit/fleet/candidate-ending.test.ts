/** What a candidate left, in words. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { parseFormerEnding, parseUnitEnding } from "../../../src/fleet/candidate-ending.ts";
import { fleetLimits, lastWordsSchema } from "../../../src/fleet/protocol.ts";

const files = "52428800\nusage_usec 1250000\nuser_usec 1000000\nsystem_usec 250000\n";

test.each([
  ["success exited 0", "exited with 0"],
  ["exit-code exited 1", "exited with 1"],
  ["signal killed SEGV", "ended by SIGSEGV"],
  ["core-dump dumped ABRT", "ended by SIGABRT, with a core dump"],
  ["timeout killed TERM", "its time was over: ended by SIGTERM"],
  ["watchdog dumped ABRT", "it did not say that it lives: ended by SIGABRT, with a core dump"],
  ["oom-kill killed KILL", "there was no memory left for it: ended by SIGKILL"],
  ["protocol exited 0", "it never said that it is ready: exited with 0"],
  ["resources", "it could not be started: it did not run"],
  ["", "it did not run"],
])("%j", (first, ending) => {
  expect(parseUnitEnding(`${first}\n${files}`, "said\n")).toEqual({
    ending,
    log: "said\n",
    processor_seconds: 1.25,
    memory_peak_bytes: 52_428_800,
  });
});

test("a host without these files says nothing of processor and memory", () => {
  expect(parseUnitEnding("exit-code exited 1\n", "")).toMatchObject({
    processor_seconds: null,
    memory_peak_bytes: null,
  });
});

test("however much it said, the wire takes it, and the end of it is there", () => {
  const log = `${"x".repeat(20_000)}last words\n`;
  const words = parseUnitEnding(`exit-code exited ${"9".repeat(9_000)}\n${"8".repeat(400)}`, log);
  expect(v.is(lastWordsSchema, words)).toBe(true);
  expect(words.log).toHaveLength(fleetLimits.lastWords);
  expect(words.log).toEndWith("last words\n");
});

describe("what a unit's run before this one left", () => {
  const line = (message: string | number[], more: object = {}) =>
    JSON.stringify({ MESSAGE: message, _PID: "7", ...more });
  const own = { process: 9, invocation: "b".repeat(32) };
  const exited = (words: string) =>
    line(`hostler-fleet-agent.service: Main process exited, ${words}`, { _PID: "1" });

  test.each([
    ["code=exited, status=1/FAILURE", "exited with 1"],
    ["code=killed, status=9/KILL", "ended by SIGKILL"],
    ["code=dumped, status=6/ABRT", "ended by SIGABRT, with a core dump"],
  ])("%s", (words, ending) => {
    const text = [line("it begins"), line("a mistake"), exited(words)].join("\n");
    expect(parseFormerEnding(text, own)).toEqual({
      ...{ ending, processor_seconds: null, memory_peak_bytes: null },
      log: `it begins\na mistake\nhostler-fleet-agent.service: Main process exited, ${words}\n`,
    });
  });

  test("what this run has said, and lines that are no text, are left out", () => {
    const text = [
      ...["no JSON", line([255, 254]), line("of before", { _PID: "5" })],
      ...[line("of this process", { _PID: "9" })],
      line("its guard", { _SYSTEMD_INVOCATION_ID: own.invocation }),
      line("Starting it", { _PID: "1", INVOCATION_ID: own.invocation }),
    ].join("\n");
    expect(parseFormerEnding(text, own)).toMatchObject({
      ending: "it is gone, and nobody saw how",
      log: "of before\n",
    });
  });

  test("nothing is known where nothing was said, and no more is kept than fits", () => {
    expect(parseFormerEnding("", own)).toBeNull();
    expect(parseFormerEnding(line("mine", { _PID: "9" }), own)).toBeNull();
    const long = parseFormerEnding(line("x".repeat(10_000)), { process: 9, invocation: undefined });
    expect(v.is(lastWordsSchema, long)).toBe(true);
    expect(long?.log).toHaveLength(fleetLimits.lastWords);
  });
});
