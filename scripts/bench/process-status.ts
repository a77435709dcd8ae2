/** What /proc says of the daemons under measurement. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** Kibibytes of /proc/PID/smaps_rollup: proc_pid_smaps(5). */
export interface Memory {
  readonly resident: number;
  readonly proportional: number;
  readonly anonymous: number;
}

/** The memory of several processes together, in kibibytes. */
export function memoryOf(processIds: readonly number[]): Memory {
  let [resident, proportional, anonymous] = [0, 0, 0];
  for (const processId of processIds) {
    const text = readFileSync(`/proc/${processId}/smaps_rollup`, "latin1");
    const field = (name: string) =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
    resident += field("Rss");
    proportional += field("Pss");
    anonymous += field("Anonymous");
  }
  return { resident, proportional, anonymous };
}

/** The children of a process, of all its threads: proc_tid_children(5). */
function childrenOf(processId: number): number[] {
  try {
    return readdirSync(`/proc/${processId}/task`).flatMap((thread) =>
      readFileSync(`/proc/${processId}/task/${thread}/children`, "latin1")
        .split(" ")
        .filter((word) => word !== "")
        .map(Number),
    );
  } catch {
    return [];
  }
}

/** The processes that descend from these and run another file than `exceptFile`; and they. */
export function familyOf(roots: readonly number[], exceptFile: string): number[] {
  const family: number[] = [];
  const waiting = [...roots];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (fileOf(next) === undefined || fileOf(next) === exceptFile) continue;
    family.push(next);
    waiting.push(...childrenOf(next));
  }
  return family;
}

/** The program file that a process runs; undefined when it is gone. */
export function fileOf(processId: number): string | undefined {
  try {
    return readlinkSync(`/proc/${processId}/exe`);
  } catch {
    return undefined;
  }
}

/** SCHED_FIFO, <linux/sched.h>. */
const FIRST_IN_FIRST_OUT = "1";

/**
 * Threads of a runtime for JavaScript that compile and collect beside its work. In a real-time
 * class they would take the processor from the very child that is being started.
 */
const helperNames = /^(JIT|JSC|Heap|mi-|HTTP Client|Bun Pool)/;

/** A thread that takes part in supervision, and whether it is in SCHED_FIFO. */
export interface Thread {
  readonly number: number;
  readonly name: string;
  readonly isRealTime: boolean;
}

/** All threads of a process but its runtime's helpers. */
export function workingThreadsOf(processId: number): Thread[] {
  return readdirSync(`/proc/${processId}/task`)
    .map((number) => {
      const text = readFileSync(`/proc/${processId}/task/${number}/stat`, "latin1");
      const name = text.slice(text.indexOf("(") + 1, text.lastIndexOf(")"));
      // The words after the name begin with field 3; policy is field 41: proc_pid_stat(5).
      const policy = text.slice(text.lastIndexOf(")") + 2).split(" ")[41 - 3];
      return { number: Number(number), name, isRealTime: policy === FIRST_IN_FIRST_OUT };
    })
    .filter(({ name }) => !helperNames.test(name));
}
