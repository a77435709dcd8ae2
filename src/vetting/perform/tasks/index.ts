import type { Task } from "../task.ts";

/** Tasks by their names, each imported when it is asked for. */
export type TaskRegistry = Readonly<Record<string, () => Promise<Task>>>;

export const tasks: TaskRegistry = {
  cpu: async () => (await import("./cpu.ts")).cpuTask,
  memory: async () => (await import("./memory.ts")).memoryTask,
  link: async () => (await import("./link.ts")).linkTask,
  /** Of an orchestrator: the other end of a link's test. */
  throughput: async () => (await import("./throughput.ts")).throughputTask,
  scan: async () => (await import("./scan.ts")).scanTask,
  verify: async () => (await import("./verify.ts")).verifyTask,
  crashes: async () => (await import("./crashes.ts")).crashesTask,
  gpu: async () => (await import("./gpu.ts")).gpuTask,
  inventory: async () => (await import("./inventory.ts")).inventoryTask,
  psu: async () => (await import("./psu.ts")).psuTask,
  sample: async () => (await import("./sample.ts")).sampleTask,
};
