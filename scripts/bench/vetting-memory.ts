/**
 * Memory that is filled and verified, in GB a second by one processor: hostler's task beside
 * memtester, stressapptest and a floor in C. `bun scripts/bench/vetting-memory.ts [--quick]`
 *
 * A verified byte is one that was written and came back; the time is that of both. memtester runs
 * its "solid bits" alone (64 fills and comparisons), less what it takes without; stressapptest's
 * figure counts a byte that is copied twice, so half of it is taken.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { memoryReportSchema } from "../../src/vetting/tasks/memory.ts";
import { build } from "../build.ts";
import { runCommand } from "../command.ts";
import { ensureDependencies, ensureSystemPackages, repositoryRoot } from "../setup.ts";
import { runScript, withStep } from "../terminal.ts";
import { formatSpread, takeRounds } from "./rounds.ts";
import { quantile } from "./statistics.ts";
import { rowsThatCan, runVettingTask } from "./vetting-task.ts";

export interface MemoryRow {
  readonly name: string;
  /** GB a second, one sample a round. */
  readonly samples: readonly number[];
}

interface Place {
  readonly hostler: string;
  readonly floor: string;
  readonly bytes: number;
}

const MEBIBYTE = 1024 ** 2;

const rowsAt = ({
  hostler,
  floor,
  bytes,
}: Place): Readonly<Record<string, () => Promise<number>>> => ({
  "a loop in C": async () => {
    const lines = (await runCommand([floor, String(bytes), "8"])).trim().split("\n");
    const passes = lines.map((line) => line.split(" ").map(Number));
    return speed(passes.map(([size = 0, seconds = 0]) => ({ size, seconds })));
  },
  hostler: async () => {
    const input = {
      ...{ node: 0, worker: 0, workers: 1, part: bytes / totalmem() },
      ...{ reserve_bytes: 0, seed: 7, most_s: 600 },
    };
    const report = await runVettingTask(hostler, { task: "memory", input });
    const { passes, miscompared } = v.parse(memoryReportSchema, report);
    if (miscompared > 0) throw new Error(`${miscompared} words of this machine are wrong`);
    return speed(
      passes.map((pass) => ({ size: pass.bytes, seconds: pass.fill_s + pass.verify_s })),
    );
  },
  memtester: async () => {
    const solidBits = 64;
    const all = await secondsOf(memtester(bytes, 0x100));
    const without = await secondsOf(memtester(bytes, 0x8000_0000));
    return speed([{ size: solidBits * bytes, seconds: all - without }]);
  },
  stressapptest: async () => {
    const size = String(Math.floor(bytes / MEBIBYTE));
    const words = ["stressapptest", "-s", "4", "-M", size, "-m", "1", "-i", "0", "-v", "8"];
    const output = await runCommand(words);
    const copied = /Memory Copy: [\d.]+M at ([\d.]+)MB\/s/.exec(output)?.[1];
    if (copied === undefined) throw new Error(`stressapptest says no speed:\n${output}`);
    return (Number(copied) * MEBIBYTE) / 2 / 1e9;
  },
});

const memtester = (bytes: number, tests: number): readonly string[] => [
  ...["env", `MEMTESTER_TEST_MASK=${tests}`],
  ...["memtester", `${Math.floor(bytes / MEBIBYTE)}M`, "1"],
];

async function secondsOf(words: readonly string[]): Promise<number> {
  const begin = performance.now();
  await runCommand([...words]);
  return (performance.now() - begin) / 1_000;
}

/** All passes together, in GB a second. */
function speed(passes: readonly { readonly size: number; readonly seconds: number }[]): number {
  const size = passes.reduce((sum, pass) => sum + pass.size, 0);
  return size / passes.reduce((sum, pass) => sum + pass.seconds, 0) / 1e9;
}

const needs = { "a loop in C": "gcc", memtester: "memtester", stressapptest: "stressapptest" };

/** Every row in each round, in an order that chance decides. */
export async function benchVettingMemory(options: {
  readonly quick: boolean;
  readonly seed: number;
}): Promise<readonly MemoryRow[]> {
  const folder = mkdtempSync(join(tmpdir(), "hostler-memory-"));
  try {
    const floor = join(folder, "floor");
    const source = join(repositoryRoot, "scripts/bench/vetting-memory.c");
    if (Bun.which("gcc") !== null) {
      await runCommand(["gcc", "-O2", "-Wall", "-Wextra", "-o", floor, source]);
    }
    const dist = join(repositoryRoot, "dist");
    const { path: hostler } = await build({ folder: dist, name: "hostler", faults: false });
    const bytes = (options.quick ? 256 : 1_024) * MEBIBYTE;
    const rows = rowsThatCan(rowsAt({ hostler, floor, bytes }), needs);
    return await withStep("memory, filled and verified", () =>
      takeRounds(rows, { rounds: options.quick ? 3 : 7, seed: options.seed }),
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function main(): Promise<number> {
  const quick = process.argv.includes("--quick");
  await ensureDependencies();
  await ensureSystemPackages(["vetting"], "the bench of memory");
  const measured = await benchVettingMemory({ quick, seed: 7 });
  const floor = quantile(measured[0]?.samples ?? [], 0.5);
  console.log("| | GB/s verified | of the floor |\n|---|---|---|");
  for (const { name, samples } of measured) {
    const part = (quantile(samples, 0.5) / floor).toFixed(2);
    console.log(`| ${name} | ${formatSpread(samples, 2)} | ${part} |`);
  }
  return 0;
}

if (import.meta.main) await runScript(main);
