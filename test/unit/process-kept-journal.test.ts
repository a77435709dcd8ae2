/** The journal that a holder keeps: written line by line, read by another orchestrator. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { step } from "../../src/process/lifecycle.ts";
import {
  journalGeneration,
  KEPT_VERSION,
  type KeptEntry,
  keptHeader,
  keptLine,
  keptNames,
  newestJournal,
  readKept,
} from "../../src/process/protocol-kept.ts";
import { lifeIn, phases } from "../support/lifecycle/phases.ts";
import { withInvocations } from "../support/orchestrator-state.ts";

const boot = "9a0c7f5e-6b5c-4b0e-9d8c-1f6f6f6f6f6f";
const launch = "0".repeat(32);

const entryIn = (phase: (typeof phases)[number], name: string = phase): KeptEntry => ({
  name,
  launch,
  notify: phase === "running" ? "@hostler-notify-1" : undefined,
  state: withInvocations(lifeIn[phase](step).state),
});

const written = (...entries: readonly KeptEntry[]) =>
  keptHeader(boot) + entries.map(keptLine).join("");

const entriesOf = (text: string) => {
  const read = readKept(text, boot);
  if ("refusal" in read) throw new Error(JSON.stringify(read.refusal));
  return read.entries;
};

describe("a journal", () => {
  test("says every phase as it was", () => {
    const entries = phases.map((phase) => entryIn(phase));
    expect([...entriesOf(written(...entries)).values()]).toEqual(entries);
  });

  test("is written as it always was: the release before may have done it", () => {
    const golden = join(import.meta.dirname, "../contract", `process-kept-${KEPT_VERSION}.jsonl`);
    expect(written(...phases.map((phase) => entryIn(phase)))).toBe(readFileSync(golden, "utf8"));
  });

  test("the last line of a process counts", () => {
    const text = written(entryIn("starting", "it"), entryIn("ready", "it"));
    expect(entriesOf(text).get("it")).toEqual(entryIn("ready", "it"));
  });

  test("cut at any byte of its last line, the line before it counts", () => {
    const whole = written(entryIn("starting", "it"));
    const last = keptLine(entryIn("ready", "it"));
    for (let length = 0; length < last.length; length += 1) {
      const entries = entriesOf(whole + last.slice(0, length));
      expect(entries.get("it")?.state.phase).toBe("starting");
    }
  });

  test.each([
    ["nothing", ""],
    ["no header", keptLine(entryIn("ready"))],
    ["another boot", keptHeader("another") + keptLine(entryIn("ready"))],
    ["another version", written(entryIn("ready")).replace('"version":1', '"version":2')],
    ["a line that is no JSON", `${written(entryIn("ready"))}{"name":\n`],
    ["a line that says something else", `${written(entryIn("ready"))}{"name":"it"}\n`],
    ["an unknown phase", written(entryIn("ready")).replace('"phase":"ready"', '"phase":"well"')],
  ])("is refused whole: %s", (_, text) => {
    expect(readKept(text, boot)).toMatchObject({ refusal: { expected: expect.any(String) } });
  });
});

describe("names", () => {
  test("of two journals the one with the higher number counts", () => {
    const names = [keptNames.journal(9), keptNames.journal(10), "pipe/journal/1"];
    expect(newestJournal(names)).toBe(10);
    expect(newestJournal(["process/x"])).toBe(0);
    expect(journalGeneration("journal/0")).toBeUndefined();
  });

  test("the longest name of a process fits into what a holder takes", () => {
    const longest = keptNames.pipe("n".repeat(64), "stdout", "write");
    expect(longest.length).toBeLessThanOrEqual(128);
  });
});
