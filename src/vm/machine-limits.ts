import * as v from "valibot";

/**
 * What a machine's processes may take of the host at most, by cgroup v2
 * (Documentation/admin-guide/cgroup-v2.rst). Pure.
 */

/**
 * What a VMM needs beside its guest's memory, in MiB: less would have the kernel kill it for a
 * guest that uses what it was given.
 */
export const VMM_OVERHEAD_MEBIBYTES = 128;
/** Threads of a VMM beside its processors'. */
const VMM_THREADS = 64;
/** Of time, in which a quota of cpu.max is counted: microseconds, the kernel's own default. */
const QUOTA_PERIOD = 100_000;
/** A weight of cgroup v2: CGROUP_WEIGHT_MIN and CGROUP_WEIGHT_MAX. */
const weight = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(10_000));
const rate = v.pipe(v.number(), v.safeInteger(), v.minValue(1));

export const machineLimitsSchema = v.strictObject({
  /** Its share when processors are short; 100 is everybody's. */
  cpuWeight: v.optional(weight),
  /** Of one processor: 250 is two and a half. */
  cpuMaxPercent: v.optional(
    v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(102_400)),
  ),
  /** MiB of the VMM, its guest's memory included. */
  memoryMaxMb: v.optional(
    v.pipe(v.number(), v.safeInteger(), v.minValue(1 + VMM_OVERHEAD_MEBIBYTES)),
  ),
  ioWeight: v.optional(weight),
  /** Of the block device that its disks are on. */
  ioMax: v.optional(
    v.strictObject({
      readBytesPerSecond: v.optional(rate),
      writeBytesPerSecond: v.optional(rate),
      readsPerSecond: v.optional(rate),
      writesPerSecond: v.optional(rate),
    }),
  ),
  /** Processes and threads. */
  pidsMax: v.optional(
    v.pipe(
      v.number(),
      v.safeInteger(),
      v.minValue(VMM_THREADS, `Expected at least ${VMM_THREADS}: a VMM has threads of its own`),
    ),
  ),
});
export type MachineLimits = v.InferOutput<typeof machineLimitsSchema>;

export type Controller = "cpu" | "io" | "memory" | "pids";
export const controllers: readonly Controller[] = ["cpu", "io", "memory", "pids"];

/** One line for one file of a cgroup. */
export interface LimitLine {
  readonly controller: Controller;
  /** Of the declaration. */
  readonly key: string;
  readonly file: string;
  readonly text: string;
  /** False where it only takes back what stood there before. */
  readonly isDeclared: boolean;
}

/** Why such limits cannot be meant for such a machine; undefined where they can. */
export function refuseLimits(
  limits: MachineLimits,
  machine: { readonly memoryMebibytes: number; readonly processors: number },
): string | undefined {
  const { memoryMaxMb, pidsMax } = limits;
  const leastMemory = machine.memoryMebibytes + VMM_OVERHEAD_MEBIBYTES;
  if (memoryMaxMb !== undefined && memoryMaxMb < leastMemory) {
    return (
      `limits.memoryMaxMb: expected at least ${leastMemory}, which is the guest's ` +
      `${machine.memoryMebibytes} and ${VMM_OVERHEAD_MEBIBYTES} for its VMM, ` +
      `received ${memoryMaxMb}`
    );
  }
  const leastThreads = VMM_THREADS + machine.processors;
  if (pidsMax === undefined || pidsMax >= leastThreads) return undefined;
  return `limits.pidsMax: expected at least ${leastThreads}, received ${pidsMax}`;
}

/**
 * What is written where. What is not declared is written as the kernel has it by default.
 * @param device "8:0", of the disks; undefined where there is none
 */
export function linesOf(limits: MachineLimits, device: string | undefined): LimitLine[] {
  const { cpuWeight, cpuMaxPercent, memoryMaxMb, ioWeight, ioMax, pidsMax } = limits;
  const line = (
    key: keyof MachineLimits,
    file: string,
    value: string | undefined,
    usual: string,
  ): LimitLine => ({
    controller: file.slice(0, file.indexOf(".")) as Controller,
    key: `limits.${key}`,
    file,
    text: value ?? usual,
    isDeclared: value !== undefined,
  });
  const quota = cpuMaxPercent === undefined ? undefined : `${(cpuMaxPercent * QUOTA_PERIOD) / 100}`;
  const bytes = memoryMaxMb === undefined ? undefined : `${memoryMaxMb * 1024 ** 2}`;
  const lines = [
    line("cpuWeight", "cpu.weight", cpuWeight?.toString(), "100"),
    line("cpuMaxPercent", "cpu.max", quota && `${quota} ${QUOTA_PERIOD}`, `max ${QUOTA_PERIOD}`),
    line("memoryMaxMb", "memory.max", bytes, "max"),
    line(
      "ioWeight",
      "io.weight",
      ioWeight === undefined ? undefined : `default ${ioWeight}`,
      "default 100",
    ),
    line("pidsMax", "pids.max", pidsMax?.toString(), "max"),
  ];
  if (device === undefined) return lines;
  const words = (read: MachineLimits["ioMax"]) =>
    [
      `rbps=${read?.readBytesPerSecond ?? "max"}`,
      `wbps=${read?.writeBytesPerSecond ?? "max"}`,
      `riops=${read?.readsPerSecond ?? "max"}`,
      `wiops=${read?.writesPerSecond ?? "max"}`,
    ].join(" ");
  const declared = ioMax && `${device} ${words(ioMax)}`;
  return [...lines, line("ioMax", "io.max", declared, `${device} ${words(undefined)}`)];
}
