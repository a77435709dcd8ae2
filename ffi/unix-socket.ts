import { libc } from "./c-library.ts";
import { isMadeAbsent } from "./fault-hooks.ts";
import { NativeMemory, nullAddress } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check, Errno, SystemCallError } from "./system-call-error.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_ERROR = 4;
const SO_PASSCRED = 16;
const SO_PEERCRED = 17;
const SO_PEERSEC = 31;
const SO_PEERPIDFD = 77;
const SCM_RIGHTS = 1;
const SCM_CREDENTIALS = 2;
const MSG_CTRUNC = 8;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

/** SCM_MAX_FD, include/net/scm.h: more descriptors than this in one message are refused. */
export const MOST_DESCRIPTORS_A_MESSAGE = 253;
/** sizeof sun_path less the ending zero: unix(7). */
export const LONGEST_SOCKET_PATH = 107;

/** struct sockaddr_un, msghdr, iovec and cmsghdr on 64-bit Linux: equal on x86-64 and arm64. */
export const socketLayout = {
  sockaddrUn: { size: 110, family: 0, path: 2 },
  msghdr: { size: 56, iov: 16, iovlen: 24, control: 32, controllen: 40, flags: 48 },
  iovec: { size: 16, base: 0, length: 8 },
  cmsghdr: { size: 16, length: 0, level: 8, type: 12 },
  ucred: { size: 12, processId: 0, user: 4, group: 8 },
};

/** A new Unix socket, close-on-exec and non-blocking: socket(2). */
export function makeUnixSocket(kind: "stream" | "datagram"): OwnedDescriptor {
  const type = kind === "stream" ? SOCK_STREAM : SOCK_DGRAM;
  const flags = type | SOCK_CLOEXEC | SOCK_NONBLOCK;
  return new OwnedDescriptor(check("socket", libc.socket(AF_UNIX, flags, 0)));
}

const AF_INET = 2;
const AF_INET6 = 10;

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

