import { ftruncateSync, readFileSync, writeSync } from "node:fs";
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
