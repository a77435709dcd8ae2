import { libc } from "./c-library.ts";
import {
  AF_INET,
  AF_INET6,
  AF_UNIX,
  MSG_CMSG_CLOEXEC,
  MSG_CTRUNC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  MSG_TRUNC,
  POLLHUP,
  POLLIN,
  POLLRDHUP,
  SCM_CREDENTIALS,
  SCM_RIGHTS,
  SHUT_WR,
  SO_DOMAIN,
  SO_ERROR,
  SO_PASSCRED,
  SO_PEERCRED,
  SO_PEERPIDFD,
  SO_PEERSEC,
  SO_TYPE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
  SYS_recvmsg,
  SYS_sendmsg,
} from "./constants.ts";
import { isMadeAbsent } from "./fault-hooks.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory, nullAddress } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check, Errno, SystemCallError } from "./system-call-error.ts";

/** SCM_MAX_FD, include/net/scm.h: more descriptors than this in one message are refused. */
export const MOST_DESCRIPTORS_A_MESSAGE = 253;
/** sizeof sun_path less the ending zero: unix(7). */
export const LONGEST_SOCKET_PATH = 107;

const { cmsghdr, iovec, msghdr, sockaddr_in, sockaddr_in6, sockaddr_un, ucred } = layouts;

/** A new Unix socket, close-on-exec and non-blocking: socket(2). */
export function makeUnixSocket(kind: "stream" | "datagram"): OwnedDescriptor {
  const type = kind === "stream" ? SOCK_STREAM : SOCK_DGRAM;
  const flags = type | SOCK_CLOEXEC | SOCK_NONBLOCK;
  return new OwnedDescriptor(check("socket", libc.socket(AF_UNIX, flags, 0)));
}

/** A new TCP socket in this process's network namespace, non-blocking: socket(2). */
export function makeTcpSocket(family: "ipv4" | "ipv6"): OwnedDescriptor {
  const flags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  const domain = family === "ipv4" ? AF_INET : AF_INET6;
  return new OwnedDescriptor(check("socket", libc.socket(domain, flags, 0)));
}

/** Two connected stream sockets, close-on-exec and non-blocking: socketpair(2). */
export function makeSocketPair(): [OwnedDescriptor, OwnedDescriptor] {
  const pair = new NativeMemory(8);
  const flags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  check("socketpair", libc.socketpair(AF_UNIX, flags, 0, pair.address));
  return [
    new OwnedDescriptor(pair.view.getInt32(0, true)),
    new OwnedDescriptor(pair.view.getInt32(4, true)),
  ];
}

/**
 * struct sockaddr_un for a path; "@name" is a name in the abstract namespace.
 * @throws RangeError for a path that the kernel would take for another one
 */
function unixAddress(path: string): { memory: NativeMemory; length: number } {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length === 0 || bytes.length > LONGEST_SOCKET_PATH || path.includes("\0")) {
    throw new RangeError(
      `Expected a socket path of 1 to ${LONGEST_SOCKET_PATH} bytes without a zero byte, ` +
        `received ${bytes.length} bytes: ${JSON.stringify(path)}`,
    );
  }
  const memory = new NativeMemory(sockaddr_un.size);
  memory.view.setUint16(sockaddr_un.sun_family, AF_UNIX, true);
  memory.bytes.set(bytes, sockaddr_un.sun_path);
  if (path.startsWith("@")) {
    memory.bytes[sockaddr_un.sun_path] = 0;
    return { memory, length: sockaddr_un.sun_path + bytes.length };
  }
  return { memory, length: sockaddr_un.sun_path + bytes.length + 1 };
}

/** Gives a socket its path: 0, or minus the error number (EADDRINUSE): bind(2). */
export function bindUnix(socket: OwnedDescriptor, path: string): number {
  const address = unixAddress(path);
  return attempt(() => libc.bind(socket.number, address.memory.address, address.length));
}

/** Takes connections: listen(2). */
export function listen(socket: OwnedDescriptor, backlog: number): void {
  check("listen", libc.listen(socket.number, backlog));
}

/** Connects: 0, or minus the error number (EAGAIN, ENOENT, ECONNREFUSED …): connect(2). */
export function connectUnix(socket: OwnedDescriptor, path: string): number {
  const address = unixAddress(path);
  return attempt(() => libc.connect(socket.number, address.memory.address, address.length));
}

