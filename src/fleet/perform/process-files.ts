import { readFileSync } from "node:fs";
import { refusalCode } from "../../journal/file-refused.ts";

/** What the kernel tells of processes, which end whenever they like. */

/** Undefined for what has ended meanwhile, and for what may not be looked into. */
export function whereItIsThere<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (refusalCode(error) === undefined) throw error;
    return undefined;
  }
}

/**
 * What stands behind the name, which may hold whatever it likes; the state first: proc_pid_stat(5).
 * @throws Error with the code of the system's refusal
 */
export function statOf(process: number | string): readonly string[] {
  const text = readFileSync(`/proc/${process}/stat`, "latin1");
  return text.slice(text.lastIndexOf(")") + 2).split(" ");
}
