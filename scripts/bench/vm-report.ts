/** The result as Markdown for people and the room's README, and as JSON. */
import { pairedDifferences, quantile, type Summary, summarize } from "./statistics.ts";
import { describe, describeMemory, type Place, table } from "./tables.ts";
import type { VmBenchResult } from "./vm.ts";
import { type Stage, type StartSide, stages, startSides } from "./vm-start.ts";
import { type MemoryLook, memoryTimes } from "./vm-worker.ts";

export const place: Place = { file: "src/vm/README.md", bench: "vm" };

const sideNames: Readonly<Record<StartSide, string>> = {
  floor: "QEMU alone, from C",
  hostler: "hostler, over the control socket",
  command: "`hostler vm create --start`",
  libvirt: "`virsh define`, `virsh start`",
};

const stageNames: Readonly<Record<Stage, string>> = {
  "prepare-requested": "noted",
  prepared: "image and disks",
  "network-ready": "TAP and rules",
  started: "VMM spawned, confined",
  attached: "VMM answers",
  booted: "told to run",
};

/** Tables, the machine, and how it was measured. */
export function formatMarkdown(result: VmBenchResult): string {
  return [
    formatAims(result),
    formatStarts(result),
    formatStages(result),
    formatMemory(result),
    formatRest(result),
    legend(result),
  ].join("\n\n");
}

/** What was wanted, what came out, and whether that is so. */
export interface Aim {
  readonly measure: string;
  readonly wanted: string;
  readonly found: string;
  readonly isMet: boolean;
}

const median = (samples: readonly number[]) => quantile(samples, 0.5);
const round = (value: number, digits = 1) => value.toFixed(digits);

export function aimsOf(result: VmBenchResult): Aim[] {
  const { starts, worker, network, clusters } = result;
  const overhead = median(pairedDifferences(starts.sides.hostler, starts.sides.floor));
  const grown = grownPerMachine(worker.memory, growths.first);
  const adopted = median(worker.adoption.adopted);
  const [ours, theirs] = [median(network.hostler), median(network.tools)];
  const isSame = network.differences.length === 0;
  const first = median(clusters.map(({ firstMilliseconds }) => firstMilliseconds));
  const secondWrites = Math.max(...clusters.map((cluster) => cluster.secondWrites));
  return [
    {
      measure: "create → first letter, beyond QEMU alone",
      wanted: "≤ 20 ms",
      found: `${round(overhead)} ms`,
      isMet: overhead <= 20,
    },
    {
      measure: `the worker's memory for each of ${worker.adoption.machines} machines (PSS)`,
      wanted: "≤ 0.2 MB",
      found: `${round(grown.proportional, 3)} MB`,
      isMet: grown.proportional <= 0.2,
    },
    {
      measure: `${worker.adoption.machines} machines taken up after kill -9`,
      wanted: "≤ 1 s",
      found: `${round(adopted, 0)} ms`,
      isMet: adopted <= 1_000,
    },
    {
      measure: `network for ${network.machines}, against ip and nft`,
      wanted: "ahead, the same result",
      found: `${round(ours)} to ${round(theirs)} ms, ${isSame ? "the same" : "DIFFERENT"}`,
      isMet: ours < theirs && isSame,
    },
    {
      measure: `${clusters[0]?.machines ?? 0} declared machines, until their workers have them`,
      wanted: "≤ 2 s, then 0 writes",
      found: `${round(first, 0)} ms, then ${secondWrites}`,
      isMet: first <= 2_000 && secondWrites === 0,
    },
  ];
}

/** Megabytes that the daemon has more for each machine, between two looks. */
export function grownPerMachine(
  looks: readonly MemoryLook[],
  between: readonly [string, string],
): { readonly resident: number; readonly proportional: number } {
  const [from, to] = between.map((wanted) => looks.find(({ when }) => when === wanted));
  if (from === undefined || to === undefined) {
    return { resident: Number.NaN, proportional: Number.NaN };
  }
  const grown = (key: "resident" | "proportional") =>
    ((to.daemon[key] - from.daemon[key]) * 1024) / 1e6 / (to.machines - from.machines);
  return { resident: grown("resident"), proportional: grown("proportional") };
}

/**
 * From its start on, with the code that is made meanwhile; from the tenth machine on, when most of
 * that is there; and the second time, when what was given back is taken again.
 */