/** Starts a TCP connection: 0, or minus the error number (EINPROGRESS while it is under way). */
export function connectTcp(
  socket: OwnedDescriptor,
  target: {
    family: "ipv4" | "ipv6";
    address: Uint8Array;
    port: number;
    /** The interface's number, for an address of one link alone (fe80::/10). */
    scope?: number;
  },
): number {
  const memory = new NativeMemory(sockaddr_in6.size);
  const isIpv4 = target.family === "ipv4";
  memory.view.setUint16(sockaddr_in.sin_family, isIpv4 ? AF_INET : AF_INET6, true);
  memory.view.setUint16(sockaddr_in.sin_port, target.port, false);
  memory.bytes.set(target.address, isIpv4 ? sockaddr_in.sin_addr : sockaddr_in6.sin6_addr);
  if (!isIpv4) memory.view.setUint32(sockaddr_in6.sin6_scope_id, target.scope ?? 0, true);
  const length = isIpv4 ? sockaddr_in.size : sockaddr_in6.size;
  return attempt(() => libc.connect(socket.number, memory.address, length));
}

/** Takes one waiting connection; undefined when none waits or it went away: accept4(2). */
export function acceptConnection(listener: OwnedDescriptor): OwnedDescriptor | undefined {
  const flags = SOCK_CLOEXEC | SOCK_NONBLOCK;
  const result = attempt(() => libc.accept4(listener.number, nullAddress, nullAddress, flags));
  if (result >= 0) return new OwnedDescriptor(result);
  if (result === -Errno.EAGAIN || result === -Errno.ECONNABORTED) return undefined;
  throw new SystemCallError("accept4", -result);
}

/** Who is at the other end, as the kernel recorded it at connect(2) or listen(2). */
export interface PeerCredentials {
  /** As seen in our PID namespace; 0 when the peer is outside of it. */
  readonly processId: number;
  readonly user: number;
  readonly group: number;
}

function option(socket: OwnedDescriptor, name: number, size: number): NativeMemory | number {
  const memory = new NativeMemory(size);
  const length = new NativeMemory(4);
  length.view.setInt32(0, size, true);
  const result = attempt(() =>
    libc.getsockopt(socket.number, SOL_SOCKET, name, memory.address, length.address),
  );
  if (result < 0) return result;
  const used = new NativeMemory(length.view.getInt32(0, true));
  used.bytes.set(memory.bytes.subarray(0, used.size));
  return used;
}

/** SO_PEERCRED: unix(7). */
export function peerCredentials(socket: OwnedDescriptor): PeerCredentials {
  const memory = option(socket, SO_PEERCRED, ucred.size);
  if (typeof memory === "number") throw new SystemCallError("getsockopt", -memory, "SO_PEERCRED");
  return readCredentials(memory.view, 0);
}

function readCredentials(view: DataView, offset: number): PeerCredentials {
  return {
    processId: view.getInt32(offset + ucred.pid, true),
    user: view.getUint32(offset + ucred.uid, true),
    group: view.getUint32(offset + ucred.gid, true),
  };
}

/** The peer's security label, such as an SELinux context; undefined without such a module. */
export function peerLabel(socket: OwnedDescriptor): string | undefined {
  const memory = option(socket, SO_PEERSEC, 4096);
  if (typeof memory === "number") return undefined;
  return new TextDecoder().decode(memory.bytes).replace(/\0+$/, "");
}

/** A descriptor for the peer's process, Linux 6.5; undefined below it or when the peer is gone. */
export function peerProcess(socket: OwnedDescriptor): OwnedDescriptor | undefined {
  if (isMadeAbsent("so_peerpidfd")) return undefined;
  const memory = option(socket, SO_PEERPIDFD, 4);
  if (typeof memory === "number") return undefined;
  return new OwnedDescriptor(memory.view.getInt32(0, true));
}

/** The error of a connection that was under way: 0 when it stands. SO_ERROR: socket(7). */
export function pendingError(socket: OwnedDescriptor): number {
  const memory = option(socket, SO_ERROR, 4);
  return typeof memory === "number" ? -memory : memory.view.getInt32(0, true);
}

