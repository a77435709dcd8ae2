import { libc } from "./c-library.ts";
import { PRIO_PROCESS, SYS_sched_setscheduler } from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import { attempt } from "./system-call-error.ts";

/** How another thread is scheduled: setpriority(2), sched_setscheduler(2). */

/** Sets the nice value of a thread, -20 to 19: 0, or -errno (ESRCH, EACCES, EPERM). */
export function setThreadNice(thread: number, value: number): number {
  return attempt(() => libc.setpriority(PRIO_PROCESS, thread, value));
}

/**
 * Sets the scheduling class of a thread, and its priority in it: 0, or -errno (ESRCH, EPERM; EINVAL
 * for a priority that its class has not).
 */
export function setThreadPolicy(thread: number, policy: number, priority: number): number {
  const parameter = new NativeMemory(layouts.sched_param.size);
  parameter.view.setInt32(layouts.sched_param.sched_priority, priority, true);
  const number = SYS_sched_setscheduler;
  return attempt(() => libc.syscall(number, thread, policy, parameter.address, 0, 0, 0));
}
