import { closeSync, constants, openSync, readdirSync, statSync } from "node:fs";
import { refusalCode } from "../../journal/file-refused.ts";
import { programOf } from "./layout-files.ts";

/**
 * Who of these versions is run by somebody. By the file itself, whatever its name is by now and in
 * whatever mount namespace: proc_pid_exe(5). Where a process may not be looked into, the kernel is
 * asked in another way, and where that says nothing either the version counts as one that runs.
 */
export function runningVersions(folder: string, names: readonly string[]): Set<string> {
  const seen = lookAtProcesses();
  return new Set(names.filter((name) => isRunBy(seen, programOf(folder, name))));
}

/**
 * As `runningVersions`, without this very process. Of the file that it runs itself the kernel
 * cannot be asked in the other way: there what may be looked into counts alone.
 */
export function runByOthers(folder: string, names: readonly string[]): Set<string> {
  const seen = lookAtProcesses(process.pid);
  const own = identityOf("/proc/self/exe");
  return new Set(
    names.filter((name) => {
      const path = programOf(folder, name);
      return identityOf(path) === own ? seen.files.has(own) : isRunBy(seen, path);
    }),
  );
}

/** Whether somebody runs this file now. */
export function isRunning(path: string): boolean {
  return isRunBy(lookAtProcesses(), path);
}

interface Seen {
  /** Device and inode of each file that a process runs. */
  readonly files: ReadonlySet<string>;
  /** Processes that may not be looked into, as some security modules have it even for root. */
  readonly hasHidden: boolean;
}

function isRunBy(seen: Seen, path: string): boolean {
  const file = identityOf(path);
  if (file === "none") return false;
  return seen.files.has(file) || (seen.hasHidden && !isProvenIdle(path));
}

function lookAtProcesses(except?: number): Seen {
  const files = new Set<string>();
  let hasHidden = false;
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === except) continue;
    try {
      // A kernel thread has none, and neither has a process that has ended.
      files.add(identityOf(`/proc/${name}/exe`));
    } catch (error) {
      if (refusalCode(error) === undefined) throw error;
      hasHidden = true;
    }
  }
  return { files, hasHidden };
}

/** Device and inode of a file, whatever it is called by now; "none" where there is none. */
export function identityOf(path: string): string {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ESRCH"].includes(refusalCode(error) ?? "")) return "none";
    throw error;
  }
}

/**
 * A file that runs cannot be opened for writing: open(2), ETXTBSY. Linux 6.11 let it be, so the
 * answer counts only where this kernel refuses it of our own file.
 */
function isProvenIdle(path: string): boolean {
  return openForWriting("/proc/self/exe") === "ETXTBSY" && openForWriting(path) === "opened";
}

/** @returns what the kernel says; nothing is written */
function openForWriting(path: string): string {
  try {
    closeSync(openSync(path, constants.O_WRONLY | constants.O_NONBLOCK));
    return "opened";
  } catch (error) {
    const code = refusalCode(error);
    if (code === undefined) throw error;
    return code;
  }
}
