import { libc } from "./c-library.ts";
import {
  CLD_DUMPED,
  CLD_EXITED,
  P_PIDFD,
  PIDFD_GET_INFO,
  PIDFD_INFO_EXIT,
  PIDFD_SIGNAL_PROCESS_GROUP,
  POLLIN,
  SYS_pidfd_getfd,
  SYS_pidfd_open,
  SYS_pidfd_send_signal,
  WEXITED,
  WNOHANG,
  WNOWAIT,
} from "./constants.ts";
import { control } from "./descriptor.ts";
import { isMadeAbsent } from "./fault-hooks.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, Errno, SystemCallError } from "./system-call-error.ts";

/** How a process ended: by exit(3) with a status, or by a signal. */
export type Ending =
  | { readonly kind: "exited"; readonly status: number }
  | { readonly kind: "signalled"; readonly signal: number; readonly coreDumped: boolean };

/** A descriptor for the process with this number; ESRCH gives undefined: pidfd_open(2). */
export function openProcess(processId: number): OwnedDescriptor | undefined {
  const result = attempt(() => libc.syscall(SYS_pidfd_open, processId, 0, 0, 0, 0, 0));
  if (result >= 0) return new OwnedDescriptor(result);
  if (result === -Errno.ESRCH) return undefined;
  throw new SystemCallError("pidfd_open", -result, `of process ${processId}`);
}

/**
 * A duplicate of descriptor `number` of another process, for the same open file, close-on-exec:
 * pidfd_getfd(2), Linux 5.6. Minus EBADF when it has none of that number, ESRCH when it is gone,
 * EPERM when we may not look into it (as ptrace(2) may not), EMFILE.
 */
export function takeDescriptor(process: OwnedDescriptor, number: number): OwnedDescriptor | number {
  const result = attempt(() => libc.syscall(SYS_pidfd_getfd, process.number, number, 0, 0, 0, 0));
  return result < 0 ? result : new OwnedDescriptor(result);
}

/**
 * Sends a signal to one process: "sent"; "gone" (ESRCH), which a zombie is not; "refused", because
 * it is there and we may not (EPERM; EACCES of a security module): pidfd_send_signal(2).
 */
export function signalProcess(
  process: OwnedDescriptor,
  signal: number,
): "sent" | "gone" | "refused" {
  const result = attempt(() =>
    libc.syscall(SYS_pidfd_send_signal, process.number, signal, 0, 0, 0, 0),
  );
  return outcomeOf(result) ?? throwSendError(result);
}

/**
 * True until the process has been reaped. One that we may not signal is there as well: who may
 * not is told so before anything else, but only of a process that exists.
 */
export function isThere(process: OwnedDescriptor): boolean {
  return signalProcess(process, 0) !== "gone";
}

/**
 * True when all threads of the process have ended, whether it has been reaped or not: poll(2) of a
 * pidfd. Its first thread alone may be a zombie, as /proc shows it, while others run on.
 */
export function hasEnded(process: OwnedDescriptor): boolean {
  const layout = layouts.pollfd;
  const memory = new NativeMemory(layout.size);
  memory.view.setInt32(layout.fd, process.number, true);
  memory.view.setInt16(layout.events, POLLIN, true);
  const result = attempt(() => libc.poll(memory.address, 1, 0));
  if (result < 0) throw new SystemCallError("poll", -result, "of a process");
  return memory.view.getInt16(layout.revents, true) !== 0;
}

/**
 * Sends a signal to the process group that the process leads. "gone" when no member is left,
 * "refused" when we may signal none of them, "unsupported" below Linux 6.9.
 */
export function signalProcessGroup(
  process: OwnedDescriptor,
  signal: number,
): "sent" | "gone" | "refused" | "unsupported" {
  if (isMadeAbsent("pidfs")) return "unsupported";
  const flags = PIDFD_SIGNAL_PROCESS_GROUP;
  const result = attempt(() =>
    libc.syscall(SYS_pidfd_send_signal, process.number, signal, 0, flags, 0, 0),
  );
  if (result === -Errno.EINVAL) return "unsupported";
  return outcomeOf(result) ?? throwSendError(result);
}

