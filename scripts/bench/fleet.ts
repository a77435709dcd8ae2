/**
 * `run bench fleet`: what comes over the wire for an upgrade, how long nobody answers in one, and
 * as many devices as one operator holds. The method and its rules stand in the report's legend.
 */
import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "../build.ts";
import { runCommand } from "../command.ts";
import { fetchNatsServer, natsReleases } from "../nats-server.ts";
import { ensureDependencies, ensureSystemPackages, repositoryRoot } from "../setup.ts";
import { ScriptError, type Step, withStep } from "../terminal.ts";
import { buildPairs } from "./fleet-builds.ts";
import {
  type CrowdFindings,
  descriptorLimit,
  measureCrowd,
  possibleDevices,
  wantedDevices,
} from "./fleet-crowd.ts";
import { type GapFindings, measureGaps } from "./fleet-gap.ts";
import { measurePairs, type PairFindings } from "./fleet-pairs.ts";
import { peerVersions } from "./fleet-peers.ts";
import { describeHost, type Host } from "./machine.ts";

export interface FleetBenchOptions {
  readonly quick: boolean;
  /** Parts to measure: "pairs", "gap", "crowd"; all without one. */
  readonly only: readonly string[];
}

export interface FleetBenchResult {
  readonly host: Host;
  readonly peers: Readonly<Record<string, string>>;
  /** Processes that ran or waited for a processor in the minute before it began, on average. */
  readonly load: number;
  /** Files that a process may hold open. */
  readonly descriptors: number;
  readonly pairs: readonly PairFindings[];
  readonly gap: GapFindings | undefined;
  readonly crowds: readonly CrowdFindings[];
  /** What did not come to its end. */
  readonly troubles: readonly string[];
}

/** Measures everything: some fifteen minutes, with `quick` four. */
export async function benchFleet({ quick, only }: FleetBenchOptions): Promise<FleetBenchResult> {
  if (process.getuid?.() !== 0) {
    throw new ScriptError("The bench needs root: namespaces and a network of its own.", {
      exitCode: 100,
    });
  }
  await ensureDependencies();
  await ensureSystemPackages(["network"], "the bench");
  await tryPeers();
  const folder = mkdtempSync(join(realpathSync(tmpdir()), "hostler-"));
  const isMeant = (part: string) => only.length === 0 || only.includes(part);
  try {
    const [load = Number.NaN] = loadavg();
    const dist = join(repositoryRoot, "dist");
    const { path } = await build({ folder: dist, name: "hostler", faults: false });
    // A build that somebody makes meanwhile replaces the file in dist.
    const hostler = join(folder, "hostler");
    await runCommand(["cp", path, hostler]);
    const pairs = isMeant("pairs") ? await pairsOf(folder, quick) : [];
    const gap = isMeant("gap")
      ? await withStep("commits and ways back", (step) =>
          measureGaps(hostler, { devices: quick ? 1 : 2, step }),
        )
      : undefined;
    const none = { crowds: [], troubles: [] };
    const { crowds, troubles } = isMeant("crowd") ? await crowdsOf(hostler, quick) : none;
    const host = await describeHost(hostler);
    const descriptors = descriptorLimit();
    return { host, peers: await peerVersions(), load, descriptors, pairs, gap, crowds, troubles };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Where they cannot be had, their rows are empty. */
async function tryPeers(): Promise<void> {
  try {
    await ensureSystemPackages(["deltas"], "the bench");
  } catch (error) {
    if (!(error instanceof ScriptError)) throw error;
    console.error(error.message);
  }
}

async function pairsOf(folder: string, quick: boolean): Promise<PairFindings[]> {
  const pairs = await withStep("pairs of builds", () => buildPairs(folder));
  return await withStep("bytes over the wire", (step) =>
    measurePairs({ folder, pairs, quick }, step),
  );
}

async function crowdsOf(
  hostler: string,
  quick: boolean,
): Promise<Pick<FleetBenchResult, "crowds" | "troubles">> {
  const crowds: CrowdFindings[] = [];
  const troubles: string[] = [];
  const measure = async (plan: { readonly devices: number; readonly nats?: string }) => {
    const times = { seconds: quick ? 10 : 30, ...(quick && { heartbeat: 1_000 }) };
    const work = (step: Step) => measureCrowd({ hostler, ...times, ...plan }, step);
    try {
      crowds.push(await withStep(`${plan.devices} devices`, work));
    } catch (error) {
      if (!(error instanceof ScriptError)) throw error;
      console.error(error.message);
      const store = plan.nats === undefined ? "" : ", over NATS";
      troubles.push(`${plan.devices} devices${store}: they did not come to the end of it.`);
    }
  };
  if (quick) {
    await measure({ devices: 200 });
    return { crowds, troubles };
  }
  const possible = possibleDevices(wantedDevices);
  await measure({ devices: possible });
  const [, , newest] = natsReleases;
  const nats = await fetchNatsServer(newest);
  // Over NATS there is an operator for each processor, and each has room for so many.
  const devices = Math.min(wantedDevices, possible * navigator.hardwareConcurrency);
  await measure({ devices, nats });
  return { crowds, troubles };
}
