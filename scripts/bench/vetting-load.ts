/** Processors kept busy by hostler's task, and bits of memory that flip and must be found. */
import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import * as v from "valibot";
import { cpuReportSchema } from "../../src/vetting/tasks/cpu.ts";
import { memoryReportSchema } from "../../src/vetting/tasks/memory.ts";
import { runVettingTask } from "./vetting-task.ts";

export interface BusyRow {
  /** The kernel's number. */
  readonly processor: number;
  /** Of the time that passed, the part that the task had; and of what others left. */
  readonly ofAll: number;
  readonly ofFree: number;
}

/** A task for each processor, all at once. */
export async function measureBusy(hostler: string, seconds: number): Promise<BusyRow[]> {
  const before = idleSeconds();
  const tasks = Array.from({ length: before.size }, (_one, index) =>
    runVettingTask(hostler, { task: "cpu", input: { index, duration_s: seconds } }),
  );
  const reports = (await Promise.all(tasks)).map((report) => v.parse(cpuReportSchema, report));
  const after = idleSeconds();
  return reports.map(({ processor, wall_s: wall, busy_s: busy, miscompared }) => {
    if (miscompared > 0) throw new Error(`Processor ${processor} gave wrong answers`);
    const idle = (after.get(processor) ?? 0) - (before.get(processor) ?? 0);
    // Before it began and after it ended a child is no load yet.
    return { processor, ofAll: busy / wall, ofFree: busy / (busy + Math.max(0, idle)) };
  });
}

/** Seconds in which a processor had nothing to do, ever: proc_stat(5). */
function idleSeconds(): ReadonlyMap<number, number> {
  const rows = readFileSync("/proc/stat", "latin1").matchAll(/^cpu(\d+) (.*)$/gm);
  return new Map(
    [...rows].map(([, number, rest = ""]) => {
      const [, , , idle = 0, waiting = 0] = rest.split(" ").map(Number);
      return [Number(number), (idle + waiting) / 100];
    }),
  );
}

export interface FlipFindings {
  readonly flipped: number;
  readonly found: number;
}

/** @param withFaults the build that flips bits when it is told */
export async function measureFlips(withFaults: string, rounds: number): Promise<FlipFindings> {
  const each = 200;
  let found = 0;
  for (let round = 0; round < rounds; round += 1) {
    const input = {
      ...{ node: 0, worker: 0, workers: 1, part: (128 * 1024 ** 2) / totalmem() },
      ...{ reserve_bytes: 0, seed: round + 1, most_s: 600 },
    };
    const environment = { HOSTLER_MEMORY_FLIPS: `${each}@${20_261_130 + round}` };
    const report = await runVettingTask(withFaults, { task: "memory", input }, environment);
    found += v.parse(memoryReportSchema, report).miscompared;
  }
  return { flipped: each * rounds, found };
}
