import { readFileSync } from "node:fs";

/** Where this process is in the hierarchy of cgroup v2: cgroups(7). */
export interface OwnCgroup {
  /** Where it is mounted, alone or beside version 1; undefined: nowhere. */
  readonly mount: string | undefined;
  /** From the root of its namespace, as /proc/self/cgroup has it; undefined: in none. */
  readonly own: string | undefined;
}

export function ownCgroup(): OwnCgroup {
  return {
    mount: findCgroupMount(),
    own: /^0::(.*)$/m.exec(read("/proc/self/cgroup"))?.[1],
  };
}

/** proc_pid_mountinfo(5): the fifth field is the place, and the type follows the "-". */
export function findCgroupMount(): string | undefined {
  const lines = read("/proc/self/mountinfo").split("\n");
  const found = lines.find((line) => line.split(" - ")[1]?.startsWith("cgroup2 ") === true);
  return found?.split(" ")[4];
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
