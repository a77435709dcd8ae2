import { expect, test } from "bun:test";
import { alignColumns, renderTable } from "../../../src/command-line/table.ts";

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
