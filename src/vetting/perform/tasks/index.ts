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
};
