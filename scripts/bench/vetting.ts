/**
 * `run bench vetting`: a host from its switch to its verdict, a thousand agents at one
 * orchestrator, its page in a browser, and what stages read and verify beside other programs. The
 * method is the legend's.
 */
import { copyFileSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "../build.ts";
import { tryCommand } from "../command.ts";
import {
  ensureDependencies,
  ensureSystemPackages,
  type PackageGroup,
  repositoryRoot,
} from "../setup.ts";
import { ScriptError, withStep } from "../terminal.ts";
import { describeHost, type Host } from "./machine.ts";
import { type CrowdFindings, measureCrowd } from "./vetting-agents.ts";
import { type BootRow, measureBoot } from "./vetting-boot.ts";
import { benchVettingLink, type LinkRow } from "./vetting-link.ts";
import { type BusyRow, type FlipFindings, measureBusy, measureFlips } from "./vetting-load.ts";
import { benchVettingMemory, type MemoryRow } from "./vetting-memory.ts";
import { measurePage, type PageMeasures } from "./vetting-page.ts";
import {
  type HealthyRun,
  type ImageSizes,
  measureHealthyRun,
  measureImage,
} from "./vetting-run.ts";
import { benchVettingStorage, type StorageRow } from "./vetting-storage.ts";

/** Names of the parts, for `--only`, in the order in which they are measured. */
export const vettingParts = [
  "run",
  "agents",
  "page",
  "image",
  "storage",
  "memory",
  "busy",
  "flips",
  "link",
  "boot",
] as const;

export interface VettingBenchOptions {
  readonly quick: boolean;
  readonly seed: number;
  readonly only: readonly string[];
}

export interface VettingBenchResult {
  readonly host: Host;
  /** Versions of the peers that are here; undefined: it is not installed. */
  readonly peers: Readonly<Record<string, string | undefined>>;
  /** Processes that ran or waited for a processor in the minute before it began, on average. */
  readonly load: number;
  readonly quick: boolean;
  readonly run?: HealthyRun;
  readonly agents?: CrowdFindings;
  readonly page?: PageMeasures;
  readonly image?: ImageSizes;
  readonly storage?: readonly StorageRow[];
  readonly memory?: readonly MemoryRow[];
  readonly busy?: readonly BusyRow[];
  readonly flips?: FlipFindings;
  readonly link?: readonly LinkRow[];
  readonly boot?: readonly BootRow[];
  /** Parts that could not be measured, and why. */
  readonly troubles: readonly string[];
}

const qemu = "qemu-system-x86_64";
/** By what they are called, the package of Debian. */
const peerPackages = {
  fio: "fio",
  memtester: "memtester",
  stressapptest: "stressapptest",
  iperf3: "iperf3",
  dnsmasq: "dnsmasq-base",
  [qemu]: "qemu-system-x86",
  chromium: "chromium",
} as const;

type Findings = Partial<Omit<VettingBenchResult, "troubles">>;

/** Measures everything: some twenty minutes, with `quick` five. */
export async function benchVetting(options: VettingBenchOptions): Promise<VettingBenchResult> {
  const { quick, only } = options;
  const known: readonly string[] = vettingParts;
  const unknown = only.find((name) => !known.includes(name));
  if (unknown !== undefined) {
    const hint = `Expected a part of ${vettingParts.join(", ")}, received ${unknown}`;
    throw new ScriptError(hint, { exitCode: 100 });
  }
  if (process.getuid?.() !== 0) {
    throw new ScriptError("The bench needs root: loop devices and namespaces of its own.", {
      exitCode: 100,
    });
  }
  await ensureDependencies();
  await tryPackages(["vetting", "machine", "boot", "addresses", "browser"]);
  const [load = Number.NaN] = loadavg();
  const folder = mkdtempSync(join(realpathSync(tmpdir()), "hostler-"));
  try {
    const hostler = await buildInto(folder, { name: "hostler", faults: false });
    const withFaults = await buildInto(folder, { name: "hostler-faults", faults: true });
    const findings: Findings = {};
    const troubles: string[] = [];
    for (const [name, measure] of Object.entries(partsOf({ hostler, withFaults }, options))) {
      if (only.length > 0 && !only.includes(name)) continue;
      try {
        Object.assign(findings, await withStep(`vetting: ${name}`, measure));
      } catch (error) {
        // One that fails says so in the table, and the others are measured all the same.
        troubles.push(`${name}: ${(error as Error).message.split("\n")[0]}`);
      }
    }
    const host = await describeHost(hostler);
    return { host, peers: await versions(), load, quick, ...findings, troubles };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function partsOf(
  { hostler, withFaults }: { readonly hostler: string; readonly withFaults: string },
  { quick, seed }: VettingBenchOptions,
): Readonly<Record<(typeof vettingParts)[number], () => Promise<Findings>>> {
  const crowd = { hostler, agents: quick ? 200 : 1_000, seconds: quick ? 15 : 60 };
  return {
    run: async () => ({ run: await measureHealthyRun(hostler, qemu) }),
    agents: async () => ({ agents: await measureCrowd(crowd) }),
    page: async () => ({ page: await measurePage({ hosts: 1_000, quick }) }),
    image: async () => ({ image: await measureImage(hostler, quick ? "fast" : "small") }),
    storage: async () => ({ storage: await benchVettingStorage({ quick, seed }) }),
    memory: async () => ({ memory: await benchVettingMemory({ quick, seed }) }),
    busy: async () => ({ busy: await measureBusy(hostler, quick ? 5 : 30) }),
    flips: async () => ({ flips: await measureFlips(withFaults, quick ? 1 : 5) }),
    link: async () => ({ link: await benchVettingLink({ quick, seed }) }),
    boot: async () => ({ boot: await measureBoot({ rounds: quick ? 2 : 5 }) }),
  };
}

/** A build that somebody makes meanwhile replaces the file in dist. */
async function buildInto(
  folder: string,
  how: { readonly name: "hostler" | "hostler-faults"; readonly faults: boolean },
): Promise<string> {
  const { path } = await build({ folder: join(repositoryRoot, "dist"), ...how });
  const own = join(folder, how.name);
  copyFileSync(path, own);
  return own;
}

/** What cannot be had is said in the table. */
async function tryPackages(groups: readonly PackageGroup[]): Promise<void> {
  for (const group of groups) {
    try {
      await ensureSystemPackages([group], "the bench");
    } catch (error) {
      if (!(error instanceof ScriptError)) throw error;
      console.error(error.message);
    }
  }
}

async function versions(): Promise<Readonly<Record<string, string | undefined>>> {
  const found: Record<string, string | undefined> = {};
  for (const [name, packageName] of Object.entries(peerPackages)) {
    const { exitCode, output } = await tryCommand(["dpkg-query", "--show", packageName]);
    found[name] = exitCode === 0 ? output.trim().split("\t")[1] : undefined;
  }
  return found;
}
