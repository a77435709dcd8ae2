/** What a candidate left, in words. */
import { expect, test } from "bun:test";
import * as v from "valibot";
import { parseUnitEnding } from "../../../src/fleet/candidate-ending.ts";
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