/** struct sockaddr_un for a path; "@name" is a name in the abstract namespace. */
function unixAddress(path: string): { memory: NativeMemory; length: number } {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length > LONGEST_SOCKET_PATH) {
    throw new RangeError(
      `Expected a socket path of at most ${LONGEST_SOCKET_PATH} bytes, received ${bytes.length}: ${path}`,
    );
  }
  const memory = new NativeMemory(socketLayout.sockaddrUn.size);
  memory.view.setUint16(0, AF_UNIX, true);
  memory.bytes.set(bytes, 2);
  if (path.startsWith("@")) {
    memory.bytes[2] = 0;
    return { memory, length: 2 + bytes.length };
  }
  return { memory, length: 2 + bytes.length + 1 };
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
  target: { family: "ipv4" | "ipv6"; address: Uint8Array; port: number },
): number {
  const memory = new NativeMemory(28);
  memory.view.setUint16(0, target.family === "ipv4" ? AF_INET : AF_INET6, true);
  memory.view.setUint16(2, target.port, false);
  memory.bytes.set(target.address, target.family === "ipv4" ? 4 : 8);
  const length = target.family === "ipv4" ? 16 : 28;
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
  const memory = option(socket, SO_PEERCRED, socketLayout.ucred.size);
  if (typeof memory === "number") throw new SystemCallError("getsockopt", -memory, "SO_PEERCRED");
  return {
    processId: memory.view.getInt32(0, true),
    user: memory.view.getUint32(4, true),
    group: memory.view.getUint32(8, true),
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

/** Makes the kernel attach the sender's credentials to each message: SO_PASSCRED, unix(7). */
export function receiveCredentials(socket: OwnedDescriptor): void {
  const on = new NativeMemory(4);
  on.view.setInt32(0, 1, true);
  check("setsockopt", libc.setsockopt(socket.number, SOL_SOCKET, SO_PASSCRED, on.address, 4));
}

/** Memory for one call of sendmsg(2) or recvmsg(2): header, vector and room for descriptors. */
class MessageHeader {
  readonly header = new NativeMemory(socketLayout.msghdr.size);
  readonly vector = new NativeMemory(socketLayout.iovec.size);
  readonly control: NativeMemory;

  constructor(controlSize: number) {
    this.control = new NativeMemory(controlSize);
    this.header.setPointer(socketLayout.msghdr.iov, this.vector.address);
    this.header.setUnsigned64(socketLayout.msghdr.iovlen, 1);
  }

  describe(memory: NativeMemory, range: { offset: number; length: number }, control: number): void {
    this.vector.setPointer(socketLayout.iovec.base, memory.at(range.offset));
    this.vector.setUnsigned64(socketLayout.iovec.length, range.length);
    this.header.setPointer(
      socketLayout.msghdr.control,
      control === 0 ? 0 : this.control.address,
    );
    this.header.setUnsigned64(socketLayout.msghdr.controllen, control);
  }
}

const align = (size: number) => (size + 7) & ~7;
const sending = new MessageHeader(align(16 + 4 * MOST_DESCRIPTORS_A_MESSAGE));
const receiving = new MessageHeader(align(16 + 4 * MOST_DESCRIPTORS_A_MESSAGE) + align(16 + 12));

/**
 * Sends part of a memory, with descriptors on its first byte. Bytes sent, or minus the error
 * number (EAGAIN, EPIPE, ECONNRESET, ETOOMANYREFS): sendmsg(2).
 */
export function sendMessage(
  socket: OwnedDescriptor,
  memory: NativeMemory,
  range: { offset: number; length: number },
  descriptors: readonly number[],
): number {
  const length = 16 + 4 * descriptors.length;
  const size = descriptors.length === 0 ? 0 : align(length);
  if (descriptors.length > 0) {
    const view = sending.control.view;
    sending.control.setUnsigned64(socketLayout.cmsghdr.length, length);
    view.setInt32(socketLayout.cmsghdr.level, SOL_SOCKET, true);
    view.setInt32(socketLayout.cmsghdr.type, SCM_RIGHTS, true);
    descriptors.forEach((descriptor, index) => {
      view.setInt32(16 + 4 * index, descriptor, true);
    });
  }
  sending.describe(memory, range, size);
  const flags = MSG_NOSIGNAL | MSG_DONTWAIT;
  return attempt(() => libc.sendmsg(socket.number, sending.header.address, flags));
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
  const length = attempt(() => libc.recvmsg(socket.number, receiving.header.address, flags));
  if (length < 0) return { length, descriptors: [], credentials: undefined, truncated: false };
  const messageFlags = receiving.header.view.getInt32(socketLayout.msghdr.flags, true);
  const truncated = (messageFlags & (MSG_CTRUNC | MSG_TRUNC)) !== 0;
  return { length, truncated, ...readControl() };
}

function readControl(): Pick<ReceivedMessage, "descriptors" | "credentials"> {
  const view = receiving.control.view;
  const end = receiving.header.getUnsigned64(socketLayout.msghdr.controllen);
  const descriptors: OwnedDescriptor[] = [];
  let credentials: PeerCredentials | undefined;
  for (let offset = 0; offset + 16 <= end; ) {
    const length = receiving.control.getUnsigned64(offset + socketLayout.cmsghdr.length);
    if (length < 16) break;
    const type = view.getInt32(offset + socketLayout.cmsghdr.type, true);
    if (type === SCM_RIGHTS) {
      for (let at = offset + 16; at + 4 <= offset + length; at += 4) {
        descriptors.push(new OwnedDescriptor(view.getInt32(at, true)));
      }
    } else if (type === SCM_CREDENTIALS) {
      credentials = {
        processId: view.getInt32(offset + 16, true),
        user: view.getUint32(offset + 20, true),
        group: view.getUint32(offset + 24, true),
      };
    }
    offset += align(length);
  }
  return { descriptors, credentials };
}
