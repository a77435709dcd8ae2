import * as v from "valibot";
import type { Region } from "../stages/regions.ts";
import { count, diskTaskLimits, type FailedRange, type Pass } from "../tasks/disk.ts";
import { readToolJson } from "./tool-json.ts";

/**
 * fio(1) in place of our own pass over a disk: the words that it is started with, and what of its
 * `--output-format=json` is taken. Held against fio 3.33. Pure.
 */

export const fioLimits = {
  /** Regions of one run: each is a job of fio's. */
  regions: 64,
  /** Bytes of its JSON, and of what it says beside it. */
  output: 4 * 1024 ** 2,
  said: 256 * 1024,
} as const;

/** EILSEQ of <errno.h>: what fio calls a block that holds other bytes than it has to. */
const MISCOMPARED = 84;

export interface FioOrder {
  /** By which it opens the disk. */
  readonly path: string;
  readonly regions: readonly Region[];
  readonly blockBytes: number;
  readonly depth: number;
  readonly way: "read" | "write";
  /** Written, or compared with each byte that was read: these bytes and the block's offset. */
  readonly pattern?: Uint8Array;
}

interface Job extends Region {
  readonly name: string;
  readonly blockBytes: number;
}

/** fio rounds a job down to whole blocks: what is left of a region is a job of its own. */
function jobsOf({ regions, blockBytes }: FioOrder): Job[] {
  return regions.flatMap(({ offset, length }, index) => {
    const rest = length % blockBytes;
    const whole = length - rest;
    const parts = [
      { name: `region${index}`, offset, length: whole, blockBytes },
      { name: `rest${index}`, offset: offset + whole, length: rest, blockBytes: rest },
    ];
    return parts.filter((part) => part.length > 0);
  });
}

/** Without the program's own name. */
export function fioWords(order: FioOrder): string[] {
  const { path, depth, way, pattern } = order;
  return [
    // In one process: whoever ends it has ended all of it.
    "--thread",
    "--output-format=json",
    ...(way === "read" ? ["--readonly"] : ["--end_fsync=1", "--do_verify=0"]),
    `--filename=${path}`,
    `--rw=${way}`,
    "--direct=1",
    "--ioengine=libaio",
    "--invalidate=0",
    `--iodepth=${depth}`,
    "--continue_on_error=all",
    "--lat_percentiles=1",
    "--clat_percentiles=0",
    `--percentile_list=${Object.values(percentiles).map(Number).join(":")}`,
    ...(pattern === undefined ? [] : patternWords(pattern)),
    ...jobsOf(order).flatMap(({ name, offset, length, blockBytes }) => [
      `--name=${name}`,
      "--stonewall",
      `--bs=${blockBytes}`,
      `--offset=${offset}`,
      `--size=${length}`,
    ]),
  ];
}

/**
 * One comparison for each block: of several in one block fio 3.33 forgets all but the last one's
 * outcome (`verify_interval`).
 */
const patternWords = (pattern: Uint8Array): string[] => [
  "--verify=pattern",
  `--verify_pattern=0x${pattern.toHex()}%o`,
  "--verify_dump=0",
  "--verify_state_save=0",
];

/** As its JSON has them. */
const percentiles = {
  p50: "50.000000",
  p90: "90.000000",
  p99: "99.000000",
  p999: "99.900000",
} as const satisfies Record<keyof Pass["latency_ms"], string>;

const nanoseconds = v.pipe(v.number(), v.finite(), v.minValue(0));
const waySchema = v.object({
  io_bytes: count,
  /** Milliseconds. */
  runtime: count,
  lat_ns: v.object({
    max: nanoseconds,
    /** Not there where nothing was transferred. */
    percentile: v.optional(v.record(v.string(), nanoseconds), {}),
  }),
});
const outputSchema = v.object({
  "fio version": v.pipe(v.string(), v.maxLength(64)),
  jobs: v.array(
    v.object({
      jobname: v.string(),
      error: v.pipe(v.number(), v.safeInteger()),
      total_err: v.optional(count, 0),
      first_error: v.optional(v.pipe(v.number(), v.safeInteger()), 0),
      read: waySchema,
      write: waySchema,
    }),
  ),
});
type ToldJob = v.InferOutput<typeof outputSchema>["jobs"][number];

export type FioAnswer =
  | {
      readonly kind: "pass";
      readonly pass: Pass;
      /** Blocks that were read, and hold other bytes than they have to. */
      readonly miscompared: number;
      /** The first error number of those that it does not tell the place of; 0: there are none. */
      readonly unplaced: number;
      readonly version: string;
    }
  /** What was expected, and what was received. */
  | { readonly kind: "none"; readonly reason: string };

