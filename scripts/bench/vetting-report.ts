/** The result as Markdown for people and the room's README, and as JSON. */
import { quantile } from "./statistics.ts";
import { type Place, table } from "./tables.ts";
import type { VettingBenchResult } from "./vetting.ts";

export const place: Place = { file: "src/vetting/README.md", bench: "vetting" };

/** One line of the table; without `isMet` nothing was wanted of it. */
export interface Measure {
  readonly measure: string;
  readonly wanted: string;
  readonly found: string;
  readonly isMet?: boolean;
}

const MEBIBYTE = 1024 ** 2;
const wantedAgents = 1_000;
/** Milliseconds. */
const wantedBeat = 100;
const wantedUpdate = 1_000;
/** Milliseconds of a browser: beyond them somebody sees that it does not answer (Web Vitals). */
const wantedLongest = 200;
/** Of fio's throughput; of a processor's time. */
const wantedOfFio = 0.95;
const wantedBusy = 0.99;

const median = (samples: readonly number[]) => quantile(samples, 0.5);
const count = (value: number) => Math.round(value).toLocaleString("en-US");
const percent = (part: number) => `${(part * 100).toFixed(1)} %`;
const mebibytes = (bytes: number) => `${(bytes / MEBIBYTE).toFixed(1)} MiB`;

/** The table, what is missing in it, and how it was measured. */
export function formatMarkdown(result: VettingBenchResult): string {
  const rows = measuresOf(result).map(({ measure, wanted, found, isMet }) => {
    const isWanted = isMet !== undefined;
    return [measure, wanted, found, isWanted ? verdictOf(isMet) : ""];
  });
  const missing = Object.entries(result.peers)
    .filter(([, version]) => version === undefined)
    .map(([name]) => name);
  const absent =
    missing.length === 0 ? [] : [`Not installed, and not measured: ${missing.join(", ")}.`];
  const troubles = result.troubles.map((trouble) => `Not measured: ${trouble}.`);
  const heading = ["measure", "wanted", "found", ""];
  return [table(heading, rows), ...absent, ...troubles, legend(result)].join("\n\n");
}

const verdictOf = (isMet: boolean) => (isMet ? "met" : "**missed**");

/** All that was measured, in the order of the table. */
export function measuresOf(result: VettingBenchResult): Measure[] {
  return [
    ...runMeasures(result),
    ...agentMeasures(result),
    ...pageMeasures(result),
    ...imageMeasures(result),
    ...storageMeasures(result),
    ...memoryMeasures(result),
    ...busyMeasures(result),
    ...flipMeasures(result),
    ...linkMeasures(result),
    ...bootMeasures(result),
  ];
}

function runMeasures({ run }: VettingBenchResult): Measure[] {
  if (run === undefined) return [];
  const { claimed, ended } = run;
  return [
    {
      measure: "host switched on → its run claimed",
      ...{ wanted: "", found: `${claimed.toFixed(1)} s` },
    },
    {
      measure: "host switched on → all stages passed, at their shortest",
      ...{ wanted: "", found: `${ended.toFixed(1)} s` },
    },
  ];
}

function agentMeasures({ agents: found }: VettingBenchResult): Measure[] {
  if (found === undefined) return [];
  const many = `${count(found.agents)} agents`;
  const [beat, update] = [quantile(found.beats, 0.99), quantile(found.updates, 0.99)];
  const share = (seconds: number) => `${((seconds / found.seconds) * 100).toFixed(0)} %`;
  return [
    {
      measure: `${many}: a heartbeat answered, p50 and p99`,
      wanted: `p99 ≤ ${wantedBeat} ms, ${count(wantedAgents)} agents`,
      found: `${median(found.beats).toFixed(1)} and ${beat.toFixed(1)} ms`,
      isMet: beat <= wantedBeat && found.agents >= wantedAgents,
    },
    {
      measure: `${many}: an operator's change seen at ${found.pages} pages, p50 and p99`,
      wanted: `p99 ≤ ${count(wantedUpdate)} ms`,
      found: `${median(found.updates).toFixed(1)} and ${update.toFixed(1)} ms`,
      isMet: update <= wantedUpdate,
    },
    {
      measure: `${many}: calls a second; refused`,
      wanted: "none refused",
      found: `${count(found.calls / found.seconds)}; ${count(found.refused)}`,
      isMet: found.refused === 0,
    },
    {
      measure: `${many}: memory of the orchestrator at the end, and at most`,
      wanted: "",
      found: `${count(found.memory.resident)} and ${count(found.memory.most)} MiB`,
    },
    {
      measure: `${many}: of one processor, the orchestrator and the agents' process`,
      wanted: "",
      found: `${share(found.busy.orchestrator)} and ${share(found.busy.agents)}`,
    },
  ];
}

function pageMeasures({ page }: VettingBenchResult): Measure[] {
  if (page === undefined) return [];
  const { hosts, bytes, loads, updates, crowd } = page;
  const many = `page of ${count(hosts)} hosts`;
  const both = (samples: readonly number[], digits: number) =>
    [0.5, 0.99].map((part) => quantile(samples, part).toFixed(digits)).join(" and ");
  return [
    { measure: `${many}: bytes of it and its parts`, wanted: "", found: count(bytes) },
    {
      measure: `${many}: from the navigation to the last row, p50 and p99`,
      ...{ wanted: "", found: `${both(loads, 0)} ms` },
    },
    {
      measure: `${many}: a change at the orchestrator seen in its row, p50 and p99`,
      wanted: `p99 ≤ ${count(wantedUpdate)} ms`,
      found: `${both(updates, 1)} ms`,
      isMet: quantile(updates, 0.99) <= wantedUpdate,
    },
    {
      measure: `${many}: the browser's main thread for a change, of ${crowd.perSecond} a second`,
      ...{ wanted: "", found: `${median(crowd.costs).toFixed(2)} ms` },
    },
    {
      measure: `${many}: the longest that the browser did not answer meanwhile`,
      wanted: `≤ ${wantedLongest} ms`,
      found: `${crowd.longest.toFixed(0)} ms`,
      isMet: crowd.longest <= wantedLongest,
    },
  ];
}

