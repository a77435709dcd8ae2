import { libc } from "./c-library.ts";
import { SEEK_DATA, SEEK_HOLE } from "./constants.ts";
import { attempt, check, Errno, SystemCallError } from "./system-call-error.ts";

/**
 * The next part of a file that has data, from an offset on: lseek(2). A file system that knows no
 * holes says that all of it is data. The file's own offset is moved.
 * @returns undefined when there is none up to its end
 */
export function nextData(
  descriptor: number,
  offset: number,
): { readonly begin: number; readonly end: number } | undefined {
  const begin = attempt(() => libc.lseek(descriptor, offset, SEEK_DATA));
  if (begin === -Errno.ENXIO) return undefined;
  if (begin < 0) throw new SystemCallError("lseek", -begin, "SEEK_DATA");
  const end = check("lseek", libc.lseek(descriptor, begin, SEEK_HOLE), "SEEK_HOLE");
  return { begin, end };
}
