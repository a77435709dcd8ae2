import { type Pointer, read } from "bun:ffi";
import { libc } from "./c-library.ts";
import { Errno } from "./error-numbers.ts";
import { readCString } from "./memory.ts";

export { Errno };

const names = new Map<number, string>();
for (const [name, number] of Object.entries(Errno)) {
  if (!names.has(number)) names.set(number, name);
}

/** The name of an error number, such as "ENOENT"; "E<number>" for one that has no name. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? `E${errno}`;
}

/** What the C library says of an error number: strerror(3). */
export function errnoMessage(errno: number): string {
  const address = libc.strerror(errno) as Pointer | null;
  return address === null ? `error ${errno}` : readCString(address);
}

/** The kernel refused a call that we expected to succeed. */
export class SystemCallError extends Error {
  override readonly name = "SystemCallError";
  readonly call: string;
  readonly errno: number;
  /** The name of the error number: "ENOENT". */
  readonly code: string;

  constructor(call: string, errno: number, subject?: string) {
    const object = subject === undefined ? "" : ` ${subject}`;
    super(`${call}${object}: ${errnoMessage(errno)} (${errnoName(errno)})`);
    this.call = call;
    this.errno = errno;
    this.code = errnoName(errno);
  }
}

// errno is thread-local; a Worker has modules of its own, so this address is its thread's.
const errnoAddress = libc.__errno_location() as Pointer;

/**
 * The error number of the call that was just made on this thread. Read it in the very next
 * statement: nothing promises that it is still there later (a stress test watches this).
 */
export function errorNumber(): number {
  return read.i32(errnoAddress, 0);
}

/**
 * The result of a call that returns -1 and sets errno when it fails.
 * @throws SystemCallError
 */
export function check(call: string, result: number, subject?: string): number {
  if (result === -1) throw new SystemCallError(call, errorNumber(), subject);
  return result;
}

/** The call's result, or minus its error number, as the kernel returns it. EINTR is retried. */
export function attempt(call: () => number): number {
  for (;;) {
    const result = call();
    if (result !== -1) return result;
    const errno = errorNumber();
    if (errno !== Errno.EINTR) return -errno;
  }
}
