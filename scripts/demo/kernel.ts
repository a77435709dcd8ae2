/** What this machine's kernel can say, and what it says of processes. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { openProcess, processInformation } from "../../ffi/pidfd.ts";
import { NotSeen } from "./deadline.ts";

/**
 * Tries whether the kernel tells somebody who is not the parent how a process ended
 * (PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15).
 */
export async function kernelTellsEndings(): Promise<boolean> {
  const child = Bun.spawn(["sleep", "infinity"], { stdio: ["ignore", "ignore", "ignore"] });
  using process = openProcess(child.pid);
  child.kill("SIGKILL");
  await child.exited;
  if (process === undefined) return false;
  const information = processInformation(process);
  return typeof information === "object" && information.ending !== undefined;
}

const namespaces = ["pid", "mnt", "net", "ipc"] as const;

/** @returns the namespaces of a process that are not our own */
export function foreignNamespaces(processId: number): string[] {
  return namespaces.filter(
    (name) =>
      readlinkSync(`/proc/${processId}/ns/${name}`) !== readlinkSync(`/proc/self/ns/${name}`),
  );
}

/** @returns the number of a process in its own, innermost PID namespace */
export function innerNumber(processId: number): number {
  const status = readFileSync(`/proc/${processId}/status`, "latin1");
  const numbers = /^NSpid:\s*(.*)$/m.exec(status)?.[1]?.split(/\s+/) ?? [];
  return Number(numbers.at(-1));
}

/** @returns true when two processes are in the same PID namespace */
export function shareProcessNamespace(first: number, second: number): boolean {
  return readlinkSync(`/proc/${first}/ns/pid`) === readlinkSync(`/proc/${second}/ns/pid`);
}

/** All that are in the same namespace, as this one's /proc numbers them. */
export function processesWith(namespace: (typeof namespaces)[number], processId: number): number[] {
  const wanted = readlinkSync(`/proc/${processId}/ns/${namespace}`);
  const numbers = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return numbers.map(Number).filter((one) => namespaceOf(one, namespace) === wanted);
}

function namespaceOf(processId: number, namespace: string): string | undefined {
  try {
    return readlinkSync(`/proc/${processId}/ns/${namespace}`);
  } catch {
    return undefined;
  }
}

/** unshare and nsenter fork once into a PID namespace: that child is the one of interest. */
export function onlyChildOf(parent: number): number {
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    if (parentOf(Number(name)) === parent) return Number(name);
  }
  throw new NotSeen(`Process ${parent} has no child`);
}

/** Its parent, from proc_pid_stat(5), whose second field may hold anything in parentheses. */
function parentOf(processId: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${processId}/stat`, "latin1");
    return Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[1]);
  } catch {
    return undefined;
  }
}

/** A zombie is dead: proc_pid_stat(5). */
export function isAlive(processId: number): boolean {
  try {
    return !/^State:\s*[ZX]/m.test(readFileSync(`/proc/${processId}/status`, "latin1"));
  } catch {
    return false;
  }
}
