import { libc } from "./c-library.ts";
import { LOCK_EX, LOCK_NB, O_CLOEXEC, O_CREAT, O_NOFOLLOW, O_RDWR } from "./constants.ts";
import { cString } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check, Errno, SystemCallError } from "./system-call-error.ts";

/**
 * Takes the lock on a file, which is made with mode 0600 when it is not there: flock(2). The lock
 * lasts until the descriptor is closed, also by the end of this process; "held" when somebody
 * else has it.
 * @throws SystemCallError (ELOOP: the path is a symbolic link)
 */
export function lockFile(path: string): OwnedDescriptor | "held" {
  const name = cString(path);
  const flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  const file = new OwnedDescriptor(check("open", libc.open(name.address, flags, 0o600), path));
  try {
    if (tryLock(file)) return file;
  } catch (error) {
    file.close();
    throw error;
  }
  file.close();
  return "held";
}

/**
 * Takes the lock on an open file or folder: flock(2). It lasts as `lockFile` says.
 * @returns false when somebody else has it
 * @throws SystemCallError
 */
export function tryLock(file: OwnedDescriptor): boolean {
  const result = attempt(() => libc.flock(file.number, LOCK_EX | LOCK_NB));
  if (result >= 0) return true;
  if (result === -Errno.EWOULDBLOCK) return false;
  throw new SystemCallError("flock", -result);
}
