import { describe, expect, test } from "bun:test";
import type { ArgumentDefinitions } from "../../../src/command-line/definition.ts";
import { durationArgument, parseWords, wholeNumber } from "../../../src/command-line/parse.ts";

const definitions: ArgumentDefinitions = {
  file: { type: "positional" },
  rest: { type: "positional", required: false, repeatable: true },
  follow: { type: "boolean", alias: "f" },
  json: { type: "boolean" },
  lines: { type: "string", alias: "n" },
  allow: { type: "string", repeatable: true },
  until: { type: "enum", options: ["ready", "stopped"], default: "ready" },
};

const nothing = {
  file: "x",
  rest: [],
  follow: false,
  json: false,
  lines: undefined,
  allow: [],
  until: "ready",
  help: false,
};

describe("parseWords", () => {
  const right: [string[], object][] = [
    [["x"], {}],
    [["--json", "x"], { json: true }],
    [["x", "--json"], { json: true }],
    [["x", "--json", "--json"], { json: true }],
    [["x", "y", "-f", "z"], { rest: ["y", "z"], follow: true }],
    [["-n", "5", "x"], { lines: "5" }],
    [["-n5", "x"], { lines: "5" }],
    [["-n=5", "x"], { lines: "5" }],
    [["-fn", "5", "x"], { follow: true, lines: "5" }],
    [["--lines=5", "x"], { lines: "5" }],
    [["--lines=", "x"], { lines: "" }],
    [["--lines", "-5", "x"], { lines: "-5" }],
    [["--lines=--json", "x"], { lines: "--json" }],
    [["x", "--allow", "1", "--allow=2,3"], { allow: ["1", "2,3"] }],
    [["x", "--until", "stopped"], { until: "stopped" }],
    [["--", "x", "--json", "--"], { rest: ["--json", "--"] }],
    [["-"], { file: "-" }],
  ];
  test.each(right)("%j", (words, expected) => {
    expect(parseWords(definitions, words)).toEqual({ ...nothing, ...expected } as never);
  });

  const wrong: [string[], string][] = [
    [[], "Expected <file>, received nothing"],
    [["x", "--jsno"], "Unknown flag --jsno. Did you mean --json?"],
    [["x", "--unheard-of"], "Unknown flag --unheard-of."],
    [["x", "-x"], "Unknown flag -x."],
    [["x", "--lines"], "Expected a value after --lines, received nothing"],
    [["x", "--lines", "--json"], "Expected a value after --lines, received --json"],
    [["x", "--json=yes"], "--json takes no value, received yes"],
    [["x", "-n5", "--lines=6"], "--lines is given twice"],
    [["x", "--until", "raedy"], "Did you mean ready?"],
    [["x", "--constructor"], "Unknown flag --constructor."],
  ];
  test.each(wrong)("%j is refused: %s", (words, message) => {
    expect(() => parseWords(definitions, words)).toThrow(message);
  });

  const dashed: ArgumentDefinitions = {
    name: { type: "positional" },
    signal: { type: "positional", dashed: true },
    json: { type: "boolean", alias: "j" },
  };
  const signals: [string[], object][] = [
    [["x", "-9"], { signal: "-9" }],
    [["-9", "x"], { signal: "-9" }],
    [["-jkill", "x"], { signal: "-jkill" }],
    [["-j", "x", "9"], { signal: "9", json: true }],
    [["x", "--", "-9"], { signal: "-9" }],
    [["-KILL", "--", "x"], { signal: "-KILL" }],
  ];
  test.each(signals)("with a dash as kill(1) takes it: %j", (words, expected) => {
    const values = { name: "x", json: false, help: false, ...expected };
    expect(parseWords(dashed, words)).toEqual(values as never);
  });

  test("a word too many", () => {
    const one: ArgumentDefinitions = { file: { type: "positional" } };
    expect(() => parseWords(one, ["x", "y"])).toThrow("Expected no further word, received y");
    expect(() => parseWords({}, ["x"])).toThrow("received x");
  });

  test("a flag that is required", () => {
    const one: ArgumentDefinitions = { config: { type: "string", required: true } };
    expect(() => parseWords(one, [])).toThrow("Expected the flag --config");
  });

  const wishes: [string[]][] = [[["-h"]], [["--help"]], [["--unheard-of", "--help"]], [["-fh"]]];
  test.each(wishes)("help is given beside mistakes: %j", (words) => {
    expect(parseWords(definitions, words)).toBe("help");
  });

  test("help after -- is a word", () => {
    expect(parseWords(definitions, ["--", "--help"])).toEqual({ ...nothing, file: "--help" });
  });
});

describe("numbers and durations", () => {
  const range = { name: "--lines", least: 1, most: 10 };
  test.each(["0", "11", "-1", "1.5", "1e1", "", "x", "99999999999999999999", " 5"])(
    "%p is no number from 1 to 10",
    (text) => {
      expect(() => wholeNumber(text, range)).toThrow("Expected a whole number from 1 to 10");
    },
  );

  test("7 is", () => expect(wholeNumber("7", range)).toBe(7));

  test.each(["0s", "5", "25h", "-1s", "soon"])("%p is no duration to wait", (text) => {
    expect(() => durationArgument("--timeout", text)).toThrow("Expected a duration");
  });

  test("1.5s is", () => expect(durationArgument("--timeout", "1.5s")).toBe(1_500));

  test("another range: its ends are in it, and it is told", () => {
    const week = { least: 0, most: 168 * 3_600_000 };
    expect(durationArgument("--expires", "168h", week)).toBe(week.most);
    expect(durationArgument("--expires", "0s", week)).toBe(0);
    expect(() => durationArgument("--expires", "169h", week)).toThrow("at most 168h");
  });
});