function outcomeOf(result: number): "sent" | "gone" | "refused" | undefined {
  if (result >= 0) return "sent";
  if (result === -Errno.ESRCH) return "gone";
  if (result === -Errno.EPERM || result === -Errno.EACCES) return "refused";
  return undefined;
}

function throwSendError(result: number): never {
  throw new SystemCallError("pidfd_send_signal", -result);
}

const siginfo = new NativeMemory(layouts.siginfo_t.size);

/**
 * How a child ended: waitid(2). Undefined while it runs; "not-a-child" for a process whose
 * parent we are not (ECHILD). With `leave` the child stays a zombie, so that its process number
 * and group cannot be given to another yet.
 */
export function waitForChild(
  process: OwnedDescriptor,
  how: "reap" | "leave",
): Ending | undefined | "not-a-child" {
  const layout = layouts.siginfo_t;
  siginfo.view.setInt32(layout.si_pid, 0, true);
  const options = WEXITED | WNOHANG | (how === "leave" ? WNOWAIT : 0);
  const result = attempt(() => libc.waitid(P_PIDFD, process.number, siginfo.address, options));
  if (result === -Errno.ECHILD) return "not-a-child";
  if (result < 0) throw new SystemCallError("waitid", -result);
  if (siginfo.view.getInt32(layout.si_pid, true) === 0) return undefined;
  const code = siginfo.view.getInt32(layout.si_code, true);
  const status = siginfo.view.getInt32(layout.si_status, true);
  if (code === CLD_EXITED) return { kind: "exited", status };
  return { kind: "signalled", signal: status, coreDumped: code === CLD_DUMPED };
}

/** A wait status, as wait(2) encodes it. */
export function decodeWaitStatus(status: number): Ending {
  const signal = status & 0x7f;
  if (signal === 0) return { kind: "exited", status: (status >> 8) & 0xff };
  return { kind: "signalled", signal, coreDumped: (status & 0x80) !== 0 };
}

/** What the kernel says of a process through its descriptor. */
export interface ProcessInformation {
  readonly processId: number;
  readonly parentId: number;
  /** Present once the process has been reaped, Linux 6.15. */
  readonly ending: Ending | undefined;
}

/** A kernel without the request, one that wants another size of it, and qemu's user emulation. */
const unsupported: readonly number[] = [Errno.ENOTTY, Errno.EINVAL, Errno.ENOSYS];

/**
 * PIDFD_GET_INFO: "unsupported" below Linux 6.13, "gone" when the process has been reaped and
 * the kernel keeps no exit status (below 6.15), or kept none for this descriptor.
 */
export function processInformation(
  process: OwnedDescriptor,
): ProcessInformation | "unsupported" | "gone" {
  if (isMadeAbsent("pidfd_get_info")) return "unsupported";
  const layout = layouts.pidfd_info;
  const memory = new NativeMemory(layout.size);
  memory.setUnsigned64(layout.mask, PIDFD_INFO_EXIT);
  const result = control(process, PIDFD_GET_INFO, memory);
  if (result === -Errno.ESRCH) return "gone";
  if (unsupported.includes(-result)) return "unsupported";
  if (result < 0) throw new SystemCallError("ioctl", -result, "PIDFD_GET_INFO");
  const exited = (memory.getUnsigned64(layout.mask) & PIDFD_INFO_EXIT) !== 0;
  return {
    processId: memory.view.getInt32(layout.pid, true),
    parentId: memory.view.getInt32(layout.ppid, true),
    ending: exited ? decodeWaitStatus(memory.view.getInt32(layout.exit_code, true)) : undefined,
  };
}
