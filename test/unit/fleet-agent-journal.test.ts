/** The journal of a device: what was written is read, and nothing else is. */
import { describe, expect, test } from "bun:test";
import { step } from "../../src/fleet/lifecycle.ts";
import {
  decodeJournal,
  encodeJournal,
  type Journal,
  journalLimits,
} from "../../src/fleet/lifecycle-journal.ts";
import { fleetLimits } from "../../src/fleet/protocol.ts";
import { Life, makeMarker, words } from "../support/fleet-agent/life.ts";
import { makeLives } from "../support/fleet-agent/lives.ts";

const journals = makeLives(step).map(({ name, life }) => [name, life.journal as Journal] as const);
const usual = journals.find(([name]) => name === "swapped")?.[1] as Journal;

test.each(journals)("what is written in %s is read", (_name, journal) => {
  expect(decodeJournal(encodeJournal(journal))).toEqual({ kind: "ok", journal });
});

describe("something else is refused, with what was expected", () => {
  test.each([
    ["nothing", "", "a line of JSON"],
    ["a line that was cut", encodeJournal(usual).slice(0, 100), "a line of JSON"],
    ["no journal", "[]", "format 1"],
    ["no format", "{}", "received none"],
    ["a later format", JSON.stringify({ ...usual, format: 2 }), "received format 2"],
    [
      "a phase of a later version",
      JSON.stringify({ ...usual, life: { phase: "floating" } }),
      'received "floating"',
    ],
    [
      "a key of a later version",
      JSON.stringify({ ...usual, life: { ...usual.life, more: 1 } }),
      "never at life.more",
    ],
    ["a digest that is none", JSON.stringify({ ...usual, current: words }), "at current"],
  ])("%s", (_name, text, reason) => {
    const decoded = decodeJournal(text);
    expect(decoded.kind).toBe("refused");
    expect(decoded.kind === "refused" ? decoded.reason : "").toContain(reason);
  });

  test("one that is too long is not even parsed", () => {
    const text = `"${"x".repeat(journalLimits.bytes)}"`;
    const reason = `expected at most ${journalLimits.bytes} characters, received ${text.length}`;
    expect(decodeJournal(text)).toEqual({ kind: "refused", reason });
  });
});

test("the longest that can be is below the limit", () => {
  const sources = Array.from({ length: fleetLimits.sources }, () =>
    "\u0001".repeat(fleetLimits.sourceLength),
  );
  const manifest = '"'.repeat(fleetLimits.manifestBytes);
  const lastWords = { ...words, log: "\u0001".repeat(fleetLimits.lastWords) };
  const life = new Life(step).tell({
    kind: "marker",
    marker: makeMarker(1, { sources, manifest }),
  });
  const journal = life.journal as Journal;
  const longest: Journal = { ...journal, seen: Array(journalLimits.seen).fill("f".repeat(32)) };
  const bytes = encodeJournal(longest).length + JSON.stringify(lastWords).length;
  expect(bytes).toBeLessThan(journalLimits.bytes);
});
