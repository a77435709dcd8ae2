import { readFileSync } from "node:fs";

/** Where this process is in the hierarchy of cgroup v2: cgroups(7). */
export interface OwnCgroup {
  /** Where it is mounted, alone or beside version 1; undefined: nowhere. */
  readonly mount: string | undefined;
  /** From the root of its namespace, as /proc/self/cgroup has it; undefined: in none. */
  readonly own: string | undefined;
}

export function ownCgroup(): OwnCgroup {
  return { mount: findCgroupMount(), own: cgroupPathOf("self") };
}

/** A process's cgroup, as our namespace has it; undefined where it is in none, or gone. */
export function cgroupPathOf(processId: number | "self"): string | undefined {
  return /^0::(.*)$/m.exec(read(`/proc/${processId}/cgroup`))?.[1];
}

/** Once found it stays: each start of a process that is limited asks for it. */
let knownMount: string | undefined;

/** proc_pid_mountinfo(5): the fifth field is the place, and the type follows the "-". */
export function findCgroupMount(): string | undefined {
  if (knownMount !== undefined) return knownMount;
  const lines = read("/proc/self/mountinfo").split("\n");
  const found = lines.find((line) => line.split(" - ")[1]?.startsWith("cgroup2 ") === true);
  knownMount = found?.split(" ")[4];
  return knownMount;
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
