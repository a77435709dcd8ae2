import { writeFileSync } from "node:fs";
import { tieThread } from "../../../../ffi/affinity.ts";
import { memoryFlips } from "../../../../ffi/fault-hooks.ts";
import { MappedMemory } from "../../../../ffi/mapped-memory.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import { nextTurn } from "../../../store/files.ts";
import {
  MEMORY_TASK,
  type MemoryInput,
  type MemoryReport,
  memoryInputSchema,
  memoryReportSchema,
} from "../../tasks/memory.ts";
import { flipBits } from "../memory-faults.ts";
import { availableBytes, type MemoryNode, memoryNodes, physicalAddress } from "../memory-nodes.ts";
import { MemoryUnderTest } from "../memory-under-test.ts";
import { defineTask, type TaskContext, TaskRefused } from "../task.ts";

const MEBIBYTE = 1024 ** 2;
/** Between two words of progress. Milliseconds. */
const TELL_EVERY = 500;

/** One worker's part of a NUMA node's memory, filled with every pattern, and read back. */
export const memoryTask = defineTask({
  name: MEMORY_TASK,
  input: memoryInputSchema,
  report: memoryReportSchema,
  run,
});

async function run(input: MemoryInput, context: TaskContext): Promise<MemoryReport> {
  beFirstToDie();
  const begin = monotonicNow();
  const nodes = memoryNodes();
  const node = nodes[input.node];
  if (node === undefined) throw new TaskRefused(`There is no node ${input.node} with memory`);
  const processor = tie(node, input.worker);
  const { regions, locked, bound } = await take(input, node, {
    signal: context.signal,
    isOnly: nodes.length === 1,
  });
  using memory = new MemoryUnderTest({ regions, seed: input.seed, physicalAddress });
  let told = 0;
  const most = input.most_s * 1_000 - (monotonicNow() - begin);
  const flips = memoryFlips();
  await memory.run(most, {
    signal: context.signal,
    onProgress: (done, total) => {
      if (monotonicNow() - told < TELL_EVERY) return;
      told = monotonicNow();
      context.tell({ kind: "progress", done, total });
    },
    ...(flips === undefined ? {} : { afterFill: flipBits(flips) }),
  });
  return {
    node: node.number,
    processor,
    bytes: memory.bytes,
    verified_bytes: memory.verifiedBytes,
    locked,
    bound,
    passes: [...memory.passes],
    miscompared: memory.miscompared,
    miscompares: [...memory.miscompares],
  };
}

/** Where memory becomes scarce in spite of the reserve, this process goes and nobody else. */
function beFirstToDie(): void {
  try {
    writeFileSync("/proc/self/oom_score_adj", "1000");
  } catch {
    // A kernel or a container that does not allow it has its own order.
  }
}

/** Ties this thread to a processor of the node, where it has one, and gives its number. */
function tie(node: MemoryNode, worker: number): number {
  const { processors } = node;
  const processor = processors[worker % Math.max(1, processors.length)];
  if (processor === undefined) return 0;
  // What a container keeps away from us is tested from wherever we run.
  tieThread([processor]);
  return processor;
}

interface Taken {
  readonly regions: MappedMemory[];
  readonly locked: boolean;
  readonly bound: boolean;
}

/**
 * Takes memory, a region at a time, up to this worker's part of the node, and never below what
 * must stay free: the reserve, and its part of what was free beside that when it began. Others take
 * theirs meanwhile: so it looks again before each region.
 */
async function take(
  input: MemoryInput,
  node: MemoryNode,
  { signal, isOnly }: { readonly signal: AbortSignal; readonly isOnly: boolean },
): Promise<Taken> {
  const { part, workers, reserve_bytes } = input;
  const step = regionSize(node.bytes);
  const most = (part * node.bytes) / workers;
  const atFirst = availableBytes(node.number, { isOnly });
  const free = {
    node: (1 - part) * atFirst.node,
    host: reserve_bytes + (1 - part) * Math.max(0, atFirst.host - reserve_bytes),
  };
  const taken = { regions: [] as MappedMemory[], locked: true, bound: true };
  for (let bytes = step; bytes <= most && !signal.aborted; bytes += step) {
    const available = availableBytes(node.number, { isOnly });
    if (available.node - step < free.node || available.host - step < free.host) break;
    const region = MappedMemory.map(step);
    if (region === undefined) break;
    taken.regions.push(region);
    taken.bound = (isOnly || region.bindToNode(node.number)) && taken.bound;
    if (!region.lock()) {
      taken.locked = false;
      // The kernel gives a page when it is written to: what is not here yet is not counted as gone.
      region.words().fill(0);
    }
    await nextTurn();
  }
  return taken;
}

/** Bytes, whole large pages: few where a node is small, or its workers would take too much. */
function regionSize(nodeBytes: number): number {
  const wanted = Math.min(64 * MEBIBYTE, Math.max(2 * MEBIBYTE, nodeBytes / 512));
  return Math.floor(wanted / (2 * MEBIBYTE)) * 2 * MEBIBYTE;
}
