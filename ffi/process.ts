import { libc } from "./c-library.ts";
import {
  CLOCK_BOOTTIME,
  CLOCK_MONOTONIC,
  CLOCK_REALTIME,
  CLOCK_THREAD_CPUTIME_ID,
  PR_CAP_AMBIENT,
  PR_CAP_AMBIENT_CLEAR_ALL,
  PR_CAP_AMBIENT_RAISE,
  PR_CAPBSET_DROP,
  PR_SET_KEEPCAPS,
  PR_SET_NO_NEW_PRIVS,
  PR_SET_PDEATHSIG,
  PRIO_PROCESS,
  RLIMIT_NOFILE,
  SCHED_OTHER,
  SIG_SETMASK,
  SYS_rt_sigaction,
  SYS_sched_setscheduler,
  SYS_setgroups,
  SYS_setresgid,
  SYS_setresuid,
} from "./constants.ts";
import { layouts } from "./layouts.ts";
import { cString, NativeMemory, nullAddress, StringVector } from "./memory.ts";
import { attempt, check, Errno, errorNumber, SystemCallError } from "./system-call-error.ts";

/** <signal.h>: the real-time signals end here. */
const LAST_SIGNAL = 64;

/** A soft and a hard limit; Infinity is RLIM_INFINITY. */
export interface ResourceLimit {
  readonly soft: number;
  readonly hard: number;
}

const rlimit = new NativeMemory(layouts.rlimit.size);
const formerLimit = new NativeMemory(layouts.rlimit.size);

function limitIn({ view }: NativeMemory): ResourceLimit {
  const read = (offset: number) => {
    const value = view.getBigUint64(offset, true);
    return value === 0xffff_ffff_ffff_ffffn ? Number.POSITIVE_INFINITY : Number(value);
  };
  return { soft: read(layouts.rlimit.rlim_cur), hard: read(layouts.rlimit.rlim_max) };
}

/** What the next call sets. */
function putLimit({ soft, hard }: ResourceLimit): void {
  const write = (offset: number, value: number) => {
    const infinite = value === Number.POSITIVE_INFINITY;
    rlimit.view.setBigUint64(offset, infinite ? 0xffff_ffff_ffff_ffffn : BigInt(value), true);
  };
  write(layouts.rlimit.rlim_cur, soft);
  write(layouts.rlimit.rlim_max, hard);
}

/**
 * A resource limit of a process (0: our own), by its number: prlimit(2). Undefined when the
 * process is gone (ESRCH) or not ours to ask (EPERM).
 */
export function resourceLimit(processId: number, resource: number): ResourceLimit | undefined {
  const result = attempt(() => libc.prlimit(processId, resource, nullAddress, rlimit.address));
  if (result === -Errno.ESRCH || result === -Errno.EPERM) return undefined;
  if (result < 0) throw new SystemCallError("prlimit", -result);
  return limitIn(rlimit);
}

/** Sets a resource limit of our own: prlimit(2). */
export function setResourceLimit(resource: number, limit: ResourceLimit): void {
  putLimit(limit);
  check("prlimit", libc.prlimit(0, resource, rlimit.address, nullAddress));
}

/**
 * Sets a resource limit of another process, by its number: the one that it had, or -errno (ESRCH;
 * EPERM for a hard limit above the one it has, without CAP_SYS_RESOURCE, and for a process that is
 * not ours to change): prlimit(2).
 */
export function setLimitOf(
  processId: number,
  resource: number,
  limit: ResourceLimit,
): ResourceLimit | number {
  putLimit(limit);
  const { address } = rlimit;
  const result = attempt(() => libc.prlimit(processId, resource, address, formerLimit.address));
  return result < 0 ? result : limitIn(formerLimit);
}

/** The limit on open descriptors, of a process (0: our own). */
export function descriptorLimit(processId = 0): ResourceLimit | undefined {
  return resourceLimit(processId, RLIMIT_NOFILE);
}

