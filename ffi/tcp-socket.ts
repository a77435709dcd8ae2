import { libc } from "./c-library.ts";
import { AF_INET, SO_REUSEADDR, SOL_SOCKET } from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import type { OwnedDescriptor } from "./owned-descriptor.ts";
import { bindToDevice } from "./packet-socket.ts";
import { check } from "./system-call-error.ts";
import type { SocketAddress } from "./udp-socket.ts";
import { listen, makeTcpSocket } from "./unix-socket.ts";

const { sockaddr_in } = layouts;

/**
 * A listening TCP socket of IPv4 on one interface, close-on-exec and non-blocking: tcp(7). Who
 * comes by another interface is refused, and the connections that it takes are tied as it is.
 * @throws SystemCallError EADDRINUSE, EADDRNOTAVAIL; ENODEV without such an interface, EPERM
 *   without CAP_NET_RAW for it
 */
export function listenTcp(
  { address, port }: SocketAddress,
  options: { readonly device: string; readonly backlog: number },
): OwnedDescriptor {
  const socket = makeTcpSocket("ipv4");
  try {
    bindToDevice(socket, options.device);
    const on = new NativeMemory(4);
    on.view.setInt32(0, 1, true);
    // Connections that ended a moment ago keep the address in use else.
    const reuse = libc.setsockopt(socket.number, SOL_SOCKET, SO_REUSEADDR, on.address, 4);
    check("setsockopt SO_REUSEADDR", reuse);
    const name = new NativeMemory(sockaddr_in.size);
    name.view.setUint16(sockaddr_in.sin_family, AF_INET, true);
    name.view.setUint16(sockaddr_in.sin_port, port, false);
    name.bytes.set(address, sockaddr_in.sin_addr);
    check(
      "bind",
      libc.bind(socket.number, name.address, name.size),
      `${address.join(".")}:${port}`,
    );
    listen(socket, options.backlog);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}
