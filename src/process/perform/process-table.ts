import { readdirSync, readFileSync } from "node:fs";

/** What /proc says of a process: proc_pid_stat(5). */
export interface ProcessStatus {
  readonly processId: number;
  readonly parentId: number;
  readonly group: number;
  readonly session: number;
  /** One letter; Z and X are dead. */
  readonly state: string;
  /** Clock ticks since boot: with the number and the boot id, who a process is. */
  readonly startTicks: number;
}

/** The status of one process; undefined when it is gone. */
export function statusOf(processId: number): ProcessStatus | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${processId}/stat`, "latin1");
  } catch {
    return undefined;
  }
  // The name stands in parentheses and may hold anything, parentheses and spaces included.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return {
    processId,
    state: fields[0] ?? "X",
    parentId: Number(fields[1]),
    group: Number(fields[2]),
    session: Number(fields[3]),
    startTicks: Number(fields[19]),
  };
}

const isAlive = (status: ProcessStatus) => status.state !== "Z" && status.state !== "X";

/** False for one that is gone, or waits to be reaped. */
export function isLivingProcess(processId: number): boolean {
  const status = statusOf(processId);
  return status !== undefined && isAlive(status);
}

/** Of one whose environment is empty: it may be in the middle of its exec. */
export function hasNoEnvironmentYet(processId: number): boolean {
  const status = statusOf(processId);
  if (status === undefined || !isAlive(status)) return false;
  // Kernel threads have no environment either; all of them descend from process 2.
  return status.parentId !== 2 && processId !== 2;
}

/** The numbers of all processes that /proc shows. */
export function allProcesses(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

/** The living processes of a process group, as our PID namespace numbers them. */
export function livingGroupMembers(group: number): number[] {
  return allProcesses().filter((processId) => {
    const status = statusOf(processId);
    return status !== undefined && status.group === group && isAlive(status);
  });
}

/** What a search for an invocation found. */
export interface InvocationSearch {
  /** Living processes whose environment carries the id, the oldest first. */
  readonly found: readonly ProcessStatus[];
  /** Living processes that have no environment yet, as one in the middle of exec. */
  readonly unreadable: readonly number[];
}

/** Looks through /proc for living processes whose environment holds INVOCATION_ID=<id>. */
export function findInvocation(invocation: string): InvocationSearch {
  const { found, unreadable } = findInvocations([invocation]);
  return { found: found.get(invocation) ?? [], unreadable };
}

/** As `findInvocation`, for several in one go; those of which nothing is found are left out. */
export function findInvocations(invocations: readonly string[]): {
  readonly found: ReadonlyMap<string, readonly ProcessStatus[]>;
  readonly unreadable: readonly number[];
} {
  const wanted = new Map(invocations.map((id) => [`INVOCATION_ID=${id}`, id]));
  const found = new Map<string, ProcessStatus[]>();
  const unreadable: number[] = [];
  for (const processId of allProcesses()) {
    let environment: string;
    try {
      environment = readFileSync(`/proc/${processId}/environ`, "latin1");
    } catch {
      continue;
    }
    const status = statusOf(processId);
    if (status === undefined || !isAlive(status)) continue;
    // Kernel threads have no environment either; all of them descend from process 2.
    if (environment === "" && status.parentId !== 2 && processId !== 2) unreadable.push(processId);
    for (const variable of environment.split("\0")) {
      const id = wanted.get(variable);
      if (id !== undefined) found.set(id, [...(found.get(id) ?? []), status]);
    }
  }
  for (const list of found.values()) list.sort((one, other) => one.startTicks - other.startTicks);
  return { found, unreadable };
}

/** The id of this boot: random(4), /proc/sys/kernel/random/boot_id. */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
}

/** What /proc/self/fdinfo says of one of our descriptors: proc_pid_fdinfo(5). */
export function descriptorInformation(descriptor: number): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  const text = readFileSync(`/proc/self/fdinfo/${descriptor}`, "latin1");
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  return fields;
}

/** The process that a thread number belongs to; undefined when it is gone. */
export function threadGroupOf(threadId: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${threadId}/status`, "latin1");
    const match = /^Tgid:\s*(\d+)/m.exec(text);
    return match === null ? undefined : Number(match[1]);
  } catch {
    return undefined;
  }
}
