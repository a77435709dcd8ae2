import { libc } from "./c-library.ts";
import {
  LIVEUPDATE_IOCTL_CREATE_SESSION,
  LIVEUPDATE_IOCTL_RETRIEVE_SESSION,
  LIVEUPDATE_SESSION_FINISH,
  LIVEUPDATE_SESSION_GET_NAME,
  LIVEUPDATE_SESSION_PRESERVE_FD,
  LIVEUPDATE_SESSION_RETRIEVE_FD,
  O_CLOEXEC,
  O_RDWR,
} from "./constants.ts";
import { control, linkTarget } from "./descriptor.ts";
import { faultHooks } from "./fault-hooks.ts";
import { askFaultKernel } from "./fault-kernel.ts";
import { layouts } from "./layouts.ts";
import { cString, NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, Errno } from "./system-call-error.ts";

/*
 * The Live Update Orchestrator of Linux 6.19: include/uapi/linux/liveupdate.h. Every function gives
 * a result or minus the error number. Closing the last descriptor of a session, in whatever
 * process, ends it: an outgoing one gives up what it preserved, a retrieved one is finished.
 *
 * Early kernels do not refuse to retrieve from an outgoing session, to finish one, or to preserve
 * into a retrieved one. A descriptor does not say which it is, so the caller has to know.
 */

/** LIVEUPDATE_SESSION_NAME_LENGTH less the ending zero; in bytes of UTF-8. */
export const SESSION_NAME_BYTES = 63;

const device = "/dev/liveupdate";

/** All of these structures begin with their own size. */
function sized(layout: { readonly size: number }): NativeMemory {
  const memory = new NativeMemory(layout.size);
  memory.view.setUint32(0, layout.size, true);
  return memory;
}

/** @throws RangeError for a token that no u64 holds: that is a bug of the caller. */
function setToken(memory: NativeMemory, offset: number, token: bigint): void {
  if (BigInt.asUintN(64, token) !== token) {
    throw new RangeError(`Expected a token of 64 bits, received ${token}`);
  }
  memory.view.setBigUint64(offset, token, true);
}

/** Linux 6.19 takes an empty name, and cuts a long one; later ones refuse both, and so do we. */
function isSessionName(name: string): boolean {
  const { length } = new TextEncoder().encode(name);
  return length > 0 && length <= SESSION_NAME_BYTES && !name.includes("\0");
}

/** The device is opened for one call: while it is open nobody else can open it (EBUSY). */
function askDevice(request: number, name: string): OwnedDescriptor | number {
  const path = cString(device);
  const opened = attempt(() => libc.open(path.address, O_RDWR | O_CLOEXEC, 0));
  if (opened < 0) return opened;
  using file = new OwnedDescriptor(opened);
  const layout = layouts.liveupdate_ioctl_create_session;
  const memory = sized(layout);
  memory.view.setInt32(layout.fd, -1, true);
  memory.bytes.set(new TextEncoder().encode(name), layout.name);
  const result = control(file, request, memory);
  return result < 0 ? result : new OwnedDescriptor(memory.view.getInt32(layout.fd, true));
}

/**
 * A new outgoing session: LIVEUPDATE_IOCTL_CREATE_SESSION. Minus EEXIST for a name that another
 * outgoing one has, EINVAL for no name of 1 to 63 bytes, EBUSY while somebody has the device open,
 * ENOENT without the device, EIO when this kernel could not read what the former one left.
 */
export function createSession(name: string): OwnedDescriptor | number {
  if (!isSessionName(name)) return -Errno.EINVAL;
  if (faultHooks) {
    const answer = askFaultKernel({ call: "create", name });
    if (answer !== undefined) return answer.descriptor ?? answer.result;
  }
  return askDevice(LIVEUPDATE_IOCTL_CREATE_SESSION, name);
}

/**
 * A session of the former kernel: LIVEUPDATE_IOCTL_RETRIEVE_SESSION. Minus ENOENT for one that did
 * not come, or without the device; EINVAL for one that is retrieved already and still open.
 */
