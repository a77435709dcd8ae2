import { currentProcessor, tieThread } from "../../../../ffi/affinity.ts";
import { threadNanoseconds } from "../../../../ffi/process.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import { nextTurn } from "../../../store/files.ts";
import {
  CPU_TASK,
  type CpuInput,
  type CpuMiscompare,
  type CpuReport,
  cpuInputSchema,
  cpuLimits,
  cpuReportSchema,
} from "../../tasks/cpu.ts";
import { type CpuWork, cpuWork } from "../cpu-work.ts";
import { onlineProcessors } from "../memory-nodes.ts";
import { defineTask, type TaskContext, TaskRefused } from "../task.ts";

/** Between two words of progress, and two turns for others. Milliseconds. */
const TELL_EVERY = 500;
const TURN_EVERY = 100;

/** One processor, busy with answers that are known, for as long as it is told. */
export const cpuTask = defineTask({
  name: CPU_TASK,
  input: cpuInputSchema,
  report: cpuReportSchema,
  run,
});

async function run(input: CpuInput, context: TaskContext): Promise<CpuReport> {
  const processor = onlineProcessors()[input.index];
  if (processor === undefined) {
    throw new TaskRefused(`There is no processor ${input.index} among those that are online`);
  }
  if (!tieThread([processor])) {
    throw new TaskRefused(`The kernel keeps this process away from processor ${processor}`);
  }
  const { works, unseen } = await cpuWork();
  const verified = { integer: 0, float: 0, vector: 0, hash: 0, compression: 0 };
  const wrong = { count: 0, told: [] as CpuMiscompare[] };
  const begin = monotonicNow();
  const had = threadNanoseconds();
  const duration = input.duration_s * 1_000;
  let [told, turned] = [begin, begin];
  for (let turn = 0; !context.signal.aborted && monotonicNow() - begin < duration; turn += 1) {
    for (const work of works) {
      const found = tryOnce(work, turn);
      if (found === undefined) {
        verified[work.kind] += 1;
        continue;
      }
      wrong.count += 1;
      if (wrong.told.length < cpuLimits.miscompares) wrong.told.push(found);
    }
    const now = monotonicNow();
    if (now - turned < TURN_EVERY) continue;
    turned = now;
    await nextTurn();
    stayHere(processor);
    if (now - told < TELL_EVERY) continue;
    told = now;
    context.tell({ kind: "progress", done: Math.min(now - begin, duration), total: duration });
  }
  return {
    processor,
    wall_s: (monotonicNow() - begin) / 1_000,
    busy_s: (threadNanoseconds() - had) / 1_000_000_000,
    verified,
    unseen: [...unseen],
    miscompared: wrong.count,
    miscompares: wrong.told,
  };
}

/** @returns what was wrong; undefined where the answer is right */
function tryOnce(work: CpuWork, turn: number): CpuMiscompare | undefined {
  const { expected, found } = work.answer(turn);
  if (expected === found) return undefined;
  const again = work.answer(turn).found === expected ? "transient" : "sticky";
  return { kind: work.kind, pass: turn + 1, expected, found: found.slice(0, 256), again };
}

/** A processor that is taken offline gives its threads to others, in spite of their tie. */
function stayHere(processor: number): void {
  const now = currentProcessor();
  if (now === processor) return;
  throw new TaskRefused(`Processor ${processor} went offline: the kernel goes on at ${now}`);
}
