import { describe, expect, test } from "bun:test";
import {
  alignColumns,
  renderFacts,
  renderTable,
  renderTableWithin,
} from "../../../src/command-line/table.ts";

test("columns are as wide as their widest cell, the last one open", () => {
  expect(
    renderTable(
      ["NAME", "PID"],
      [
        ["media", "12"],
        ["a", ""],
      ],
    ),
  ).toBe("NAME   PID\nmedia  12\na\n");
});

test("width is that of the terminal", () => {
  expect(
    alignColumns([
      ["日本", "x"],
      ["abcd", "y"],
    ]),
  ).toEqual(["日本  x", "abcd  y"]);
});

test("nothing in a cell drives the terminal", () => {
  const [line] = alignColumns([["\u001b[2Ja\nb\r\t\u009b31m\u2028", "x"]]);
  expect(line).toBe("\\u001b[2Ja\\nb\\u000d\\t\\u009b31m\\u2028  x");
});

test("no rows", () => {
  expect(renderTable(["NAME"], [])).toBe("NAME\n");
});

describe("within a terminal", () => {
  const rows = [["box-1", "x".repeat(60), "site=lab"]];

  test("the widest cells are cut, and no line is wider", () => {
    const lines = renderTableWithin(["NAME", "WHY", "LABELS"], rows, 40).trimEnd().split("\n");
    expect(lines[1]).toBe(`box-1  ${"x".repeat(22)}…  site=lab`);
    for (const line of lines) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(40);
  });

  test("what has room, or is no terminal, is whole", () => {
    const whole = renderTable(["NAME", "WHY", "LABELS"], rows);
    expect(renderTableWithin(["NAME", "WHY", "LABELS"], rows, 77)).toBe(whole);
    expect(renderTableWithin(["NAME", "WHY", "LABELS"], rows, undefined)).toBe(whole);
    expect(renderTableWithin(["NAME", "WHY", "LABELS"], rows, 76)).not.toBe(whole);
  });

  test("wide characters are not cut in two", () => {
    const text = renderTableWithin(["NAME"], [["日本".repeat(10)]], 15);
    expect(text).toBe("NAME\n日本日本日本日…\n");
  });

  test("facts go on in the next line, at a word where there is one", () => {
    const facts = [
      ["NAME", "box"],
      ["WHY", `the candidate ended early ${"x".repeat(30)}\u001b[2J`],
    ] as const;
    expect(renderFacts(facts, 32).split("\n")).toEqual([
      "NAME  box",
      "WHY   the candidate ended early",
      "      xxxxxxxxxxxxxxxxxxxxxxxxxx",
      "      xxxx\\u001b[2J",
      "",
    ]);
    expect(renderFacts(facts, undefined).split("\n")).toHaveLength(3);
  });
});