/** @param said what it printed beside its JSON: the blocks that it found other bytes in */
export function decodeFio(order: FioOrder, output: string, said: string): FioAnswer {
  const read = readToolJson(outputSchema, output);
  if (read.kind === "none") return read;
  const told = read.value.jobs;
  const jobs = jobsOf(order);
  const wrong = contradictionOf(order, jobs, told);
  if (wrong !== undefined) return { kind: "none", reason: wrong };
  const version = read.value["fio version"].replace(/^fio-/, "");
  return { kind: "pass", ...summaryOf({ order, jobs, told }, said), version };
}

function contradictionOf(
  { way }: FioOrder,
  jobs: readonly Job[],
  told: readonly ToldJob[],
): string | undefined {
  const [wanted, found] = [jobs, told].map((list) => list.length);
  if (wanted !== found) return `expected ${wanted} jobs, received ${found}`;
  for (const [index, job] of jobs.entries()) {
    const one = told[index];
    if (one === undefined || one.jobname !== job.name) {
      return `expected the job ${job.name}, received ${JSON.stringify(one?.jobname.slice(0, 64))}`;
    }
    if (one[way].io_bytes > job.length) {
      const most = `at most ${job.length} bytes of ${job.name}`;
      return `expected ${most}, received ${one[way].io_bytes}`;
    }
    const other = way === "read" ? "write" : "read";
    if (one[other].io_bytes > 0) return `expected no ${other}, received ${one[other].io_bytes}`;
  }
  return undefined;
}

interface Told {
  readonly order: FioOrder;
  readonly jobs: readonly Job[];
  readonly told: readonly ToldJob[];
}

function summaryOf({ order, jobs, told }: Told, said: string) {
  const ways = told.map((job) => job[order.way]);
  const sum = (numbers: readonly number[]) => numbers.reduce((one, other) => one + other, 0);
  // Of several jobs a percentile of all is at most the greatest of theirs.
  const greatest = (of: (way: (typeof ways)[number]) => number) =>
    Math.max(0, ...ways.map(of)) / 1e6;
  // A percentile is the upper edge of what fio counts together, and may be above the slowest.
  const percentile = (name: keyof typeof percentiles) =>
    greatest(({ lat_ns }) => Math.min(lat_ns.max, lat_ns.percentile[percentiles[name]] ?? 0));
  const places = placesOf(said, jobs);
  const hasOther = told.some(({ first_error }) => first_error === MISCOMPARED);
  const errors = told.map((job) => Math.max(job.total_err, job.error === 0 ? 0 : 1));
  const failures = Math.max(sum(errors), places.length);
  const miscompared = Math.max(places.length, hasOther ? 1 : 0);
  const largest = sum(
    told.map((_, index) => (errors[index] ?? 0) * (jobs[index]?.blockBytes ?? 0)),
  );
  const lost = sum(places.map(({ length }) => length));
  const moved = sum(ways.map(({ io_bytes }) => io_bytes));
  const planned = sum(jobs.map(({ length }) => length));
  const others = told.map(({ first_error, error }) => first_error || error);
  const pass: Pass = {
    planned_bytes: planned,
    // What was read and is wrong is among the bytes that it has moved.
    done_bytes: Math.max(0, moved - (hasOther ? Math.max(lost, order.blockBytes) : lost)),
    duration_ms: moved === 0 ? 0 : Math.max(1, sum(ways.map(({ runtime }) => runtime))),
    slowest_ms: greatest(({ lat_ns }) => lat_ns.max),
    slowest_offset: null,
    latency_ms: {
      p50: percentile("p50"),
      p90: percentile("p90"),
      p99: percentile("p99"),
      p999: percentile("p999"),
    },
    failed: {
      count: failures,
      bytes: Math.min(planned, Math.max(largest, lost)),
      ranges: places.slice(0, diskTaskLimits.ranges),
    },
  };
  const unplaced = others.find((error) => error !== 0 && error !== MISCOMPARED) ?? 0;
  return { pass, miscompared, unplaced };
}

/** Its words for a block that is wrong; offset and length before the bracket are of its header. */
const placePattern = /verify failed at file .* \(requested block: offset=(\d+), length=(\d+)/g;

function placesOf(said: string, jobs: readonly Job[]): FailedRange[] {
  const places = new Map<number, FailedRange>();
  for (const [, offset = "", length = ""] of said.matchAll(placePattern)) {
    const range = { offset: Number(offset), length: Number(length) };
    const isPlanned = jobs.some(
      (job) =>
        range.length > 0 &&
        range.offset >= job.offset &&
        range.offset + range.length <= job.offset + job.length,
    );
    const reason = "holds other bytes than were written";
    if (isPlanned) places.set(range.offset, { ...range, reason });
  }
  return [...places.values()].sort((one, other) => one.offset - other.offset);
}
