import { readdirSync, readFileSync } from "node:fs";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { openProcess, signalProcess, waitForChild } from "../../../ffi/pidfd.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { Signal } from "../../units/signals.ts";
import { SUPERVISOR_VARIABLE } from "../protocol-supervise.ts";

/**
 * Reaps what has become our child because its parent ended: the duty of a first process. Our own
 * children are left to whoever started them.
 * @param own process numbers of these
 * @returns how many
 */
export function reapOrphans(own: ReadonlySet<number>): number {
  let count = 0;
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name) || own.has(Number(name)) || !isDeadChild(name)) continue;
    using orphan = openProcess(Number(name));
    if (orphan === undefined) continue;
    const ending = waitForChild(orphan, "reap");
    if (ending !== undefined && ending !== "not-a-child") count += 1;
  }
  return count;
}

/** State Z, and we are its parent: proc_pid_stat(5). */
function isDeadChild(name: string): boolean {
  try {
    const text = readFileSync(`/proc/${name}/stat`, "latin1");
    const [state, parent] = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return state === "Z" && Number(parent) === process.pid;
  } catch {
    return false;
  }
}

/**
 * Ends what a supervisor that was killed has left: there would be two agents. Known by the variable
 * that its children have, which names its control socket.
 * @returns how many, when they are gone
 */
export async function endLeftovers(loop: EventLoop, controlSocket: string): Promise<number> {
  const mark = `${SUPERVISOR_VARIABLE}=${controlSocket}`;
  const ends: Promise<void>[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    // Opened first: what is said of the number is then said of this process, or of a dead one.
    const left = openProcess(Number(name));
    if (left !== undefined && variablesOf(name).includes(mark)) ends.push(end(loop, left));
    else left?.close();
  }
  await Promise.all(ends);
  return ends.length;
}

function end(loop: EventLoop, left: OwnedDescriptor): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const watch = loop.watch(left, "readable", () => {
    watch[Symbol.dispose]();
    left.close();
    resolve();
  });
  signalProcess(left, Signal.SIGKILL);
  return promise;
}

/** Those that it was started with: proc_pid_environ(5). */
function variablesOf(name: string): string[] {
  try {
    return readFileSync(`/proc/${name}/environ`, "latin1").split("\0");
  } catch {
    return [];
  }
}