/** Sets our own limit on open descriptors. */
export function setDescriptorLimit(limit: ResourceLimit): void {
  setResourceLimit(RLIMIT_NOFILE, limit);
}

/** The nice value of this thread: getpriority(2), -20 to 19. */
export function niceValue(): number {
  // The C library returns the value itself, so -1 may be a value; root cannot be refused here.
  return libc.getpriority(PRIO_PROCESS, 0);
}

/** Sets the nice value of this thread; false when we may not (EACCES, EPERM): setpriority(2). */
export function setNiceValue(value: number): boolean {
  const result = attempt(() => libc.setpriority(PRIO_PROCESS, 0, value));
  if (result === -Errno.EACCES || result === -Errno.EPERM) return false;
  if (result < 0) throw new SystemCallError("setpriority", -result);
  return true;
}

/**
 * kill(2): "sent"; "gone" (ESRCH); "refused" (EPERM). A negative number is a process group;
 * signal 0 asks whether anybody is there.
 */
export function kill(processId: number, signal: number): "sent" | "gone" | "refused" {
  const result = attempt(() => libc.kill(processId, signal));
  if (result >= 0) return "sent";
  if (result === -Errno.ESRCH) return "gone";
  if (result === -Errno.EPERM) return "refused";
  throw new SystemCallError("kill", -result, `of ${processId}`);
}

const timespec = new NativeMemory(layouts.timespec.size);

/** CLOCK_MONOTONIC in nanoseconds: clock_gettime(2). Exact for 104 days of uptime. */
export function monotonicNanoseconds(): number {
  return nanosecondsOf(CLOCK_MONOTONIC);
}

/** What this thread has had of a processor, in nanoseconds: clock_gettime(2). */
export function threadNanoseconds(): number {
  return nanosecondsOf(CLOCK_THREAD_CPUTIME_ID);
}

/** CLOCK_BOOTTIME in nanoseconds: it goes on while the host is suspended. */
export function bootNanoseconds(): number {
  return nanosecondsOf(CLOCK_BOOTTIME);
}

/** CLOCK_REALTIME in nanoseconds since 1970, exact to a quarter of a microsecond. */
export function realtimeNanoseconds(): number {
  return nanosecondsOf(CLOCK_REALTIME);
}

function nanosecondsOf(clock: number): number {
  libc.clock_gettime(clock, timespec.address);
  const seconds = timespec.getUnsigned64(layouts.timespec.tv_sec);
  return seconds * 1_000_000_000 + timespec.getUnsigned64(layouts.timespec.tv_nsec);
}

/** rt_sigaction(2) itself: the C libraries keep their own signals back, and musl ignores one. */
function signalAction(signal: number, set: number, get: number): void {
  const SIGNAL_SET_SIZE = 8;
  check("rt_sigaction", libc.syscall(SYS_rt_sigaction, signal, set, get, SIGNAL_SET_SIZE, 0, 0));
}

/** Has this thread hold back these signals and no others: pthread_sigmask(3). */
export function holdBackSignals(signals: readonly number[]): void {
  const set = new NativeMemory(layouts.sigset_t.size);
  libc.sigemptyset(set.address);
  // <bits/types/__sigset_t.h>: one bit for each signal, the first of them being 1.
  for (const signal of signals) {
    const at = (signal - 1) >> 3;
    set.bytes[at] = (set.bytes[at] ?? 0) | (1 << ((signal - 1) & 7));
  }
  libc.pthread_sigmask(SIG_SETMASK, set.address, nullAddress);
}

/**
 * Before execute(): ignored signals get their default action, and this thread lets all through but
 * those that are held back for the next program: they stay pending. Handlers stay, because Bun
 * stops its threads by some; execve(2) ends them by itself.
 * @returns has the signals ignored again, and lets all through: execute() was refused
 */
