/** The report of the store's bench. */
import { expect, test } from "bun:test";
import type { StoreBenchResult } from "../../scripts/bench/store.ts";
import { formatJson, formatMarkdown, place } from "../../scripts/bench/store-report.ts";

const memory = { resident: 102_400, proportional: 51_200, anonymous: 20_480 };
const result: StoreBenchResult = {
  host: {
    processor: "a processor",
    cores: 2,
    kernel: "6.1",
    hostler: { hostler: "0.1.0", commit: "0123456789abcdef", Bun: "1.4.5", libc: "glibc" },
  },
  seed: 7,
  writers: 200,
  watchers: 2_000,
  rows: [
    {
      name: "hostler, embedded",
      acknowledged: "after fsync",
      alone: [100, 200, 300],
      together: [1_000],
      heard: [],
      one: [12],
      each: [34],
      connected: [56],
      idle: memory,
      watched: undefined,
    },
  ],
};

test("tables with medians, what is missing as a dash, and how it was measured", () => {
  const lines = formatMarkdown(result).split("\n");
  expect(lines[2]).toBe(
    "| hostler, embedded | after fsync | **200** (120–280), 3 | **1000** (1000–1000), 1 | — |",
  );
  expect(lines).toContain(
    "| hostler, embedded | **12.0** (12.0–12.0), 1 | **34.0** (34.0–34.0), 1 | **56.0** " +
      "(56.0–56.0), 1 |",
  );
  expect(lines).toContain("| hostler, embedded | 100 | 50.0 | 20.0 | — | — | — |");
  expect(lines.join(" ")).toContain("drawn from the seed 7");
  expect(place).toEqual({ file: "src/store/README.md", bench: "store" });
});

test("the same as JSON", () => {
  const { rows, seed } = JSON.parse(formatJson(result));
  expect(seed).toBe(7);
  expect(rows[0].alone).toEqual({ count: 3, low: 120, median: 200, high: 280 });
  expect(rows[0].heard).toBeUndefined();
});
