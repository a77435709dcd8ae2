/** Which suites there are, in which order they run, what they need and what they may take. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type PackageGroup, repositoryRoot } from "./setup.ts";

export interface Suite {
  readonly name: string;
  /** A file or a folder, from the repository's root. */
  readonly place: string;
  /** Files at the same time; one where files share the machine's namespaces or its memory. */
  readonly width: number;
  /** false: cases run as they are written, because they tell one story. */
  readonly randomize: boolean;
  readonly needsRoot: boolean;
  /** It runs at the same time as the suite before it: neither uses the whole machine. */
  readonly runsBeside: boolean;
  readonly packages: readonly PackageGroup[];
  /** Longest time for one file, in minutes; over it, the file is killed and has failed. */
  readonly minutesPerFile: number;
}

/** From what fails fast to what takes long. */
export const suites: readonly Suite[] = [
  quick("tidy", "test/tidy.test.ts"),
  quick("unit", "test/unit"),
  { ...quick("simulation", "test/simulation"), minutesPerFile: 10 },
  {
    ...quick("contract", "test/contract"),
    packages: ["layouts", "arm64", "musl", "images", "disks"],
    minutesPerFile: 10,
  },
  {
    name: "namespace",
    place: "test/namespace",
    width: 1,
    randomize: false,
    needsRoot: true,
    runsBeside: false,
    packages: [
      "layouts",
      "authority",
      "machine",
      "addresses",
      "boot",
      "network",
      "disks",
      "browser",
      "tools",
    ],
    minutesPerFile: 20,
  },
  {
    name: "machine",
    place: "test/machine",
    width: 1,
    randomize: false,
    needsRoot: false,
    runsBeside: true,
    packages: ["machine", "boot"],
    minutesPerFile: 40,
  },
];

function quick(name: string, place: string): Suite {
  return {
    name,
    place,
    width: navigator.hardwareConcurrency,
    randomize: true,
    needsRoot: false,
    runsBeside: false,
    packages: [],
    minutesPerFile: 5,
  };
}

/**
 * Seconds that each system's tests may take in `run test`, on two cores from a cold cache. They
 * are the time of the files added up; beside them stands the limit of the whole run.
 */
export const budgetSeconds = {
  house: 600,
  process: 600,
  "live-update": 300,
  vm: 300,
  fleet: 600,
  vetting: 300,
} as const;

/** Seconds for the whole of `run test`; a run that takes longer has failed. */
export const totalBudgetSeconds: number = 40 * 60;

export type System = keyof typeof budgetSeconds;

/**
 * Files of a third of a minute and more, in the order of their names: every third one has its turn
 * with a commit, and the others with the next two, because all of them do not fit into one run.
 * `run test --all`, and a run that names files or cases, leaves none out.
 */
export const longFiles: readonly string[] = [
  "test/machine/live-update-daemon.test.ts",
  "test/machine/live-update-demo.test.ts",
  "test/machine/live-update-doctor.test.ts",
  "test/machine/live-update-guest.test.ts",
  "test/machine/live-update-install.test.ts",
  "test/machine/live-update-scenarios.test.ts",
  "test/machine/vetting-laboratory.test.ts",
  "test/machine/vm-guest.test.ts",
  "test/namespace/authority-durable-killed.test.ts",
  "test/namespace/fleet-agent.test.ts",
  "test/namespace/fleet-bench.test.ts",
  "test/namespace/fleet-clocks.test.ts",
  "test/namespace/fleet-demo.test.ts",
  "test/namespace/fleet-install.test.ts",
  "test/namespace/fleet-killed.test.ts",
  "test/namespace/fleet-operator-nats.test.ts",
  "test/namespace/fleet-operator.test.ts",
  "test/namespace/fleet-roles.test.ts",
  "test/namespace/fleet-supervise.test.ts",
  "test/namespace/fleet-systemd-agent.test.ts",
  "test/namespace/fleet-upgrade.test.ts",
  "test/namespace/live-update-daemon-killed.test.ts",
  "test/namespace/live-update-daemon.test.ts",
  "test/namespace/live-update-run.test.ts",
  "test/namespace/process-orchestrator-adoption.test.ts",
  "test/namespace/process-orchestrator-killed.test.ts",
  "test/namespace/process-reexecute-refused.test.ts",
  "test/namespace/process-reexecute.test.ts",
  "test/namespace/vetting-agent.test.ts",
  "test/namespace/vetting-boot.test.ts",
  "test/namespace/vetting-fio.test.ts",
  "test/namespace/vetting-iperf3.test.ts",
  "test/namespace/vetting-load.test.ts",
  "test/namespace/vetting-network.test.ts",
  "test/namespace/vetting-orchestrator.test.ts",
  "test/namespace/vetting-page.test.ts",
  "test/namespace/vm-cloud-hypervisor.test.ts",
  "test/namespace/vm-demo.test.ts",
  "test/namespace/vm-dns.test.ts",
  "test/namespace/vm-lease.test.ts",
  "test/namespace/vm-master-fence.test.ts",
  "test/namespace/vm-master-nats.test.ts",
  "test/namespace/vm-master.test.ts",
  "test/namespace/vm-mastered-killed.test.ts",
  "test/namespace/vm-mastered.test.ts",
  "test/namespace/vm-migration.test.ts",
  "test/namespace/vm-networks.test.ts",
];

/** So many commits in a row run all of them. */
const LONG_FILE_TURNS = 3;

/** @param turn the number of commits: neighbours differ by one */
export function waitsForNextTurn(path: string, turn: number): boolean {
  const index = longFiles.indexOf(path);
  return index >= 0 && index % LONG_FILE_TURNS !== turn % LONG_FILE_TURNS;
}

/** @returns the system a test file belongs to, by its name or folder: process-agent.test.ts */
export function systemOf(path: string): System {
  const [, , first = ""] = path.split("/");
  const systems = Object.keys(budgetSeconds) as System[];
  return systems.find((system) => first.startsWith(system)) ?? "house";
}

/** @param parts words of which one must be in a file's path; none for all files */
export function filesOf(suite: Suite, parts: readonly string[]): string[] {
  const files = suite.place.endsWith(".ts") ? [suite.place] : testFilesIn(suite.place);
  if (parts.length === 0) return files;
  return files.filter((file) => parts.some((part) => file.includes(part.replace(/^\.\//, ""))));
}

function testFilesIn(folder: string): string[] {
  const absolute = join(repositoryRoot, folder);
  // Git keeps no empty folder, so a suite without a file has none in a clone.
  if (!existsSync(absolute)) return [];
  return readdirSync(absolute, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".test.ts"))
    .map((path) => join(folder, path))
    .toSorted();
}
