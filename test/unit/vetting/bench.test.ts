/** The report of vetting's bench, and what it reads out of a run. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { replaceBlock } from "../../../scripts/bench/tables.ts";
import type { VettingBenchResult } from "../../../scripts/bench/vetting.ts";
import {
  formatJson,
  formatMarkdown,
  measuresOf,
  place,
} from "../../../scripts/bench/vetting-report.ts";
import { timesOf } from "../../../scripts/bench/vetting-run.ts";
import { rowsThatCan } from "../../../scripts/bench/vetting-task.ts";
import { repositoryRoot } from "../../../scripts/setup.ts";

const result: VettingBenchResult = {
  host: { processor: "a processor", cores: 2, kernel: "6.1", hostler: { hostler: "0.1" } },
  peers: { fio: "3.33", memtester: undefined },
  ...{ load: 0.5, quick: false },
  run: { claimed: 20.04, ended: 61.26 },
  agents: {
    ...{ agents: 1_000, pages: 10, seconds: 60, calls: 54_000, refused: 0 },
    ...{ beats: [1, 2, 99], updates: [10, 20, 2_000] },
    ...{ busy: { orchestrator: 30, agents: 42 }, memory: { resident: 300, most: 320 } },
  },
  page: {
    ...{ hosts: 1_000, bytes: 123_456, loads: [700, 710, 900], updates: [10, 12, 1_400] },
    crowd: { changes: 500, perSecond: 100, costs: [1.2, 1.3, 1.4], longest: 90 },
  },
  image: {
    packing: "fast",
    release: "6.1.0",
    ...{ kernel: 8 * 1024 ** 2, initramfs: 5e7, unpacked: 2e8 },
  },
  storage: [
    { name: "scan, hostler", samples: [940] },
    { name: "scan, fio", samples: [1_000] },
    { name: "verify, hostler", samples: [950] },
    { name: "verify, fio", samples: [1_000] },
  ],
  memory: [{ name: "hostler", samples: [2, 3, 4] }],
  busy: [
    { processor: 0, ofAll: 0.5, ofFree: 0.995 },
    { processor: 1, ofAll: 0.7, ofFree: 0.98 },
  ],
  flips: { flipped: 200, found: 199 },
  troubles: ["boot: there is no dnsmasq"],
};

describe("the report", () => {
  const verdicts = (one: VettingBenchResult) =>
    measuresOf(one)
      .filter(({ isMet }) => isMet !== undefined)
      .map(({ found, isMet }) => `${found} ${isMet}`);

  test("says of each aim what was found, and whether it is met", () => {
    expect(verdicts(result)).toEqual([
      "2.0 and 97.1 ms true",
      "20.0 and 1960.4 ms false",
      "900; 0 true",
      "12.0 and 1372.2 ms false",
      "90 ms true",
      "940 and 1,000: 0.94 false",
      "950 and 1,000: 0.95 true",
      "98.0 %; 50.0 % false",
      "199 of 200 false",
    ]);
  });

  test("calls fewer agents than were wanted no aim that is met", () => {
    const agents = result.agents && { ...result.agents, agents: 200 };
    expect(verdicts({ ...result, ...(agents && { agents }) })[0]).toBe("2.0 and 97.1 ms false");
  });

  test("names peers that are not installed, and parts that were not measured", () => {
    const text = formatMarkdown(result);
    expect(text).toContain("Not installed, and not measured: memtester.");
    expect(text).toContain("Not measured: boot: there is no dnsmasq.");
    expect(text).toContain("fio 3.33");
    expect(JSON.parse(formatJson(result))).toMatchObject({ missing: ["memtester"], load: 0.5 });
  });

  test("compares with nobody where fio is not there", () => {
    const storage = result.storage?.filter(({ name }) => name.endsWith("hostler")) ?? [];
    const rows = measuresOf({ ...result, storage }).filter(({ measure }) =>
      measure.startsWith("disk"),
    );
    expect(rows).toEqual([
      { measure: "disk scan, MB/s", wanted: "", found: "940" },
      { measure: "disk verify, MB/s", wanted: "", found: "950" },
    ]);
  });

  test("is one table of four columns, whatever was measured", () => {
    const rows = formatMarkdown(result)
      .split("\n")
      .filter((line) => line.startsWith("|"));
    expect(rows).toHaveLength(measuresOf(result).length + 2);
    for (const row of rows) expect(row.split("|")).toHaveLength(6);
  });

  test("has its place in the README", () => {
    const text = readFileSync(join(repositoryRoot, place.file), "utf8");
    expect(replaceBlock(text, place.bench, "")).toBeDefined();
  });
});

test("a run's times begin where its token was minted", () => {
  const events = [
    { what: "created", at: "2026-01-01T00:00:00.000Z" },
    { what: "booted", at: "2026-01-01T00:00:10.000Z" },
    { what: "claimed", at: "2026-01-01T00:00:32.500Z" },
  ];
  const view = { ended: "2026-01-01T00:01:10.000Z" };
  expect(timesOf({ events, view })).toEqual({ claimed: 22.5, ended: 60 });
  expect(() => timesOf({ events, view: { ended: null } })).toThrow("a run that was booted");
});

test("rows of programs that are not installed are left out", () => {
  const rows = { ours: 1, theirs: 2, nobodys: 3 };
  const needs = { theirs: "sh", nobodys: "no-such-program-of-anybody" };
  expect(rowsThatCan(rows, needs)).toEqual({ ours: 1, theirs: 2 });
});
