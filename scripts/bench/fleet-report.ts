/** The result as Markdown for people and the room's README, and as JSON. */
import type { FleetBenchResult } from "./fleet.ts";
import type { CrowdFindings, Passage } from "./fleet-crowd.ts";
import type { PairFindings } from "./fleet-pairs.ts";
import { quantile, summarize } from "./statistics.ts";
import { describe, describeMemory, type Place, table } from "./tables.ts";

export const place: Place = { file: "src/fleet/README.md", bench: "fleet" };

/** Tables, the machine, and how it was measured. */
export function formatMarkdown(result: FleetBenchResult): string {
  return [
    formatAims(result),
    ...result.pairs.map(formatPair),
    formatGap(result),
    formatCrowds(result),
    ...result.troubles,
    published,
    legend(result),
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

/** What was wanted, what came out, and whether that is so. */
export interface Aim {
  readonly measure: string;
  readonly wanted: string;
  readonly found: string;
  readonly isMet: boolean;
}

const wantedDevices = 10_000;
const median = (samples: readonly number[]) => quantile(samples, 0.5);
const count = (value: number) => Math.round(value).toLocaleString("en-US");
const seconds = (value: number) => `${value.toFixed(1)} s`;
const mebibytes = (bytes: number) => (bytes / 1024 ** 2).toFixed(2);

export function aimsOf({ gap, crowds }: FleetBenchResult): Aim[] {
  const aims: Aim[] = [];
  if (gap !== undefined) {
    const silence = Math.max(0, median(gap.anybody) - median(gap.pace));
    aims.push({
      measure: "time in a commit in which no agent answers, beyond a heartbeat's interval",
      wanted: "0 by overlap",
      found: `${silence.toFixed(0)} ms`,
      isMet: silence <= median(gap.pace) / 10,
    });
  }
  return [...aims, ...crowds.flatMap(crowdAims)];
}

/** "5,600, one operator". */
function nameOf({ devices, operators, isOverNats }: CrowdFindings): string {
  const many = operators === 1 ? "one operator" : `${words[operators] ?? operators} operators`;
  return `${count(devices)}, ${many}${isOverNats ? " over NATS" : ""}`;
}

const words: Readonly<Record<number, string>> = { 2: "two", 3: "three", 4: "four" };

function crowdAims(crowd: CrowdFindings): Aim[] {
  const { devices, connected, steady, restarted, rollout } = crowd;
  const name = nameOf(crowd);
  const lost = Math.max(...[connected, steady, restarted, rollout].map((one) => one.mostLost));
  const slowest = Math.max(connected.seconds, restarted.seconds);
  const p99 = Math.max(steady.p99, rollout.p99);
  return [
    {
      measure: `${name}: devices, all on one machine`,
      wanted: count(wantedDevices),
      found: count(devices),
      isMet: devices >= wantedDevices,
    },
    {
      measure: `${name}: all of them connected, also after a kill`,
      wanted: "≤ 60 s",
      found: seconds(slowest),
      isMet: slowest <= 60,
    },
    {
      measure: `${name}: a heartbeat acknowledged, p99, in a rollout to all at once too`,
      wanted: "≤ 1,000 ms",
      found: `${count(p99)} ms`,
      isMet: p99 <= 1_000,
    },
    {
      measure: `${name}: devices that were called lost, and were there`,
      wanted: "0",
      found: `${lost}`,
      isMet: lost === 0,
    },
  ];
}

function formatAims(result: FleetBenchResult): string {
  const rows = aimsOf(result).map(({ measure, wanted, found, isMet }) => {
    return [measure, wanted, found, isMet ? "met" : "**missed**"];
  });
  return rows.length === 0 ? "" : table(["measure", "wanted", "found", ""], rows);
}

function formatPair({ what, bytes, blocks, peers }: PairFindings): string {
  const ours = blocks.map(({ blockBytes, whole, delta, wholeSeconds, deltaSeconds }) => [
    `hostler, blocks of ${blockBytes / 1024} KiB`,
    mebibytes(delta),
    deltaSeconds.toFixed(1),
    mebibytes(whole),
    wholeSeconds.toFixed(1),
    "",
  ]);
  const theirs = peers.map(({ name, bytes: sent, seconds: taken, needsPair }) => [
    name,
    sent === undefined ? "—" : mebibytes(sent),
    Number.isFinite(taken) ? taken.toFixed(1) : "—",
    "",
    "",
    needsPair ? "a file for each pair" : "",
  ]);
  const heading = [`${what} → this commit, MiB of ${mebibytes(bytes)}`, "over the wire", "s"];
  return table([...heading, "without the former file", "s", ""], [...ours, ...theirs]);
}

function formatGap({ gap }: FleetBenchResult): string {
  if (gap === undefined) return "";
  const rows: readonly (readonly [string, readonly number[]])[] = [
    ["between two heartbeats of an agent at rest", gap.pace],
    ["in an upgrade: the longest time between two heartbeats of whichever agent", gap.anybody],
    ["from the last one of the former canonical agent to the first of the next", gap.canonical],
    ["a bad canonical version: from its swap until the former one is heard again", gap.back],
    ["… until that one is proven", gap.proven],
  ];
  return table(
    ["a commit, with a heartbeat each second", "ms"],
    rows.map(([name, samples]) => [name, describe(summarize(samples))]),
  );
}

const passages = {
  connected: "all connect at once",
  steady: "a heartbeat every 10 s",
  restarted: "every operator is killed, and started again",
  rollout: "one rollout to all at once",
} as const;

function formatCrowds({ crowds }: FleetBenchResult): string {
  if (crowds.length === 0) return "";
  const rowOf = (crowd: CrowdFindings, name: string, passage: Passage) => [
    `${nameOf(crowd)}: ${name}`,
    passage.seconds.toFixed(1),
    ...[passage.median, passage.p99, passage.longest].map(count),
    `${passage.operatorLoad} %`,
    `${passage.devicesLoad} %`,
    `${passage.mostLost}`,
  ];
  const rows = crowds.flatMap((crowd) =>
    Object.entries(passages).map(([key, name]) =>
      rowOf(crowd, name, crowd[key as keyof typeof passages]),
    ),
  );
  const heading = ["", "s", "heartbeat acknowledged, ms: median", "p99", "longest"];
  const times = table([...heading, "operators", "all devices", "called lost"], rows);
  const memory = table(
    ["MiB", "operators, NATS: RSS", "PSS", "anonymous", "all devices: RSS", "PSS", "an."],
    crowds.map((crowd) => [
      nameOf(crowd),
      ...describeMemory(crowd.operator),
      ...describeMemory(crowd.devicesMemory),
    ]),
  );
  return [times, memory].join("\n\n");
}

/** None of them can be run here beside it: each needs its own backend. */
const published = [
  "No peer's operator can be run here. Elastic's own figure for 10,000 agents (its page *Fleet",
  "Server scalability*, minimum resources): 8 GB of memory and up to 8 vCPU for Fleet Server, and",
  "128 GB and 32 vCPU for the Elasticsearch behind it.",
].join("\n");

function legend({ host, peers, load, crowds, descriptors }: FleetBenchResult): string {
  const { processor, cores, kernel, hostler } = host;
  const beside = Object.entries(peers).map(([name, version]) => `${name} ${version}`);
  const enrolled = crowds.map((crowd) => `${nameOf(crowd)} in ${seconds(crowd.enrolled)}`);
  return [
    "**Median** (10th–90th percentile), number of samples; one run of `run bench fleet`. *Over",
    "the wire*: bodies that a static server with Range sent, block map included, to the fetcher",
    "of a device, which verifies what it has; packed by `zstd -3`, which is a tenth larger than",
    "the usual `-19`. The files are built from trees of their own. Of a patch its size counts, and",
    "the seconds of who applies it. *A commit*:",
    "compiled versions, an operator, a supervisor and its agent in namespaces, heard by a second",
    "session of the device. *Devices*: sessions, links and agents are the product's own, in one",
    "process for each processor, with disks in memory and versions that are there at once; a",
    "hundred share an address; TLS 1.3 over loopback; the operator is the compiled one, its store",
    "on a disk. All share the processors; a load is of one of them. A rollout takes what",
    "heartbeats and proofs of 10 s and 30 s take. Over NATS, of one server that writes through,",
    "each operator has the devices of one process. An operator holds three descriptors for each",
    `connection, and a process here may hold ${count(descriptors)}.`,
    ...(enrolled.length === 0 ? [] : [`The devices were enrolled: ${enrolled.join("; ")}.`]),
    `Measured on ${processor}, ${cores} cores, Linux ${kernel},`,
    `at a load of ${load.toFixed(1)} before it;`,
    `hostler ${hostler["hostler"]} (${hostler["commit"]?.slice(0, 12)}), Bun ${hostler["Bun"]},`,
    `${beside.join(", ")}.`,
  ].join("\n");
}

export function formatJson(result: FleetBenchResult): string {
  const { host, peers, load, pairs, gap, crowds, troubles } = result;
  const gaps =
    gap === undefined
      ? null
      : Object.fromEntries(Object.entries(gap).map(([name, one]) => [name, summarize(one)]));
  const report = {
    machine: host,
    peers,
    load,
    aims: aimsOf(result),
    pairs,
    gap: gaps,
    crowds,
    troubles,
  };
  return JSON.stringify(report, undefined, 2);
}
