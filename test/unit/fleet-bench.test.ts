/** The report of the fleet's bench, and what it reads out of what a device has said. */
import { describe, expect, test } from "bun:test";
import type { FleetBenchResult } from "../../scripts/bench/fleet.ts";
import {
  type CrowdFindings,
  type Passage,
  possibleDevices,
} from "../../scripts/bench/fleet-crowd.ts";
import { noteCommit, noteWayBack } from "../../scripts/bench/fleet-gap.ts";
import type { Heard } from "../../scripts/bench/fleet-observer.ts";
import { aimsOf, formatJson, formatMarkdown, place } from "../../scripts/bench/fleet-report.ts";
import { CountingServer } from "../../scripts/bench/fleet-server.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const passage: Passage = {
  ...{ seconds: 20, beats: 10_000, median: 2, p99: 900, longest: 1_500 },
  ...{ leastAlive: 10_000, mostLost: 0, operatorLoad: 90, devicesLoad: 80, failures: {} },
};
const memory = { resident: 102_400, proportional: 51_200, anonymous: 20_480 };
const crowd: CrowdFindings = {
  ...{ devices: 10_000, processes: 2, operators: 1, isOverNats: false, enrolled: 100 },
  ...{ connected: passage, steady: passage, restarted: { ...passage, seconds: 70 } },
  rollout: { ...passage, p99: 1_200, mostLost: 1 },
  ...{ operatorIdle: memory, operator: memory, devicesMemory: memory },
};
const result: FleetBenchResult = {
  host: { processor: "a processor", cores: 2, kernel: "6.1", hostler: { hostler: "0.1" } },
  peers: { zsync: "0.6" },
  ...{ load: 0.5, descriptors: 20_000 },
  pairs: [
    {
      ...{ what: "the commit before", bytes: 100 * 1024 ** 2 },
      blocks: [
        {
          ...{ blockBytes: 65_536, whole: 50 * 1024 ** 2, delta: 5 * 1024 ** 2 },
          ...{ wholeSeconds: 1.23, deltaSeconds: 0.5 },
        },
      ],
      peers: [
        { name: "zsync", bytes: 6 * 1024 ** 2, seconds: 2, needsPair: false },
        { name: "bsdiff", bytes: undefined, seconds: Number.NaN, needsPair: true },
      ],
    },
  ],
  gap: { pace: [1_000], anybody: [1_010], canonical: [700], back: [4_500], proven: [4_600] },
  crowds: [crowd],
  troubles: ["5 devices: they did not come to the end of it."],
};

describe("the report", () => {
  const lines = formatMarkdown(result).split("\n");
  const rowOf = (name: string) =>
    lines
      .find((line) => line.startsWith(`| ${name}`))
      ?.split("|")
      .slice(2, -1)
      .map((cell) => cell.trim());

  test("says what is wanted, what was found, and what is missed", () => {
    expect(aimsOf(result).map(({ found, isMet }) => ({ found, isMet }))).toEqual([
      { found: "10 ms", isMet: true },
      { found: "10,000", isMet: true },
      { found: "70.0 s", isMet: false },
      { found: "1,200 ms", isMet: false },
      { found: "1", isMet: false },
    ]);
    const nats = { ...crowd, operators: 2, isOverNats: true };
    expect(aimsOf({ ...result, crowds: [crowd, nats] }).map(({ measure }) => measure)).toContain(
      "10,000, two operators over NATS: all of them connected, also after a kill",
    );
    expect(rowOf("10,000, one operator: all of them connected, also after a kill")).toEqual([
      "≤ 60 s",
      "70.0 s",
      "**missed**",
    ]);
    expect(aimsOf({ ...result, gap: undefined, crowds: [] })).toEqual([]);
    expect(place).toEqual({ file: "src/fleet/README.md", bench: "fleet" });
  });

  test("has a row for each size of blocks, and for each program beside", () => {
    const ours = rowOf("hostler, blocks of 64 KiB");
    expect(ours).toEqual(["5.00", "0.5", "50.00", "1.2", ""]);
    expect(rowOf("zsync")).toEqual(["6.00", "2.0", "", "", ""]);
    expect(rowOf("bsdiff")).toEqual(["—", "—", "", "", "a file for each pair"]);
  });

  test("has a row for all that went on, and names what is not its own", () => {
    const rollout = rowOf("10,000, one operator: one rollout to all at once");
    expect(rollout).toEqual(["20.0", "2", "1,200", "1,500", "90 %", "80 %", "1"]);
    expect(lines).toContain("5 devices: they did not come to the end of it.");
    expect(lines.join(" ")).toContain("Elastic's own figure for 10,000 agents");
    expect(lines.join(" ")).toContain("enrolled: 10,000, one operator in 100.0 s");
  });

  test("says the same as JSON", () => {
    const report = JSON.parse(formatJson(result));
    expect(report.gap.back).toMatchObject({ median: 4_500, count: 1 });
    expect(report.crowds[0].rollout.p99).toBe(1_200);
  });
});

describe("what a device has said", () => {
  const beat = (at: number, what: "canonical" | "candidate", who: string): Heard => {
    return { at, what, who, version: "" };
  };
  const status = (at: number, who: string): Heard => ({ at, what: "status", who, version: "" });
  const nothing = () => ({
    ...{ pace: [] as number[], anybody: [] as number[], canonical: [] as number[] },
    ...{ back: [] as number[], proven: [] as number[] },
  });

  test("of a commit: who was heard when", () => {
    const found = nothing();
    const heard = [
      ...[beat(0, "canonical", "a"), status(500, "cutover-ready"), beat(1_000, "canonical", "a")],
      ...[beat(1_500, "candidate", "b"), beat(2_000, "canonical", "a")],
      ...[status(2_100, "swapped"), beat(2_500, "candidate", "b"), beat(3_300, "canonical", "c")],
      ...[beat(4_300, "canonical", "c"), status(4_400, "done")],
    ];
    noteCommit(heard, found);
    const expected = { pace: [1_000], anybody: [1_000], canonical: [1_300], back: [], proven: [] };
    expect(found).toEqual(expected);
  });

  test("of a way back: until another process of the former version beats", () => {
    const found = nothing();
    const heard = [
      ...[beat(0, "canonical", "a"), status(100, "swapped"), beat(150, "canonical", "a")],
      ...[beat(4_000, "canonical", "d"), status(4_500, "rolled-back")],
    ];
    noteWayBack(heard, found);
    expect([found.back, found.proven]).toEqual([[3_900], [4_400]]);
  });
});

test("as many devices as there are descriptors for, and no more than are wanted", () => {
  expect(possibleDevices(10)).toBe(10);
  expect(possibleDevices(Number.POSITIVE_INFINITY)).toBeGreaterThan(10);
});

test("the server sends a range, several of them, or all, and counts what it sends", async () => {
  using folder = temporaryFolder();
  await Bun.write(folder.file("file"), "0123456789");
  await using server = new CountingServer(folder.file("."));
  const ask = (range?: string) =>
    fetch(`${server.address}file`, range === undefined ? {} : { headers: { range } });
  expect(await (await ask()).text()).toBe("0123456789");
  const one = await ask("bytes=2-4");
  expect([one.status, one.headers.get("content-range"), await one.text()]).toEqual([
    ...[206, "bytes 2-4/10", "234"],
  ]);
  expect(server.sent).toBe(13);
  const more = await (await ask("bytes=0-1,8-9")).text();
  expect(more).toContain("content-range: bytes 8-9/10\r\n\r\n89");
  expect(server.sent).toBe(13 + more.length);
  expect((await fetch(`${server.address}none`)).status).toBe(404);
});
