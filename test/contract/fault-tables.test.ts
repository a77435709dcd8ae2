/** Tables of what goes wrong in READMEs: every row names a test, and that test is there. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join, normalize } from "node:path";
import { repositoryRoot } from "../support/binary.ts";

const readText = (path: string) => readFileSync(join(repositoryRoot, path), "utf8");

/** By their heads, as they stand in a room's README. */
const tables = [
  ["src/vetting", "| what | then | test |"],
  ["src/vetting", "| fault | what the agent does | test |"],
  ["images/live", "| what | then | test |"],
  ["src/network-boot", "| what happens | then | test |"],
] as const;

/** The rows below the head, as their cells. */
function rowsOf(text: string, head: string): string[][] {
  const [, rest = ""] = text.split(`${head}\n|---|---|---|\n`);
  return (rest.split("\n\n")[0] ?? "")
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.replace(/^\| | \|$/g, "").split(" | "));
}

describe.each(tables)("the table of %s below %s", (room, head) => {
  test("names for each row a test that there is", () => {
    const rows = rowsOf(readText(`${room}/README.md`), head);
    expect(rows.length).toBeGreaterThan(0);
    for (const [fault = "", end = "", named = "", ...more] of rows) {
      expect([fault, end.length > 0, more]).toEqual([fault, true, []]);
      const [, suite, path = "", name] = /^\[([a-z]+)\]\(([^)]+)\) "([^"]+)"$/.exec(named) ?? [];
      expect([fault, suite]).toEqual([fault, expect.any(String)]);
      const file = normalize(join(room, path));
      expect([fault, file.startsWith(`test/${suite}/`)]).toEqual([fault, true]);
      expect([fault, name, readText(file).includes(`"${name}"`)]).toEqual([fault, name, true]);
    }
  });
});
