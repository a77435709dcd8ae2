import type { Pointer } from "bun:ffi";
import { libc } from "./c-library.ts";
import { FICLONE } from "./constants.ts";
import { attempt, Errno, SystemCallError } from "./system-call-error.ts";

/** What a file system says that cannot share these bytes: ioctl_ficlone(2). */
const cannot: readonly number[] = [
  Errno.EOPNOTSUPP,
  Errno.ENOTTY,
  Errno.EXDEV,
  Errno.EINVAL,
  Errno.EPERM,
  Errno.EACCES,
  Errno.ETXTBSY,
];

/**
 * Makes a file share all bytes of another one, until either is written to: ioctl_ficlone(2).
 * @returns false where the file systems cannot
 * @throws SystemCallError (ENOSPC, EDQUOT, EIO)
 */
export function cloneFile(target: number, source: number): boolean {
  // The argument is a descriptor, in the place of an address.
  const argument = source as unknown as Pointer;
  const result = attempt(() => libc.ioctl(target, FICLONE, argument));
  if (result >= 0) return true;
  if (cannot.includes(-result)) return false;
  throw new SystemCallError("FICLONE", -result);
}
