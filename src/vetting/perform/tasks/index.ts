import type { Task } from "../task.ts";

/** Tasks by their names, each imported when it is asked for. */
export type TaskRegistry = Readonly<Record<string, () => Promise<Task>>>;

export const tasks: TaskRegistry = {
  identity: async () => (await import("./identity.ts")).identityTask,
  inventory: async () => (await import("./inventory.ts")).inventoryTask,
  sample: async () => (await import("./sample.ts")).sampleTask,
  cpu: async () => (await import("./cpu.ts")).cpuTask,
  memory: async () => (await import("./memory.ts")).memoryTask,
  link: async () => (await import("./link.ts")).linkTask,
  pairs: async () => (await import("./pairs.ts")).pairsTask,
  gpu: async () => (await import("./gpu.ts")).gpuTask,
  psu: async () => (await import("./psu.ts")).psuTask,
  sync: async () => (await import("./sync.ts")).syncTask,
  /** Of an orchestrator: the other end of a link's test. */
  throughput: async () => (await import("./throughput.ts")).throughputTask,
  smart: async () => (await import("./smart.ts")).smartTask,
  scan: async () => (await import("./scan.ts")).scanTask,
  verify: async () => (await import("./verify.ts")).verifyTask,
  crashes: async () => (await import("./crashes.ts")).crashesTask,
};