const growths = {
  first: [memoryTimes[0].when, memoryTimes[3].when],
  later: [memoryTimes[2].when, memoryTimes[3].when],
  second: [memoryTimes[4].when, memoryTimes[5].when],
} as const;

const grownAll = (looks: readonly MemoryLook[]) => ({
  first: grownPerMachine(looks, growths.first),
  later: grownPerMachine(looks, growths.later),
  second: grownPerMachine(looks, growths.second),
});

const formatAims = (result: VmBenchResult) =>
  table(
    ["measure", "wanted", "found", ""],
    aimsOf(result).map(({ measure, wanted, found, isMet }) => {
      return [measure, wanted, found, isMet ? "met" : "**missed**"];
    }),
  );

const all = (rounds: ReadonlyMap<number, readonly number[]>) => [...rounds.values()].flat();

function formatStarts({ starts }: VmBenchResult): string {
  const { sides, libvirtRefusal } = starts;
  const rows = startSides.map((side) => [
    sideNames[side],
    describe(summarize(all(sides[side]))),
    side === "floor" ? "" : describe(summarize(pairedDifferences(sides[side], sides.floor))),
  ]);
  const heading = ["create → the guest's first letter, ms", "", "beyond QEMU alone"];
  const missing = libvirtRefusal === undefined ? [] : [`libvirt did not run: ${libvirtRefusal}`];
  return [table(heading, rows), ...missing].join("\n\n");
}

const formatStages = ({ starts }: VmBenchResult) =>
  table(
    ["hostler, ms since create", ...stages.map((stage) => stageNames[stage])],
    [["median", ...stages.map((stage) => round(median(starts.stages[stage])))]],
  );

function formatMemory({ worker }: VmBenchResult): string {
  const rowsOf = (name: string, looks: readonly MemoryLook[]) =>
    looks.map(({ when, daemon, holder, vmms }) => [
      `${name}, ${when}`,
      ...describeMemory(daemon),
      describeMemory(holder)[1] ?? "",
      describeMemory(vmms)[1] ?? "",
    ]);
  const sides = [
    ["hostler", worker.memory],
    ["libvirtd", worker.libvirt],
  ] as const;
  const each = sides.flatMap(([name, looks]) => {
    if (looks.length === 0) return [];
    return Object.values(growths).flatMap((between) => {
      const { resident, proportional } = grownPerMachine(looks, between);
      if (Number.isNaN(resident)) return [];
      const cells = [resident, proportional].map((value) => round(value, 3));
      return [[`${name}, MB for each, "${between.join('" to "')}"`, ...cells, "", "", ""]];
    });
  });
  return table(
    ["MiB", "daemon: RSS", "PSS", "anonymous", "holder, confiner: PSS", "all VMMs: PSS"],
    [...sides.flatMap(([name, looks]) => rowsOf(name, looks)), ...each],
  );
}

function formatRest(result: VmBenchResult): string {
  const { worker, replacements, network, hashing, decisions, clusters } = result;
  const { adoption } = worker;
  const [cluster] = clusters;
  const declared = `${cluster?.machines ?? 0} machines declared to a master`;
  const workers = `${cluster?.workers ?? 0} simulated workers`;
  const { compared, differences } = network;
  const { rules, links, addresses } = compared;
  const things = `nft: ${rules} objects, links: ${links}, addresses: ${addresses}`;
  const same = differences.length === 0 ? "the same" : `${differences.length} DIFFERENT`;
  const size = `${hashing.bytes / 1024 ** 2} MiB`;
  const rows: [string, Summary | undefined][] = [
    ["a new worker, after kill -9, until it takes requests, ms", summarize(adoption.ready)],
    [`… until all ${adoption.machines} machines have answered it`, summarize(adoption.adopted)],
    [
      "replace-vmm: the guest's longest pause between two numbers, ms",
      summarize(replacements.pauses),
    ],
    ["… in as much time without it", summarize(replacements.undisturbed)],
    ["… the usual pause", summarize(replacements.usual)],
    [`network for ${network.machines} machines, by hostler, ms`, summarize(network.hostler)],
    [`… by \`ip -batch\` and \`nft -f\` (${things}: ${same})`, summarize(network.tools)],
    ["… looked at once more by hostler, nothing to do", summarize(network.again)],
    [
      `deciding about ${decisions.machines} declared machines, none there, ms`,
      summarize(decisions.first),
    ],
    ["… all as declared: no command", summarize(decisions.second)],
    [
      `${declared}, until ${workers} have told them, ms (${cluster?.firstWrites ?? 0} writes)`,
      summarize(clusters.map(({ firstMilliseconds }) => firstMilliseconds)),
    ],
    [
      `… all of them once more, ms (${cluster?.secondWrites ?? 0} writes)`,
      summarize(clusters.map(({ secondMilliseconds }) => secondMilliseconds)),
    ],
    ...hashing.rows.map(({ name, samples }): [string, Summary | undefined] => [
      `hashing ${size}: ${name}, GiB/s`,
      summarize(samples),
    ]),
  ];
  return table(
    ["", ""],
    rows.map(([name, summary]) => [name, describe(summary)]),
  );
}

