import { libc } from "./c-library.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import { check } from "./system-call-error.ts";

const NANOSECONDS = 1_000_000_000n;

/** When a file was last read and last written, in nanoseconds since 1970. */
export interface FileTimes {
  readonly accessed: bigint;
  readonly modified: bigint;
}

/**
 * Sets the times of an open file, to the nanosecond, which fs.futimes cannot: futimens(3).
 * @throws SystemCallError (EPERM, EROFS)
 */
export function setFileTimes(descriptor: number, { accessed, modified }: FileTimes): void {
  const { size, tv_sec: seconds, tv_nsec: rest } = layouts.timespec;
  const memory = new NativeMemory(size * 2);
  for (const [index, time] of [accessed, modified].entries()) {
    // The nanoseconds count upwards also before 1970.
    const part = ((time % NANOSECONDS) + NANOSECONDS) % NANOSECONDS;
    memory.view.setBigInt64(index * size + seconds, (time - part) / NANOSECONDS, true);
    memory.view.setBigInt64(index * size + rest, part, true);
  }
  check("futimens", libc.futimens(descriptor, memory.address));
}