const families = new Map<number, string>([
  [AF_UNIX, "unix"],
  [AF_INET, "ipv4"],
  [AF_INET6, "ipv6"],
]);
const socketTypes = new Map<number, string>([
  [SOCK_STREAM, "stream"],
  [SOCK_DGRAM, "datagram"],
]);

/** Such as "ipv4 stream"; undefined for a socket of another kind, and for what is no socket. */
export function socketKind(descriptor: OwnedDescriptor): string | undefined {
  const domain = option(descriptor, SO_DOMAIN, 4);
  const type = option(descriptor, SO_TYPE, 4);
  if (typeof domain === "number" || typeof type === "number") return undefined;
  const family = families.get(domain.view.getInt32(0, true));
  const kind = socketTypes.get(type.view.getInt32(0, true));
  return family === undefined || kind === undefined ? undefined : `${family} ${kind}`;
}

/** Makes the kernel attach the sender's credentials to each message: SO_PASSCRED, unix(7). */
export function receiveCredentials(socket: OwnedDescriptor): void {
  const on = new NativeMemory(4);
  on.view.setInt32(0, 1, true);
  check("setsockopt", libc.setsockopt(socket.number, SOL_SOCKET, SO_PASSCRED, on.address, 4));
}

/** Memory for one call of sendmsg(2) or recvmsg(2): header, vector and room for descriptors. */
class MessageHeader {
  readonly header = new NativeMemory(msghdr.size);
  readonly vector = new NativeMemory(iovec.size);
  readonly control: NativeMemory;

  constructor(controlSize: number) {
    this.control = new NativeMemory(controlSize);
    this.header.setPointer(msghdr.msg_iov, this.vector.address);
    this.header.setUnsigned64(msghdr.msg_iovlen, 1);
  }

  describe(memory: NativeMemory, range: { offset: number; length: number }, control: number): void {
    this.vector.setPointer(iovec.iov_base, memory.at(range.offset));
    this.vector.setUnsigned64(iovec.iov_len, range.length);
    this.header.setPointer(msghdr.msg_control, control === 0 ? 0 : this.control.address);
    this.header.setUnsigned64(msghdr.msg_controllen, control);
  }
}

/** CMSG_SPACE: cmsg(3). */
const controlSpace = (dataSize: number) => (cmsghdr.size + dataSize + 7) & ~7;
const descriptorSize = 4;
const mostDescriptorsSpace = controlSpace(descriptorSize * MOST_DESCRIPTORS_A_MESSAGE);
const sending = new MessageHeader(mostDescriptorsSpace);
const receiving = new MessageHeader(mostDescriptorsSpace + controlSpace(ucred.size));

/** Straight to the kernel: musl's sendmsg(3) has no room for the descriptors of a full message. */
function messageCall(call: number, socket: OwnedDescriptor, message: MessageHeader, flags: number) {
  return libc.syscall(call, socket.number, message.header.address, flags, 0, 0, 0);
}

/**
 * Sends part of a memory, with descriptors on its first byte. Bytes sent, or minus the error
 * number (EAGAIN, EPIPE, ECONNRESET, ETOOMANYREFS): sendmsg(2).
 * @throws RangeError for more descriptors than one message can carry
 */
export function sendMessage(
  socket: OwnedDescriptor,
  memory: NativeMemory,
  range: { offset: number; length: number },
  descriptors: readonly number[],
): number {
  if (descriptors.length > MOST_DESCRIPTORS_A_MESSAGE) {
    throw new RangeError(
      `Expected at most ${MOST_DESCRIPTORS_A_MESSAGE} descriptors, received ${descriptors.length}`,
    );
  }
  const dataSize = descriptorSize * descriptors.length;
  const size = descriptors.length === 0 ? 0 : controlSpace(dataSize);
  if (descriptors.length > 0) {
    const view = sending.control.view;
    sending.control.setUnsigned64(cmsghdr.cmsg_len, cmsghdr.size + dataSize);
    view.setInt32(cmsghdr.cmsg_level, SOL_SOCKET, true);
    view.setInt32(cmsghdr.cmsg_type, SCM_RIGHTS, true);
    descriptors.forEach((descriptor, index) => {
      view.setInt32(cmsghdr.size + descriptorSize * index, descriptor, true);
    });
  }
  sending.describe(memory, range, size);
  const flags = MSG_NOSIGNAL | MSG_DONTWAIT;
  return attempt(() => messageCall(SYS_sendmsg, socket, sending, flags));
}

