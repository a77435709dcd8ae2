/**
 * Bytes through a link: hostler's task and server beside iperf3, on loopback, so that processors
 * are the limit. `bun scripts/bench/vetting-link.ts [--quick]`. hostler compares every byte that
 * comes with what was sent; iperf3 does not look at them.
 */
import { join } from "node:path";
import * as v from "valibot";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { createLogger } from "../../src/logging/logger.ts";
import { ThroughputServer } from "../../src/vetting/perform/throughput/server.ts";
import { linkReportSchema } from "../../src/vetting/tasks/link.ts";
import { build } from "../build.ts";
import { runCommand } from "../command.ts";
import { ensureDependencies, ensureSystemPackages, repositoryRoot } from "../setup.ts";
import { runScript, withStep } from "../terminal.ts";
import { formatSpread, takeRounds } from "./rounds.ts";
import { rowsThatCan, runVettingTask } from "./vetting-task.ts";

export interface LinkRow {
  readonly name: string;
  /** Gigabits a second, one sample a round. */
  readonly up: readonly number[];
  readonly down: readonly number[];
}

interface Rate {
  readonly up: number;
  readonly down: number;
}

const KEY = "0".repeat(32);
const PERF_PORT = 15_201;
const perfResult = v.object({
  end: v.object({ sum_received: v.object({ bits_per_second: v.number() }) }),
});

async function ours(hostler: string, port: number, seconds: number): Promise<Rate> {
  const input = {
    ...{ name: "lo", mac: "00:00:00:00:00:00", carrier_wait_s: 1 },
    ...{ duration_s: seconds, turn_wait_s: 20 },
    test: { host: "127.0.0.1", port, run: 1, key: KEY },
  };
  const report = await runVettingTask(hostler, { task: "link", input });
  const { throughput } = v.parse(linkReportSchema, report);
  if (throughput.kind !== "measured") throw new Error(throughput.reason);
  const rate = (flow: { bytes: number; seconds: number }) => (flow.bytes * 8) / flow.seconds / 1e9;
  return { up: rate(throughput.up), down: rate(throughput.down) };
}

async function perf(seconds: number): Promise<Rate> {
  const client = async (...words: string[]) => {
    const server = ["iperf3", "-s", "-1", "--forceflush", "-p", String(PERF_PORT)];
    const serving = Bun.spawn(server, { stdout: "pipe", stderr: "ignore" });
    const reader = serving.stdout.getReader();
    // It says that it listens.
    await reader.read();
    const common = ["-c", "127.0.0.1", "-p", String(PERF_PORT), "-t", String(seconds), "-J"];
    const text = await runCommand(["iperf3", ...common, ...words]);
    await serving.exited;
    return v.parse(perfResult, JSON.parse(text)).end.sum_received.bits_per_second / 1e9;
  };
  return { up: await client(), down: await client("-R") };
}

/** Both in each round, in an order that chance decides. */
export async function benchVettingLink(options: {
  readonly quick: boolean;
  readonly seed: number;
}): Promise<readonly LinkRow[]> {
  const dist = join(repositoryRoot, "dist");
  const { path: hostler } = await build({ folder: dist, name: "hostler", faults: false });
  using loop = new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));
  using server = ThroughputServer.start({
    listen: { address: Uint8Array.of(127, 0, 0, 1), port: 0 },
    admit: () => true,
    logger: createLogger("bench"),
    loop,
    own: { path: hostler, words: [hostler] },
  });
  const seconds = options.quick ? 1 : 5;
  const rows = {
    hostler: () => ours(hostler, server.port, seconds),
    iperf3: () => perf(seconds),
  };
  const taken = await withStep("bytes through loopback", () =>
    takeRounds(rowsThatCan(rows, { iperf3: "iperf3" }), {
      rounds: options.quick ? 3 : 7,
      seed: options.seed,
    }),
  );
  return taken.map(({ name, samples }) => ({
    name,
    up: samples.map(({ up }) => up),
    down: samples.map(({ down }) => down),
  }));
}

async function main(): Promise<number> {
  await ensureDependencies();
  await ensureSystemPackages(["vetting"], "the bench of links");
  const quick = process.argv.includes("--quick");
  console.log("| | Gb/s up | Gb/s down |\n|---|---|---|");
  for (const { name, up, down } of await benchVettingLink({ quick, seed: 7 })) {
    console.log(`| ${name} | ${formatSpread(up, 1)} | ${formatSpread(down, 1)} |`);
  }
  return 0;
}

if (import.meta.main) await runScript(main);
