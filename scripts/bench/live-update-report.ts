/** The result as Markdown for people and the system's README, and as JSON. */
import type { Compared, LiveUpdateResult } from "./live-update.ts";
import { pairedRatio, type Rounds, type Summary, summarize } from "./statistics.ts";
import { describe, describeMemory, type Place, table, times } from "./tables.ts";

export const place: Place = { file: "src/live-update/README.md", bench: "live-update" };

interface Comparison {
  readonly floor: Summary | undefined;
  readonly hostler: Summary | undefined;
  readonly ratio: number | undefined;
}

const samplesOf = (rounds: Rounds) => [...rounds.values()].flat();

function compare({ floor, hostler }: Compared): Comparison {
  return {
    floor: summarize(samplesOf(floor)),
    hostler: summarize(samplesOf(hostler)),
    ratio: pairedRatio(hostler, floor),
  };
}

const cellsOf = ({ floor, hostler, ratio }: Comparison) => [
  describe(hostler),
  describe(floor),
  times(ratio),
];

/** Tables, the machine, and how it was measured. */
export function formatMarkdown(result: LiveUpdateResult): string {
  const barriers = table(
    ["command → reboot(2)", "luod's first", "C floor", "ratio", "later ones", "C floor", "ratio"],
    result.barriers.map(({ clients, first, later }) => [
      clients === 1 ? "1 client" : `${clients} clients`,
      ...cellsOf(compare(first)),
      ...cellsOf(compare(later)),
    ]),
  );
  const { claims, claimed } = result;
  const restores = table(
    ["after the kexec", "luod", "C floor", "ratio"],
    [
      ["CLAIM → its session in the client's hand", ...cellsOf(compare(claims.single))],
      [`${claimed} clients claim at once, until the last`, ...cellsOf(compare(claims.together))],
    ],
  );
  const { carrying } = result;
  const carried = table(
    ["1 GiB of one client, command → reboot(2)", "hostler's", "client in C", "ratio"],
    [
      ["`hold`: a file, copied", ...cellsOf(compare(carrying.hold))],
      ["`run`: a program's memory, where it is", ...cellsOf(compare(carrying.run))],
    ],
  );
  const memory = table(
    ["MiB", "luod: RSS", "PSS", "anonymous", "holder: RSS", "PSS", "anonymous"],
    result.memory.map(({ name, daemon, holder }) => [
      name,
      ...describeMemory(daemon),
      ...describeMemory(holder),
    ]),
  );
  const tables = [barriers, restores, carried, legend(result), memory];
  return [...tables, describeHost(result)].join("\n\n");
}

function legend({ seed }: LiveUpdateResult): string {
  return [
    "Milliseconds: **median** (10th–90th percentile), number of samples. The ratio is the median",
    "of the ratios to the floor of the same round: one run, all rows in every round, in an order",
    `drawn from the seed ${seed}. Clients are processes with nothing to save. From the sending of`,
    "the command to the call of reboot(2), less hooks, sync(2) and the end of other processes: the",
    "kernel's part is played by one program of C for both sides, which gives an eventfd for a",
    "session, has nothing to write out, and refuses the kexec, so that there is a next update. The",
    "floor makes a session, sends it with luod's line, and waits for READY from as many processes;",
    "it has no holder, no registry, no deadline and no history. Claims are the first ones of a",
    "broker that began just now. `hold` and `run` are clients of luod, beside one in C that",
    "copies the file, or has nothing to do; what the kernel does to keep the pages is in neither.",
  ].join("\n");
}

function describeHost({ host }: LiveUpdateResult): string {
  const { processor, cores, kernel, hostler } = host;
  const own = `hostler ${hostler["hostler"]} (${hostler["commit"]?.slice(0, 12)})`;
  return [
    `Measured on ${processor}, ${cores} cores, Linux ${kernel}, ${hostler["libc"]};`,
    `${own}, Bun ${hostler["Bun"]}, in the build for fault tests.`,
  ].join("\n");
}

export function formatJson(result: LiveUpdateResult): string {
  const { host, seed, barriers, claims, claimed, carrying, memory } = result;
  const report = {
    machine: host,
    seed,
    barriers: barriers.map(({ clients, first, later }) => ({
      clients,
      first: compare(first),
      later: compare(later),
    })),
    claims: { claimed, single: compare(claims.single), together: compare(claims.together) },
    carrying: { hold: compare(carrying.hold), run: compare(carrying.run) },
    memory,
  };
  return JSON.stringify(report, undefined, 2);
}