/** What came with one recvmsg(2). */
export interface ReceivedMessage {
  /** Bytes received, 0 at the end of the stream, or minus the error number. */
  readonly length: number;
  readonly descriptors: OwnedDescriptor[];
  /** The sender's, where SO_PASSCRED is on. */
  readonly credentials: PeerCredentials | undefined;
  /** True when descriptors or bytes did not fit and the kernel dropped them. */
  readonly truncated: boolean;
}

/** Receives into a memory; descriptors arrive close-on-exec and are the caller's to close. */
export function receiveMessage(socket: OwnedDescriptor, memory: NativeMemory): ReceivedMessage {
  receiving.describe(memory, { offset: 0, length: memory.size }, receiving.control.size);
  const flags = MSG_CMSG_CLOEXEC | MSG_DONTWAIT;
  const length = attempt(() => messageCall(SYS_recvmsg, socket, receiving, flags));
  if (length < 0) return { length, descriptors: [], credentials: undefined, truncated: false };
  const messageFlags = receiving.header.view.getInt32(msghdr.msg_flags, true);
  const truncated = (messageFlags & (MSG_CTRUNC | MSG_TRUNC)) !== 0;
  return { length, truncated, ...readControl() };
}

function readControl(): Pick<ReceivedMessage, "descriptors" | "credentials"> {
  const view = receiving.control.view;
  const end = receiving.header.getUnsigned64(msghdr.msg_controllen);
  const descriptors: OwnedDescriptor[] = [];
  let credentials: PeerCredentials | undefined;
  for (let offset = 0; offset + cmsghdr.size <= end; ) {
    const length = receiving.control.getUnsigned64(offset + cmsghdr.cmsg_len);
    if (length < cmsghdr.size) break;
    const type = view.getInt32(offset + cmsghdr.cmsg_type, true);
    if (type === SCM_RIGHTS) {
      const last = offset + length - descriptorSize;
      for (let at = offset + cmsghdr.size; at <= last; at += descriptorSize) {
        descriptors.push(new OwnedDescriptor(view.getInt32(at, true)));
      }
    } else if (type === SCM_CREDENTIALS) {
      credentials = readCredentials(view, offset + cmsghdr.size);
    }
    offset += controlSpace(length - cmsghdr.size);
  }
  return { descriptors, credentials };
}

/** Says that we write no more; what the peer still writes is read: shutdown(2), SHUT_WR. */
export function finishWriting(socket: OwnedDescriptor): void {
  // A peer that is gone already (ENOTCONN) hears nothing of it, which is as well.
  libc.shutdown(socket.number, SHUT_WR);
}

const pollDescriptor = new NativeMemory(layouts.pollfd.size);

/**
 * Blocks the whole process until something can be received, or the peer is gone: poll(2). For a
 * process that has nothing else to do.
 */
export function waitForMessage(socket: OwnedDescriptor): void {
  const { view, address } = pollDescriptor;
  view.setInt32(layouts.pollfd.fd, socket.number, true);
  view.setInt16(layouts.pollfd.events, POLLIN, true);
  const result = attempt(() => libc.poll(address, 1, -1));
  if (result < 0) throw new SystemCallError("poll", -result);
}

/** True when something can be received at once, or the peer is gone. */
export function hasMessage(socket: OwnedDescriptor): boolean {
  const { view, address } = pollDescriptor;
  view.setInt32(layouts.pollfd.fd, socket.number, true);
  view.setInt16(layouts.pollfd.events, POLLIN, true);
  return attempt(() => libc.poll(address, 1, 0)) > 0;
}

/** True when the peer has closed its end, or writes no more, whatever is still to be read. */
export function hasHungUp(socket: OwnedDescriptor): boolean {
  const { view, address } = pollDescriptor;
  view.setInt32(layouts.pollfd.fd, socket.number, true);
  view.setInt16(layouts.pollfd.events, POLLRDHUP, true);
  view.setInt16(layouts.pollfd.revents, 0, true);
  attempt(() => libc.poll(address, 1, 0));
  return (view.getInt16(layouts.pollfd.revents, true) & (POLLHUP | POLLRDHUP)) !== 0;
}
