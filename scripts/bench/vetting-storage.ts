/**
 * Disks that are read, and written over and read back, in MB a second: hostler's tasks beside fio
 * with the same O_DIRECT block size and depth, on a loop device of the bench's own.
 * `bun scripts/bench/vetting-storage.ts [--quick]`
 *
 * fio verifies by CRC-32C (its own, by the processor's instruction); hostler compares each byte
 * with what it wrote. The time of a verify is that of both ways.
 */
import * as v from "valibot";
import type { TaskContext } from "../../src/vetting/perform/task.ts";
import { scanDisk } from "../../src/vetting/perform/tasks/scan.ts";
import { verifyDisk } from "../../src/vetting/perform/tasks/verify.ts";
import { DiskHost, type LoopDisk } from "../../test/support/vetting/loop-disks.ts";
import { runCommand } from "../command.ts";
import { ensureDependencies, ensureSystemPackages } from "../setup.ts";
import { runScript, withStep } from "../terminal.ts";
import { formatSpread, takeRounds } from "./rounds.ts";
import { quantile } from "./statistics.ts";
import { rowsThatCan } from "./vetting-task.ts";

export interface StorageRow {
  readonly name: string;
  /** MB a second, one sample a round. */
  readonly samples: readonly number[];
}

interface Place {
  readonly host: DiskHost;
  readonly disk: LoopDisk;
}

const MEBIBYTE = 1024 ** 2;
const BLOCK = MEBIBYTE;
const DEPTH = 4;
const context: TaskContext = {
  signal: new AbortController().signal,
  tell: () => {},
  onQuestion: () => {},
};

const rowsAt = ({ host, disk }: Place): Readonly<Record<string, () => Promise<number>>> => ({
  "scan, hostler": async () => {
    const { read } = await scanDisk({ ...inputOf(disk), extent: 1 }, context, host.tree);
    if (read.done_bytes !== disk.size) throw new Error("hostler did not read all of it");
    return speed(disk.size, read.duration_ms);
  },
  "scan, fio": async () => {
    const { read } = await fio(disk, ["--rw=read"]);
    return speed(disk.size, read.runtime);
  },
  "verify, hostler": async () => {
    const report = await verifyDisk({ ...inputOf(disk), allowed: "wipe" }, context, host.tree);
    if (report.kind !== "verified" || report.read.done_bytes !== disk.size) {
      throw new Error(`hostler did not verify it: ${JSON.stringify(report)}`);
    }
    return speed(2 * disk.size, report.written.duration_ms + report.read.duration_ms);
  },
  "verify, fio": async () => {
    const words = [
      ...["--rw=write", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1"],
      // It would leave a file where it is run.
      "--verify_state_save=0",
    ];
    const { read, write } = await fio(disk, words);
    return speed(2 * disk.size, write.runtime + read.runtime);
  },
});

const inputOf = (disk: LoopDisk) => ({
  disk: { name: "sda", serial: disk.serial, size_bytes: disk.size },
  block_bytes: BLOCK,
  depth: DEPTH,
  most_s: 3_600,
});

const way = v.object({ runtime: v.number(), io_bytes: v.number() });
const fioOutput = v.object({
  jobs: v.pipe(v.array(v.object({ error: v.number(), read: way, write: way })), v.length(1)),
});

/** @returns milliseconds of each way */
async function fio(disk: LoopDisk, words: readonly string[]) {
  const output = await runCommand([
    "fio",
    "--name=bench",
    `--filename=${disk.device}`,
    "--direct=1",
    "--ioengine=libaio",
    `--bs=${BLOCK}`,
    `--iodepth=${DEPTH}`,
    "--output-format=json",
    ...words,
  ]);
  const [job] = v.parse(fioOutput, JSON.parse(output)).jobs;
  if (job === undefined || job.error !== 0) throw new Error(`fio failed:\n${output}`);
  return job;
}

const speed = (bytes: number, milliseconds: number): number => bytes / 1_000 / milliseconds;

const needs = { "scan, fio": "fio", "verify, fio": "fio" };

/** Every row in each round, in an order that chance decides. */
export async function benchVettingStorage(options: {
  readonly quick: boolean;
  readonly seed: number;
}): Promise<readonly StorageRow[]> {
  using host = new DiskHost();
  const size = (options.quick ? 256 : 1_024) * MEBIBYTE;
  const place = { host, disk: host.add("sda", { serial: "BENCH", size }) };
  return await withStep("disks, read and verified", () =>
    takeRounds(rowsThatCan(rowsAt(place), needs), {
      rounds: options.quick ? 3 : 7,
      seed: options.seed,
    }),
  );
}

async function main(): Promise<number> {
  const quick = process.argv.includes("--quick");
  await ensureDependencies();
  await ensureSystemPackages(["vetting"], "the bench of disks");
  const measured = await benchVettingStorage({ quick, seed: 7 });
  const medianOf = (wanted: string) =>
    quantile(measured.find(({ name }) => name === wanted)?.samples ?? [], 0.5);
  console.log("| | MB/s | of fio's |\n|---|---|---|");
  for (const { name, samples } of measured) {
    const peer = medianOf(name.replace("hostler", "fio"));
    const part = (quantile(samples, 0.5) / peer).toFixed(2);
    console.log(`| ${name} | ${formatSpread(samples, 0)} | ${part} |`);
  }
  return 0;
}

if (import.meta.main) await runScript(main);
