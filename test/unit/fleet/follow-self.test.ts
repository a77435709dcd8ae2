/** The supervisor becomes another program, or goes on as it was. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { ExecutorRefused } from "../../../src/fleet/executor.ts";
import { followSelf } from "../../../src/fleet/perform/follow-self.ts";

const signals = () =>
  readFileSync("/proc/thread-self/status", "utf8").match(/^Sig(Blk|Ign|Cgt):.*$/gm);

test("what the kernel refuses leaves every signal as it was", () => {
  const before = signals();
  // Bun ignores SIGPIPE, the 13th: with its default a write to who has gone would end us.
  expect(before?.find((line) => line.startsWith("SigIgn:"))).toMatch(/[13579bdf][0-9a-f]{3}$/);
  expect(() => followSelf(["/nowhere/hostler"], {})).toThrow(ExecutorRefused);
  expect(signals()).toEqual(before);
});
