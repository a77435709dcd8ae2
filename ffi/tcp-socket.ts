import type { Pointer } from "bun:ffi";
import { libc } from "./c-library.ts";
import {
  AF_INET,
  AF_INET6,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SO_REUSEADDR,
  SOL_SOCKET,
} from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory, nullAddress } from "./memory.ts";
import type { OwnedDescriptor } from "./owned-descriptor.ts";
import { bindToDevice } from "./packet-socket.ts";
import { attempt, check } from "./system-call-error.ts";
import type { SocketAddress } from "./udp-socket.ts";
import { listen, makeTcpSocket } from "./unix-socket.ts";

const { sockaddr_in, sockaddr_in6 } = layouts;

/**
 * A listening TCP socket of IPv4 or IPv6 (by its address's length), close-on-exec and non-blocking:
 * tcp(7). With a device, who comes by another interface is refused, and the connections that it
 * takes are tied as it is.
 * @throws SystemCallError EADDRINUSE, EADDRNOTAVAIL; ENODEV without such an interface, EPERM
 *   without CAP_NET_RAW for it
 */
export function listenTcp(
  { address, port }: SocketAddress,
  options: { readonly device?: string; readonly backlog: number },
): OwnedDescriptor {
  const isIpv4 = address.length === 4;
  const socket = makeTcpSocket(isIpv4 ? "ipv4" : "ipv6");
  try {
    if (options.device !== undefined) bindToDevice(socket, options.device);
    const on = new NativeMemory(4);
    on.view.setInt32(0, 1, true);
    // Connections that ended a moment ago keep the address in use else.
    const reuse = libc.setsockopt(socket.number, SOL_SOCKET, SO_REUSEADDR, on.address, 4);
    check("setsockopt SO_REUSEADDR", reuse);
    const name = new NativeMemory(isIpv4 ? sockaddr_in.size : sockaddr_in6.size);
    name.view.setUint16(sockaddr_in.sin_family, isIpv4 ? AF_INET : AF_INET6, true);
    name.view.setUint16(sockaddr_in.sin_port, port, false);
    name.bytes.set(address, isIpv4 ? sockaddr_in.sin_addr : sockaddr_in6.sin6_addr);
    check(
      "bind",
      libc.bind(socket.number, name.address, name.size),
      `${address.join(isIpv4 ? "." : ":")} port ${port}`,
    );
    listen(socket, options.backlog);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** The port that a socket is bound to, as getsockname(2) tells it. */
export function boundPort(socket: OwnedDescriptor): number {
  const name = new NativeMemory(sockaddr_in6.size);
  const length = new NativeMemory(4);
  length.view.setUint32(0, name.size, true);
  check("getsockname", libc.getsockname(socket.number, name.address, length.address));
  return name.view.getUint16(sockaddr_in.sin_port, false);
}

/** Bytes that the kernel took, or minus the error number (EAGAIN, EPIPE, ECONNRESET): send(2). */
export function sendBytes(socket: OwnedDescriptor, from: Pointer, size: number): number {
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  return attempt(() => libc.send(socket.number, from, size, flags));
}

/** Bytes that came, 0 at the end, or minus the error number (EAGAIN, ECONNRESET): recvfrom(2). */
export function receiveBytes(socket: OwnedDescriptor, into: Pointer, size: number): number {
  const { number } = socket;
  const nobody = nullAddress;
  return attempt(() => libc.recvfrom(number, into, size, MSG_DONTWAIT, nobody, nobody));
}
