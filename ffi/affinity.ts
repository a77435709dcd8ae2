import { libc } from "./c-library.ts";
import { NativeMemory } from "./memory.ts";
import { attempt, Errno, SystemCallError } from "./system-call-error.ts";

/** Which processors a thread runs on: sched_setaffinity(2), getcpu(2). */

/** Processors that a kernel may have at most, CONFIG_NR_CPUS: 8192 on x86-64 and less elsewhere. */
export const MOST_PROCESSORS = 8192;

/**
 * Ties this thread to some processors, by the kernel's numbers; other threads of the process stay
 * where they are. false when none of them is online, or a cgroup keeps us away from them (EINVAL).
 */
export function tieThread(processors: readonly number[]): boolean {
  const thisThread = 0;
  const result = tieOtherThread(thisThread, processors);
  if (result === -Errno.EINVAL) return false;
  if (result < 0) throw new SystemCallError("sched_setaffinity", -result, processors.join(" "));
  return true;
}

/** Ties a thread to some processors: 0, or -errno (ESRCH, EPERM, EINVAL as above). */
export function tieOtherThread(thread: number, processors: readonly number[]): number {
  const set = new NativeMemory(MOST_PROCESSORS / 8);
  for (const processor of processors) {
    if (!Number.isSafeInteger(processor) || processor < 0 || processor >= MOST_PROCESSORS) {
      throw new RangeError(`Expected a processor below ${MOST_PROCESSORS}, received ${processor}`);
    }
    const at = processor >> 3;
    set.bytes[at] = (set.bytes[at] ?? 0) | (1 << (processor & 7));
  }
  return attempt(() => libc.sched_setaffinity(thread, set.size, set.address));
}

/** The processor that this thread runs on now: sched_getcpu(3). */
export function currentProcessor(): number {
  return libc.sched_getcpu();
}
