/** The table of faults in the fleet's README: every fault is there, with a test that exists. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "../support/binary.ts";

/** The faults that an upgrade has to survive, by the numbers of the table that they come from. */
const faults = 30;

const readText = (path: string) => readFileSync(join(repositoryRoot, path), "utf8");

function rowsOf(text: string): string[][] {
  const [, section = ""] = text.split("\n## Faults\n");
  const [, ...lines] = section.split("\n\n")[0]?.split("\n|---|---|---|\n") ?? [];
  return lines
    .join("\n")
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.split(" | ").map((cell) => cell.replace(/^\| | \|$/g, "")));
}

/** "1–9, 10: killed" as its numbers. */
function numbersOf(fault: string): number[] {
  const [, list = ""] = /^([\d–, ]+): /.exec(fault) ?? [];
  return list.split(", ").flatMap((part) => {
    const [from = Number.NaN, to = from] = part.split("–").map(Number);
    return Array.from({ length: to - from + 1 }, (_value, index) => from + index);
  });
}

const rows = rowsOf(readText("src/fleet/README.md"));

test("every fault has a row, and there is no other one", () => {
  const told = new Set(rows.flatMap(([fault = ""]) => numbersOf(fault)));
  expect([...told].toSorted((one, other) => one - other)).toEqual(
    Array.from({ length: faults }, (_value, index) => index + 1),
  );
});

test("every row says how it ends, and names a test that there is", () => {
  for (const [fault = "", end = "", named = "", ...more] of rows) {
    expect([fault, end.length > 0, more]).toEqual([fault, true, []]);
    const [, path, name] = /^\[[a-z]+\]\(\.\.\/\.\.\/(test\/[^)]+)\) "([^"]+)"$/.exec(named) ?? [];
    expect([fault, path]).toEqual([fault, expect.any(String)]);
    const isThere = readText(path ?? "").includes(`"${name}"`);
    expect([fault, name, isThere]).toEqual([fault, name, true]);
  }
});