export function resetSignals(heldBack: readonly number[] = []): () => void {
  const SIG_IGN = 1;
  const current = new NativeMemory(layouts.kernel_sigaction.size);
  // All zero: SIG_DFL without flags.
  const usual = new NativeMemory(layouts.kernel_sigaction.size);
  const before = new Map<number, NativeMemory>();
  for (let signal = 1; signal <= LAST_SIGNAL; signal++) {
    signalAction(signal, 0, current.address);
    const handler = current.getUnsigned64(layouts.kernel_sigaction.handler);
    if (handler !== SIG_IGN) continue;
    const kept = new NativeMemory(layouts.kernel_sigaction.size);
    kept.bytes.set(current.bytes);
    before.set(signal, kept);
    signalAction(signal, usual.address, 0);
  }
  holdBackSignals(heldBack);
  return () => {
    for (const [signal, action] of before) signalAction(signal, action.address, 0);
    holdBackSignals([]);
  };
}

/**
 * Sets supplementary groups, then the group, then the user, all three ids of each, of this thread
 * alone: setresuid(2). An exec that follows has them, and ends all other threads. The C library's
 * own functions, which give them to every thread, wait until each has run: milliseconds where
 * processors are busy.
 */
export function becomeUser(identity: { user: number; group: number; groups: readonly number[] }) {
  const { user, group, groups } = identity;
  const list = new NativeMemory(groups.length * 4);
  groups.forEach((one, index) => {
    list.view.setUint32(index * 4, one, true);
  });
  const three = (call: number, id: number) => libc.syscall(call, id, id, id, 0, 0, 0);
  check("setgroups", libc.syscall(SYS_setgroups, groups.length, list.address, 0, 0, 0, 0));
  check("setresgid", three(SYS_setresgid, group));
  check("setresuid", three(SYS_setresuid, user));
}

/**
 * The kernel sends this process the signal when the thread that started it ends; kept over an exec,
 * and not inherited: prctl(2), PR_SET_PDEATHSIG. A parent that is gone already sends none.
 */
export function endWithParent(signal: number): void {
  check("prctl", libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0), "PR_SET_PDEATHSIG");
}

/** No exec may give this process more than it has: prctl(2), PR_SET_NO_NEW_PRIVS. */
export function forbidNewPrivileges(): void {
  check("prctl", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
}

/** Takes a capability, by its number, out of the bounding set: capabilities(7). */
export function dropBoundingCapability(capability: number): void {
  check("prctl", libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), `drop ${capability}`);
}

/**
 * Keeps this thread's permitted capabilities when its user changes from root to another, who
 * gets them as effective only by setCapabilities(): prctl(2), PR_SET_KEEPCAPS. Ends with an exec.
 */
export function keepCapabilities(): void {
  check("prctl", libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "PR_SET_KEEPCAPS");
}

/** Adds a capability, by its number, to the ambient set: capabilities(7). @throws EPERM */
export function raiseAmbientCapability(capability: number): void {
  const result = libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
  check("prctl", result, `ambient raise ${capability}`);
}

/** Empties the ambient set: capabilities(7). */
export function clearAmbientCapabilities(): void {
  check("prctl", libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient clear");
}

/** Sets the file mode creation mask, and gives the one before: umask(2). */
export function setFileModeMask(mask: number): number {
  return libc.umask(mask);
}

/** Changes the working directory: chdir(2). */
export function changeDirectory(path: string): void {
  const name = cString(path);
  check("chdir", libc.chdir(name.address), path);
}

/** Replaces this process by another program: execve(2). Returns the error number; else never. */
export function execute(path: string, argv: readonly string[], environment: readonly string[]) {
  const name = cString(path);
  const args = new StringVector(argv);
  const variables = new StringVector(environment);
  libc.execve(name.address, args.address, variables.address);
  return errorNumber();
}

/** Puts this thread in the ordinary scheduling class: sched_setscheduler(2). musl has no such. */
export function scheduleOrdinarily(): void {
  const parameter = new NativeMemory(layouts.sched_param.size);
  check(
    "sched_setscheduler",
    libc.syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, parameter.address, 0, 0, 0),
  );
}
