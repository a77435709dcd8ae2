import { describe, expect, test } from "bun:test";
import type { Compared, LiveUpdateResult } from "../../scripts/bench/live-update.ts";
import { formatJson, formatMarkdown } from "../../scripts/bench/live-update-report.ts";
import { replaceBlock } from "../../scripts/bench/tables.ts";

const rounds = (...samples: readonly number[][]) => new Map(samples.map((one, at) => [at, one]));
const compared = (floor: number[][], hostler: number[][]): Compared => ({
  floor: rounds(...floor),
  hostler: rounds(...hostler),
});
const memory = { resident: 1024, proportional: 512, anonymous: 256 };

const result: LiveUpdateResult = {
  host: { processor: "a processor", cores: 2, kernel: "6.18", hostler: { hostler: "0.1" } },
  seed: 7,
  barriers: [
    // The second round stood under ten times the load, and so did its floor.
    { clients: 1, first: compared([[2], [20]], [[3], [30]]), later: compared([[1]], []) },
    { clients: 1000, first: compared([[10]], [[12]]), later: compared([[10]], [[40]]) },
  ],
  claims: { single: compared([[1, 2, 3]], [[2, 4, 6]]), together: compared([[5]], [[10]]) },
  claimed: 100,
  carrying: { hold: compared([[300]], [[600]]), run: compared([[5]], [[15]]) },
  memory: [{ name: "idle", daemon: memory, holder: { ...memory, resident: 2048 } }],
};

describe("the report of the live-update bench", () => {
  const lines = formatMarkdown(result).split("\n");
  const rowOf = (name: string) =>
    lines
      .find((line) => line.startsWith(`| ${name} |`))
      ?.split("|")
      .slice(2, -1)
      .map((cell) => cell.trim());

  test("compares each round with its own floor", () => {
    const first = ["**16.5** (5.70–27.3), 2", "**11.0** (3.80–18.2), 2", "1.50 ×"];
    expect(rowOf("1 client")).toEqual([...first, "—", "**1.00** (1.00–1.00), 1", "—"]);
    expect(rowOf("1000 clients")?.at(-1)).toBe("4.00 ×");
  });

  test("has claims and memory, and the seed", () => {
    const single = ["**4.00** (2.40–5.60), 3", "**2.00** (1.20–2.80), 3", "2.00 ×"];
    expect(rowOf("CLAIM → its session in the client's hand")).toEqual(single);
    expect(rowOf("100 clients claim at once, until the last")?.at(-1)).toBe("2.00 ×");
    expect(rowOf("idle")).toEqual(["1.00", "0.50", "0.25", "2.00", "0.50", "0.25"]);
    expect(lines.join(" ")).toContain("seed 7.");
  });

  test("has what hold and run take beside a client in C", () => {
    const hold = ["**600** (600–600), 1", "**300** (300–300), 1", "2.00 ×"];
    expect(rowOf("`hold`: a file, copied")).toEqual(hold);
    expect(rowOf("`run`: a program's memory, where it is")?.at(-1)).toBe("3.00 ×");
  });

  test("says the same as JSON", () => {
    const { barriers, claims } = JSON.parse(formatJson(result));
    expect(barriers[1].later).toMatchObject({ ratio: 4, hostler: { median: 40, count: 1 } });
    expect(claims).toMatchObject({ claimed: 100, together: { ratio: 2 } });
  });
});

describe("the place of tables in a README", () => {
  const text = "before\n<!-- bench:a -->\nold\n<!-- /bench:a -->\nafter\n";

  test("is between its marks, and nothing else is touched", () => {
    const expected = "before\n<!-- bench:a -->\nnew\n<!-- /bench:a -->\nafter\n";
    expect(replaceBlock(text, "a", "new")).toBe(expected);
    expect(replaceBlock(expected, "a", "new")).toBe(expected);
  });

  test("is not there without both marks, in their order", () => {
    expect(replaceBlock(text, "b", "new")).toBeUndefined();
    expect(replaceBlock("<!-- /bench:a -->\n<!-- bench:a -->", "a", "new")).toBeUndefined();
    expect(replaceBlock("<!-- bench:a -->", "a", "new")).toBeUndefined();
  });
});
