import { libc } from "./c-library.ts";
import { F_OFD_SETLK, F_WRLCK, O_CLOEXEC, O_CREAT, O_NOFOLLOW, O_RDWR } from "./constants.ts";
import { layouts } from "./layouts.ts";
import { cString, NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check, Errno, SystemCallError } from "./system-call-error.ts";

const SEEK_SET = 0;

/**
 * Takes the whole of a file for writing, by the lock of an open file description: F_OFD_SETLK of
 * fcntl_locking(2). It lasts until the last descriptor of this opening is closed, in whatever
 * process that is, and whichever process ends before; a server of NFS 4 keeps it for all its
 * clients, which it does not with flock(2) in every kernel. The file is made with mode 0600 when it
 * is not there; "held" when another opening has it.
 * @throws SystemCallError (ELOOP: the path is a symbolic link; ENOLCK: no locks there)
 */
export function lockWhole(path: string): OwnedDescriptor | "held" {
  const name = cString(path);
  const flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
  const file = new OwnedDescriptor(check("open", libc.open(name.address, flags, 0o600), path));
  const result = setLock(file);
  if (result >= 0) return file;
  file.close();
  // POSIX lets a kernel say either.
  if (result === -Errno.EAGAIN || result === -Errno.EACCES) return "held";
  throw new SystemCallError("fcntl", -result, `F_OFD_SETLK ${path}`);
}

/** All bytes that there are and will be: a length of 0. l_pid must be 0 for this command. */
function setLock(file: OwnedDescriptor): number {
  const layout = layouts.flock;
  const lock = new NativeMemory(layout.size);
  lock.view.setInt16(layout.l_type, F_WRLCK, true);
  lock.view.setInt16(layout.l_whence, SEEK_SET, true);
  return attempt(() => libc.fcntl(file.number, F_OFD_SETLK, lock.address));
}
