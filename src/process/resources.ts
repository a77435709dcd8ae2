import type { Bytes } from "../units/units.ts";

/**
 * What a process and all that it starts may take of the host, by cgroup v2
 * (Documentation/admin-guide/cgroup-v2.rst of the kernel). Pure.
 */

export type Controller = "cpu" | "io" | "memory" | "pids";

export interface Resources {
  /** Over which somebody of it is killed. */
  readonly memoryMax?: Bytes | "max";
  /** Over which it is slowed down, and has to give memory back. */
  readonly memoryHigh?: Bytes | "max";
  /** Processors: 1.5 is one and a half. */
  readonly cpuMax?: number | "max";
  /** 1 to 10,000: its share where processors are short; 100 is everybody's. */
  readonly cpuWeight?: number;
  /** Processes and threads. */
  readonly pidsMax?: number | "max";
  /** As cpuWeight, of disks. */
  readonly ioWeight?: number;
}
export type Resource = keyof Resources;

/** Of time, in which a quota of cpu.max is counted: microseconds, the kernel's own. */
const QUOTA_PERIOD = 100_000;
/** The least quota that the kernel takes: microseconds. */
export const LEAST_QUOTA = 1_000;
export const leastProcessors: number = LEAST_QUOTA / QUOTA_PERIOD;

/** One file of a cgroup, and what is to stand in it. */
export interface ResourceLine {
  readonly resource: Resource;
  /** As the configuration has it. */
  readonly key: string;
  readonly controller: Controller;
  readonly file: string;
  /** As it is written, and as the kernel tells it. */
  readonly text: string;
  readonly isDeclared: boolean;
}

interface Rule {
  readonly key: string;
  readonly controller: Controller;
  readonly file: string;
  /** What a cgroup has that nobody has told otherwise. */
  readonly usual: string;
  readonly text: (amount: number | "max") => string;
}

const plain = (amount: number | "max") => String(amount);

const rules: Readonly<Record<Resource, Rule>> = {
  memoryMax: {
    ...{ key: "memory_max", controller: "memory", file: "memory.max", usual: "max" },
    text: plain,
  },
  memoryHigh: {
    ...{ key: "memory_high", controller: "memory", file: "memory.high", usual: "max" },
    text: plain,
  },
  cpuMax: {
    ...{ key: "cpu_max", controller: "cpu", file: "cpu.max", usual: `max ${QUOTA_PERIOD}` },
    text: (amount) =>
      `${amount === "max" ? amount : Math.round(amount * QUOTA_PERIOD)} ${QUOTA_PERIOD}`,
  },
  cpuWeight: {
    ...{ key: "cpu_weight", controller: "cpu", file: "cpu.weight", usual: "100" },
    text: plain,
  },
  pidsMax: {
    ...{ key: "pids_max", controller: "pids", file: "pids.max", usual: "max" },
    text: plain,
  },
  ioWeight: {
    ...{ key: "io_weight", controller: "io", file: "io.weight", usual: "default 100" },
    text: (amount) => `default ${amount}`,
  },
};

export const resourceNames = Object.keys(rules) as readonly Resource[];
export const keyOfResource = (resource: Resource): string => rules[resource].key;

/** All files, in the order of writing; what is not declared is as the kernel has it. */
export function linesOf(resources: Resources): readonly ResourceLine[] {
  return resourceNames.map((resource) => {
    const { key, controller, file, usual, text } = rules[resource];
    const amount = resources[resource];
    const isDeclared = amount !== undefined;
    return {
      ...{ resource, key, controller, file, isDeclared },
      text: isDeclared ? text(amount) : usual,
    };
  });
}
