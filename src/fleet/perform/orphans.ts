import { readdirSync, readFileSync } from "node:fs";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { openProcess, signalProcess, waitForChild } from "../../../ffi/pidfd.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { Signal } from "../../units/signals.ts";
import { FOLDER_VARIABLE, SUPERVISOR_VARIABLE } from "../protocol-supervise.ts";
import { statOf, whereItIsThere } from "./process-files.ts";
import { identityOf } from "./running-programs.ts";

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
  const [state, parent] = whereItIsThere(() => statOf(name)) ?? [];
  return state === "Z" && Number(parent) === process.pid;
}

/**
 * Ends what a supervisor that was killed has left of this installation: there would be two agents.
 * Whoever calls has the installation's lock of supervision, so that no other supervisor lives. A
 * child of one has a variable that names its folder; it is ours where that leads to this very
 * folder, by device and inode: a container that is seen from outside has its own by the same name.
 * @param folder of the installation
 * @returns how many, when they are gone
 */
export async function endLeftovers(loop: EventLoop, folder: string): Promise<number> {
  const own = identityOf(folder);
  const ends: Promise<void>[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    // Opened first: what is said of the number is then said of this process, or of a dead one.
    const left = openProcess(Number(name));
    const theirs = left === undefined ? undefined : supervisedFolder(name);
    const place = `/proc/${name}/root${theirs}`;
    const isOurs = theirs !== undefined && whereItIsThere(() => identityOf(place)) === own;
    if (left !== undefined && isOurs) ends.push(end(loop, left));
    else left?.close();
  }
  await Promise.all(ends);
  return ends.length;
}

/** The folder of the installation whose supervisor has started it; undefined: none has. */
function supervisedFolder(name: string): string | undefined {
  const said = (variable: string) =>
    partsOf(name, "environ")
      .find((part) => part.startsWith(`${variable}=`))
      ?.slice(variable.length + 1);
  const folder = said(FOLDER_VARIABLE);
  if (folder !== undefined || said(SUPERVISOR_VARIABLE) === undefined) return folder;
  // A former version's supervisor tells its children the folder in words alone.
  const words = partsOf(name, "cmdline");
  const at = words.indexOf("--folder");
  return at === -1 ? undefined : words[at + 1];
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

/** What it was started with: proc_pid_environ(5), proc_pid_cmdline(5). */
function partsOf(name: string, file: "environ" | "cmdline"): string[] {
  const read = () => readFileSync(`/proc/${name}/${file}`, "latin1").split("\0");
  return whereItIsThere(read) ?? [];
}
