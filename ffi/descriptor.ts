import { libc } from "./c-library.ts";
import {
  CLOSE_RANGE_CLOEXEC,
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  F_DUPFD_CLOEXEC,
  F_GETFL,
  F_SETFD,
  F_SETFL,
  FD_CLOEXEC,
  KCMP_FILE,
  O_CLOEXEC,
  O_NONBLOCK,
  SYS_close_range,
  SYS_kcmp,
} from "./constants.ts";
import { cString, NativeMemory, nullAddress } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check } from "./system-call-error.ts";

/** A pipe, both ends close-on-exec. Only the read end is non-blocking: pipe2(2). */
export function makePipe(): { read: OwnedDescriptor; write: OwnedDescriptor } {
  const pair = new NativeMemory(8);
  check("pipe2", libc.pipe2(pair.address, O_CLOEXEC));
  const read = new OwnedDescriptor(pair.view.getInt32(0, true));
  const write = new OwnedDescriptor(pair.view.getInt32(4, true));
  setNonBlocking(read);
  return { read, write };
}

/**
 * A pipe with a name: mkfifo(3). The process's mask takes bits of the mode away.
 * @throws SystemCallError (EEXIST: something stands there; ENOENT: its folder does not)
 */
export function makeNamedPipe(path: string, mode: number): void {
  const text = cString(path);
  check("mkfifo", libc.mkfifo(text.address, mode), path);
}

/** Makes reads and writes answer EAGAIN where they would wait: fcntl(2), F_SETFL. */
export function setNonBlocking(descriptor: OwnedDescriptor): void {
  const flags = check("fcntl", libc.fcntl(descriptor.number, F_GETFL, 0));
  check("fcntl", libc.fcntl(descriptor.number, F_SETFL, flags | O_NONBLOCK));
}

/** Makes reads and writes wait: for the end of a pipe that another program gets. */
export function setBlocking(descriptor: OwnedDescriptor): void {
  const flags = check("fcntl", libc.fcntl(descriptor.number, F_GETFL, 0));
  check("fcntl", libc.fcntl(descriptor.number, F_SETFL, flags & ~O_NONBLOCK));
}

/** A second descriptor for the same open file, close-on-exec, numbered `least` or higher. */
export function duplicate(descriptor: number, least = 3): OwnedDescriptor {
  return new OwnedDescriptor(check("fcntl", libc.fcntl(descriptor, F_DUPFD_CLOEXEC, least)));
}

/**
 * Makes `target` another descriptor for the same open file, which a successful exec leaves open;
 * what `target` was before is closed. The two must differ: dup3(2).
 */
export function duplicateTo(descriptor: OwnedDescriptor, target: number): void {
  check("dup3", libc.dup3(descriptor.number, target, 0), `to ${target}`);
}

/** An event counter that wakes whoever polls it: eventfd(2). */
export function makeEventCounter(): OwnedDescriptor {
  return new OwnedDescriptor(check("eventfd", libc.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
}

/** Adds one to an event counter. */
export function signalEventCounter(counter: OwnedDescriptor): void {
  const one = new NativeMemory(8);
  one.setUnsigned64(0, 1);
  check("write", libc.write(counter.number, one.address, 8));
}

/** Bytes read, 0 at the end, or minus the error number (EAGAIN where it would wait): read(2). */
export function readInto(descriptor: OwnedDescriptor, memory: NativeMemory, size?: number): number {
  const wanted = size ?? memory.size;
  return attempt(() => libc.read(descriptor.number, memory.address, wanted));
}

/** Bytes written, or minus the error number (EAGAIN, EPIPE): write(2). */
export function writeFrom(descriptor: OwnedDescriptor, memory: NativeMemory, size: number): number {
  return attempt(() => libc.write(descriptor.number, memory.address, size));
}

/** A successful exec closes this descriptor: fcntl(2), F_SETFD. */
export function setCloseOnExec(descriptor: number): void {
  check("fcntl", libc.fcntl(descriptor, F_SETFD, FD_CLOEXEC));
}

/** A successful exec leaves this descriptor open: fcntl(2), F_SETFD. */
export function keepOnExec(descriptor: number): void {
  check("fcntl", libc.fcntl(descriptor, F_SETFD, 0));
}

/** Marks every descriptor numbered `first` or higher close-on-exec: close_range(2), Linux 5.11. */
export function closeOnExecFrom(first: number): void {
  const last = 0xffff_ffff;
  check("close_range", libc.syscall(SYS_close_range, first, last, CLOSE_RANGE_CLOEXEC, 0, 0, 0));
}

/**
 * What /proc shows of an open file: its path, or such as "socket:[12345]", "/memfd:NAME (deleted)":
 * proc_pid_fd(5). Empty when /proc is not there.
 */
export function linkTarget(descriptor: OwnedDescriptor): string {
  const path = cString(`/proc/self/fd/${descriptor.number}`);
  const memory = new NativeMemory(4096);
  const length = attempt(() => libc.readlink(path.address, memory.address, memory.size));
  return new TextDecoder().decode(memory.bytes.subarray(0, Math.max(0, length)));
}

/**
 * Whether both lead to one open file: kcmp(2). Where the kernel does not say (no CONFIG_KCMP, a
 * filter of system calls), two of one socket or pipe are taken for it, and nothing else.
 */
export function isSameFile(one: OwnedDescriptor, other: OwnedDescriptor): boolean {
  const { pid } = process;
  const order = attempt(() =>
    libc.syscall(SYS_kcmp, pid, pid, KCMP_FILE, one.number, other.number, 0),
  );
  if (order >= 0) return order === 0;
  const link = linkTarget(one);
  return /^(?:socket|pipe):/.test(link) && link === linkTarget(other);
}

/** ioctl(2) with a pointer argument; the result, or minus the error number. */
export function control(
  descriptor: OwnedDescriptor,
  request: number,
  memory?: NativeMemory,
): number {
  const address = memory?.address ?? nullAddress;
  return attempt(() => libc.ioctl(descriptor.number, request, address));
}
