import { DirectQueue } from "../../../../ffi/direct-queue.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import { HostTree } from "../../../hardware/host-tree.ts";
import { hostlerVersion } from "../../../units/version.ts";
import { regionsOf } from "../../stages/regions.ts";
import {
  SCAN_TASK,
  type ScanInput,
  type ScanReport,
  scanInputSchema,
  scanReportSchema,
} from "../../tasks/scan.ts";
import { fioLimits } from "../../tools/fio.ts";
import { DiskPass } from "../disks/disk-pass.ts";
import { type OpenDisk, openPlanned } from "../disks/planned-disk.ts";
import { runFio } from "../disks/run-fio.ts";
import { defineTask, type TaskContext } from "../task.ts";

/** Reads a disk, past the page cache and several blocks at a time. Nothing is written. */
export const scanTask = defineTask({
  name: SCAN_TASK,
  input: scanInputSchema,
  report: scanReportSchema,
  run: (input, context) => scanDisk(input, context, new HostTree()),
});

/** What both reads and writes begin at a multiple of, on every disk that there is. */
const ALIGNMENT = 4_096;

export const wholeBlocks = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** @throws TaskRefused where the disk is not there, or not the planned one */
export async function scanDisk(
  input: ScanInput,
  context: TaskContext,
  tree: HostTree,
): Promise<ScanReport> {
  using opened = openPlanned(tree, input.disk, "read");
  if (input.engine === "tool") return await scanByFio(input, opened, context);
  const blockBytes = wholeBlocks(input.block_bytes);
  const regions = regionsOf({
    size: opened.size,
    block: blockBytes,
    extent: input.extent,
    seed: input.disk.serial ?? input.disk.name,
  });
  const total = regions.reduce((sum, { length }) => sum + length, 0);
  // One more looks closer at what failed.
  using queue = new DirectQueue(opened.descriptor, { depth: input.depth + 1, blockBytes });
  const pass = new DiskPass({
    queue,
    regions,
    blockBytes,
    logicalBlock: opened.logicalBlock,
    way: "read",
    now: monotonicNow,
    signal: context.signal,
    until: monotonicNow() + input.most_s * 1_000,
    onProgress: (done) => context.tell({ kind: "progress", done, total }),
  });
  const read = await pass.run();
  return { engine: { name: "hostler", version: hostlerVersion }, read };
}

async function scanByFio(
  input: ScanInput,
  opened: OpenDisk,
  context: TaskContext,
): Promise<ScanReport> {
  const { serial, name } = input.disk;
  const block = wholeBlocks(input.block_bytes);
  const spread = { size: opened.size, block, extent: input.extent, seed: serial ?? name };
  const { engine, pass: read } = await runFio(
    {
      descriptor: opened.descriptor,
      regions: regionsOf({ ...spread, most: fioLimits.regions }),
      blockBytes: block,
      depth: input.depth,
      way: "read",
      until: monotonicNow() + input.most_s * 1_000,
    },
    context,
  );
  context.tell({ kind: "progress", done: read.done_bytes, total: read.planned_bytes });
  return { engine, read };
}