function legend({ seed, load, host, peers }: VmBenchResult): string {
  const { processor, cores, kernel, hostler } = host;
  const beside = Object.entries(peers).map(([name, version]) => `${name} ${version}`);
  return [
    "**Median** (10th–90th percentile), number of samples; one run of `run bench vm`, all sides",
    `in every round, in an order drawn from the seed ${seed}. The guest is one of 4 KB that`,
    "counts and says each number on its serial port, on 32 MiB, one processor that QEMU emulates,",
    "q35 with the devices that every machine of hostler has. *Beyond* is the median of the",
    "differences to QEMU alone of the same round: the very words with which hostler had started a",
    "machine, by posix_spawn from C, as root, its TAP made before, its console read from there.",
    "hostler makes TAP, rules and user, notes each step durably, confines the VMM, and the letter",
    "counts when it is in the file of the console. The image is verified, and another machine has",
    "the bridge. libvirt has a TAP that is made before, no namespaces, cgroups or labels, and a",
    "new `virsh` each time. Memory and adoption: machines that are created and do not run.",
    "*Network*: from nothing, in a namespace, the bridge, TAPs, addresses and rules that a worker",
    "has; of the tools, two programs from start to end. Hashing: one file that the kernel has in",
    "memory, whole programs. *Declared machines*: a master on its store on a disk, and workers",
    "that decide by the worker's own reconciler and have at once what they decided.",
    `Measured on ${processor}, ${cores} cores, Linux ${kernel},`,
    `at a load of ${round(load)} before it;`,
    `hostler ${hostler["hostler"]} (${hostler["commit"]?.slice(0, 12)}), Bun ${hostler["Bun"]},`,
    `${beside.join(", ")}.`,
  ].join("\n");
}

export function formatJson(result: VmBenchResult): string {
  const { worker, replacements, network, hashing, decisions, clusters } = result;
  const { host, peers, seed, load, starts } = result;
  const { sides } = starts;
  const report = {
    machine: host,
    peers,
    seed,
    load,
    aims: aimsOf(result),
    starts: startSides.map((side) => ({
      name: side,
      taken: summarize(all(sides[side])),
      beyond: summarize(pairedDifferences(sides[side], sides.floor)),
    })),
    libvirt_refusal: starts.libvirtRefusal,
    stages: Object.fromEntries(stages.map((one) => [one, summarize(starts.stages[one])])),
    memory: { hostler: worker.memory, libvirt: worker.libvirt },
    memory_per_machine: {
      hostler: grownAll(worker.memory),
      libvirt: grownAll(worker.libvirt),
    },
    adoption: {
      machines: worker.adoption.machines,
      ready: summarize(worker.adoption.ready),
      adopted: summarize(worker.adoption.adopted),
    },
    replacement: {
      pause: summarize(replacements.pauses),
      undisturbed: summarize(replacements.undisturbed),
      usual: summarize(replacements.usual),
    },
    network: {
      machines: network.machines,
      compared: network.compared,
      differences: network.differences,
      hostler: summarize(network.hostler),
      tools: summarize(network.tools),
      again: summarize(network.again),
    },
    hashing: hashing.rows.map(({ name, samples }) => ({ name, speed: summarize(samples) })),
    decisions: {
      machines: decisions.machines,
      commands: decisions.commands,
      first: summarize(decisions.first),
      second: summarize(decisions.second),
    },
    reconciliation: clusters,
  };
  return JSON.stringify(report, undefined, 2);
}