export function retrieveSession(name: string): OwnedDescriptor | number {
  if (!isSessionName(name)) return -Errno.EINVAL;
  if (faultHooks) {
    const answer = askFaultKernel({ call: "retrieve-session", name });
    if (answer !== undefined) return answer.descriptor ?? answer.result;
  }
  return askDevice(LIVEUPDATE_IOCTL_RETRIEVE_SESSION, name);
}

/**
 * Puts a file into an outgoing session: LIVEUPDATE_SESSION_PRESERVE_FD. It blocks for as long as
 * the kernel copies, which for gigabytes is seconds. 0, or minus EBADF, EEXIST (the token is used),
 * EBUSY (the file is in a session already), ENOENT (no file of this kind can be preserved).
 */
export function preserveDescriptor(
  session: OwnedDescriptor,
  file: OwnedDescriptor | number,
  token: bigint,
): number {
  const layout = layouts.liveupdate_session_preserve_fd;
  const number = typeof file === "number" ? file : file.number;
  const memory = sized(layout);
  memory.view.setInt32(layout.fd, number, true);
  setToken(memory, layout.token, token);
  if (faultHooks) {
    const request = { call: "preserve", token: String(token) } as const;
    const answer = askFaultKernel(request, [session.number, number]);
    if (answer !== undefined) return answer.result;
  }
  return control(session, LIVEUPDATE_SESSION_PRESERVE_FD, memory);
}

/**
 * The file of a token, from a retrieved session: LIVEUPDATE_SESSION_RETRIEVE_FD. In any order, and
 * as often as one likes: it is the same file each time. Minus ENOENT for a token that is not there,
 * and for all of them after the session was finished.
 */
export function retrieveDescriptor(
  session: OwnedDescriptor,
  token: bigint,
): OwnedDescriptor | number {
  const layout = layouts.liveupdate_session_retrieve_fd;
  const memory = sized(layout);
  memory.view.setInt32(layout.fd, -1, true);
  setToken(memory, layout.token, token);
  if (faultHooks) {
    const request = { call: "retrieve", token: String(token) } as const;
    const answer = askFaultKernel(request, [session.number]);
    if (answer !== undefined) return answer.descriptor ?? answer.result;
  }
  const result = control(session, LIVEUPDATE_SESSION_RETRIEVE_FD, memory);
  return result < 0 ? result : new OwnedDescriptor(memory.view.getInt32(layout.fd, true));
}

/**
 * Frees what of a retrieved session nobody has retrieved: LIVEUPDATE_SESSION_FINISH. 0, also the
 * second time, or minus EBUSY: something of it is not ready for that.
 */
export function finishSession(session: OwnedDescriptor): number {
  if (faultHooks) {
    const answer = askFaultKernel({ call: "finish" }, [session.number]);
    if (answer !== undefined) return answer.result;
  }
  return control(session, LIVEUPDATE_SESSION_FINISH, sized(layouts.liveupdate_session_finish));
}

/**
 * The name of a session: LIVEUPDATE_SESSION_GET_NAME (Linux 7.2), and before it what /proc shows.
 * Minus EINVAL or ENOTTY for what is no session.
 */
export function sessionName(session: OwnedDescriptor): string | number {
  const layout = layouts.liveupdate_session_get_name;
  const memory = sized(layout);
  if (faultHooks) {
    const answer = askFaultKernel({ call: "name" }, [session.number]);
    if (answer !== undefined) return answer.name ?? answer.result;
  }
  const result = control(session, LIVEUPDATE_SESSION_GET_NAME, memory);
  if (result < 0) return sessionNameOfLink(linkTarget(session)) ?? result;
  const bytes = memory.bytes.subarray(layout.name);
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** @param target such as "anon_inode:[luo_session] NAME"; a name may hold anything but zero */
export function sessionNameOfLink(target: string): string | undefined {
  const prefix = "anon_inode:[luo_session] ";
  return target.startsWith(prefix) ? target.slice(prefix.length) : undefined;
}
