import { ftruncateSync, readdirSync, readFileSync, readlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { refusalCode } from "./file-refused.ts";

/** Who holds a lock, as its file says to whoever comes second. The lock holds without it. */

/** Writes this process's number into the file of a lock that it has taken. */
export function tellHolder(lock: { readonly number: number }): void {
  try {
    ftruncateSync(lock.number);
    writeSync(lock.number, `${process.pid}\n`);
  } catch (error) {
    if (refusalCode(error) === undefined) throw error;
  }
}

/** The process that took the lock last, as it says; undefined when it says none. */
export function readHolder(path: string): number | undefined {
  try {
    const number = Number(/^(\d{1,10})\n$/.exec(readFileSync(path, "utf8"))?.[1]);
    return number > 0 ? number : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Whether a process has a file open, as who holds its lock has: for whoever only looks. False as
 * well where that may not be looked into.
 * @param path canonical, as the kernel tells it
 */
export function hasOpen(processId: number, path: string): boolean {
  const folder = `/proc/${processId}/fd`;
  try {
    return readdirSync(folder).some((name) => readlinkSync(join(folder, name)) === path);
  } catch {
    return false;
  }
}
