import { accessSync, closeSync, constants, openSync, readSync, statSync } from "node:fs";
import { Errno, errnoMessage } from "../../../ffi/system-call-error.ts";
import { refusalCode } from "../../journal/file-refused.ts";

/** Bytes of a file that the kernel looks at: BINPRM_BUF_SIZE of linux/binfmts.h. */
const FIRST_BYTES = 256;

/**
 * What a start was refused for, in words. The kernel gives one error number for the folder, the
 * program and its interpreter; which of them it was is looked at now, where the start was tried.
 */
export function explainRefusal(
  start: {
    /** As the configuration names it. */
    readonly program: string;
    /** The file that was tried. */
    readonly path: string;
    readonly workingDirectory?: string | undefined;
  },
  errno: number,
): string {
  const { program, path, workingDirectory } = start;
  const why = errnoMessage(errno);
  const lookedFor: readonly number[] = [Errno.ENOENT, Errno.ENOTDIR, Errno.EACCES];
  if (!lookedFor.includes(errno)) return `Cannot start ${program}: ${why}`;
  if (workingDirectory !== undefined && !isFolder(workingDirectory)) {
    return `Cannot start ${program}: its working directory ${workingDirectory}: ${why}`;
  }
  const interpreter = errno === Errno.ENOENT ? missingInterpreter(path) : undefined;
  if (interpreter === undefined) return `Cannot start ${program}: ${why}`;
  return `Cannot start ${program}: the file is there, but not ${interpreter}: ${why}`;
}

/** One that cannot be looked at is no reason that we could name. */
function isFolder(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isDirectory();
  } catch (error) {
    return !["ENOENT", "ENOTDIR", "EACCES"].includes(refusalCode(error) ?? "");
  }
}

/** What would run the file, in words; undefined when the file itself is not there. */
function missingInterpreter(path: string): string | undefined {
  const bytes = new Uint8Array(FIRST_BYTES);
  try {
    const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      readSync(file, bytes, 0, bytes.length, 0);
    } finally {
      closeSync(file);
    }
  } catch {
    return undefined;
  }
  const text = new TextDecoder().decode(bytes);
  const interpreter = /^#![ \t]*([^ \t\n\0]+)/.exec(text)?.[1];
  if (interpreter === undefined) return "the loader that it names (its ELF interpreter)";
  return `the interpreter that its first line names, ${JSON.stringify(interpreter)}`;
}