function imageMeasures({ image }: VettingBenchResult): Measure[] {
  if (image === undefined) return [];
  const { kernel, initramfs, unpacked, packing, release } = image;
  const how = packing === "small" ? "" : ", packed fast and less small";
  return [
    {
      measure: `image to load, kernel ${release} and initramfs${how}`,
      ...{ wanted: "", found: `${mebibytes(kernel)} and ${mebibytes(initramfs)}` },
    },
    { measure: "image in the host's memory", wanted: "", found: mebibytes(unpacked) },
  ];
}

function storageMeasures({ storage = [] }: VettingBenchResult): Measure[] {
  return ["scan", "verify"].flatMap((way) => {
    const of = (who: string) => storage.find(({ name }) => name === `${way}, ${who}`)?.samples;
    const [own, peer] = [of("hostler"), of("fio")];
    if (own === undefined) return [];
    const measure = `disk ${way}, MB/s`;
    if (peer === undefined) return [{ measure, wanted: "", found: count(median(own)) }];
    const part = median(own) / median(peer);
    return [
      {
        measure: `${measure}: hostler and fio`,
        wanted: `≥ ${wantedOfFio} of fio's`,
        found: `${count(median(own))} and ${count(median(peer))}: ${part.toFixed(2)}`,
        isMet: part >= wantedOfFio,
      },
    ];
  });
}

function memoryMeasures({ memory = [] }: VettingBenchResult): Measure[] {
  return memory.map(({ name, samples }) => ({
    measure: `memory verified by one processor, GB/s: ${name}`,
    ...{ wanted: "", found: median(samples).toFixed(2) },
  }));
}

function busyMeasures({ busy }: VettingBenchResult): Measure[] {
  if (busy === undefined) return [];
  const least = Math.min(...busy.map(({ ofFree }) => ofFree));
  const ofAll = Math.min(...busy.map((row) => row.ofAll));
  return [
    {
      measure: `processors busy, the least of ${busy.length}: of what others left; of all time`,
      wanted: `≥ ${wantedBusy * 100} % of what others left`,
      found: `${percent(least)}; ${percent(ofAll)}`,
      isMet: least >= wantedBusy,
    },
  ];
}

function flipMeasures({ flips }: VettingBenchResult): Measure[] {
  if (flips === undefined) return [];
  const { flipped, found } = flips;
  return [
    {
      measure: "flipped bits of memory that were found",
      ...{ wanted: "all", found: `${count(found)} of ${count(flipped)}`, isMet: found === flipped },
    },
  ];
}

function linkMeasures({ link = [] }: VettingBenchResult): Measure[] {
  return link.map(({ name, up, down }) => ({
    measure: `bytes through loopback, Gb/s up and down: ${name}`,
    ...{ wanted: "", found: `${median(up).toFixed(1)} and ${median(down).toFixed(1)}` },
  }));
}

function bootMeasures({ boot = [] }: VettingBenchResult): Measure[] {
  return boot.map(({ server, client, bytes, seconds }) => ({
    measure: `boot files, MiB/s: ${server} to ${client}`,
    ...{ wanted: "", found: (bytes / MEBIBYTE / median(seconds)).toFixed(1) },
  }));
}

function legend({ host, peers, load, quick, agents }: VettingBenchResult): string {
  const { processor, cores, kernel, hostler } = host;
  const beside = Object.entries(peers).flatMap(([name, version]) =>
    version === undefined ? [] : [`${name} ${version}`],
  );
  const told = agents === undefined ? "no time" : `${agents.seconds.toFixed(0)} s`;
  return [
    `Medians; one run of \`run bench vetting${quick ? " --quick" : ""}\`. *A host* is`,
    "QEMU's, with an emulated processor, from the minting of its token on; the image is not",
    "packed. *Agents* are bytes over TLS 1.3 on loopback from one process: a heartbeat every 5 s,",
    "five readings of 40 sensors every 5 s, a line of log every 2 s, each agent with two",
    `connections; they told for ${told}, and share this machine with the orchestrator. The *page*`,
    "is in Chromium without a screen, of an orchestrator in the bench's own process. *Disks* are",
    "a loop device, O_DIRECT, blocks of 1 MiB, four at a time; fio verifies by crc32c. *Memory*: a",
    "byte is verified that was written and came back; stressapptest's figure is halved, because",
    "it counts a copied byte twice. *What others left* of a processor is the time in which it was",
    "idle or ran the load.",
    `Measured on ${processor}, ${cores} cores, Linux ${kernel},`,
    `at a load of ${load.toFixed(1)} before it;`,
    `hostler ${hostler["hostler"]} (${hostler["commit"]?.slice(0, 12)}), Bun ${hostler["Bun"]},`,
    `${beside.join(", ")}.`,
  ].join("\n");
}

export function formatJson(result: VettingBenchResult): string {
  const { host, peers, load, quick, troubles } = result;
  const missing = Object.keys(peers).filter((name) => peers[name] === undefined);
  const measures = measuresOf(result);
  return JSON.stringify(
    { machine: host, peers, missing, load, quick, measures, troubles },
    undefined,
    2,
  );
}
