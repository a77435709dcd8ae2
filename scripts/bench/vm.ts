/**
 * `run bench vm`: what hostler adds to a virtual machine, beside the bare hypervisor, iproute2 with
 * nftables, and libvirt, in one run. The method and its rules stand in the report's legend.
 */
import { chmodSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "../build.ts";
import { runCommand, tryCommand } from "../command.ts";
import { ensureSystemPackages, repositoryRoot } from "../setup.ts";
import { ScriptError, withStep } from "../terminal.ts";
import { describeHost, type Host } from "./machine.ts";
import { chanceFrom } from "./statistics.ts";
import type { VmBench, VmFiles } from "./vm-bench.ts";
import { type HashingFindings, measureHashing } from "./vm-hashing.ts";
import { measureNetwork } from "./vm-network.ts";
import type { NetworkFindings } from "./vm-network-stage.ts";
import { measureReconcile, type ReconcileFindings } from "./vm-reconcile.ts";
import { type DecisionFindings, measureDecisions } from "./vm-reconcile-worker.ts";
import { measureStarts, type StartFindings } from "./vm-start.ts";
import {
  measureReplacements,
  measureWorker,
  type ReplacementFindings,
  type WorkerFindings,
} from "./vm-worker.ts";

export interface VmBenchOptions {
  readonly quick: boolean;
  readonly seed: number;
}

export interface VmBenchResult {
  readonly host: Host;
  /** Name and version of each program beside. */
  readonly peers: Readonly<Record<string, string>>;
  readonly seed: number;
  /** Processes that ran or waited for a processor in the minute before it began, on average. */
  readonly load: number;
  readonly starts: StartFindings;
  readonly worker: WorkerFindings;
  readonly replacements: ReplacementFindings;
  readonly network: NetworkFindings;
  readonly hashing: HashingFindings;
  readonly decisions: DecisionFindings;
  /** By round. */
  readonly clusters: readonly ReconcileFindings[];
}

/** Measures everything; some five minutes, with `quick` two. */
export async function benchVm({ quick, seed }: VmBenchOptions): Promise<VmBenchResult> {
  if (process.getuid?.() !== 0) {
    throw new ScriptError("The bench needs root: a network, mounts and users of its own.", {
      exitCode: 100,
    });
  }
  await ensureSystemPackages(["layouts", "machine", "network"], "the bench");
  await tryLibvirt();
  const folder = mkdtempSync(join(realpathSync(tmpdir()), "hostler-"));
  try {
    // VMMs have users of their own, and go through it.
    chmodSync(folder, 0o711);
    const [load = Number.NaN] = loadavg();
    const bench = { files: await prepareFiles(folder), chance: chanceFrom(seed), quick };
    return { ...(await measureAll(bench)), seed, load };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Where it cannot be had, its rows are empty, and the report says so. */
async function tryLibvirt(): Promise<void> {
  try {
    await ensureSystemPackages(["libvirt"], "the bench");
  } catch (error) {
    if (!(error instanceof ScriptError)) throw error;
    console.error(error.message);
  }
}

async function prepareFiles(folder: string): Promise<VmFiles> {
  const dist = join(repositoryRoot, "dist");
  const { path } = await build({ folder: dist, name: "hostler", faults: false });
  // A build that somebody makes meanwhile replaces the file in dist.
  const hostler = join(folder, "hostler");
  await runCommand(["cp", path, hostler]);
  const floor = join(folder, "vm-floor");
  const source = join(repositoryRoot, "scripts", "bench", "vm-floor.c");
  await runCommand(["gcc", "-O2", "-o", floor, source]);
  return { folder, hostler, floor };
}

async function measureAll(bench: VmBench): Promise<Omit<VmBenchResult, "seed" | "load">> {
  const starts = await withStep("starts", (step) => measureStarts(bench, step));
  const worker = await withStep("50 machines", (step) => measureWorker(bench, step));
  const replacements = await withStep("replacements", (step) => measureReplacements(bench, step));
  const network = await withStep("network", () => measureNetwork(bench));
  const hashing = await withStep("hashing", (step) => measureHashing(bench, step));
  const decisions = measureDecisions(bench.quick ? 10 : 50);
  const clusters = await withStep("reconciliation", () => measureClusters(bench.quick ? 3 : 10));
  const host = await describeHost(bench.files.hostler);
  const beside = { network, hashing, decisions, clusters };
  return { host, peers: await peers(), starts, worker, replacements, ...beside };
}

/** A master and its workers in this process, on a store of their own in each round. */
async function measureClusters(rounds: number): Promise<ReconcileFindings[]> {
  const found: ReconcileFindings[] = [];
  while (found.length < rounds) found.push(await measureReconcile());
  return found;
}

/** Debian's versions. */
async function peers(): Promise<Readonly<Record<string, string>>> {
  const packages = { QEMU: "qemu-system-x86", libvirt: "libvirt-daemon", nft: "nftables" };
  const found = Object.entries({ ...packages, iproute2: "iproute2" }).map(async ([name, one]) => {
    const { exitCode, output } = await tryCommand(["dpkg-query", "--show", one]);
    const version = exitCode === 0 ? output.trim().split("\t")[1] : undefined;
    return [name, version ?? "of unknown version"] as const;
  });
  return Object.fromEntries(await Promise.all(found));
}
