import type { SocketHandler, TCPSocketListener, TCPSocketListenOptions } from "bun";
import { listenTcp } from "../../ffi/tcp-socket.ts";
import { addressBytes } from "./dhcp/address.ts";

/**
 * Bun's TCP at one address of one interface, which Bun cannot be told: who comes by another one is
 * refused.
 * @throws SystemCallError EADDRINUSE, EADDRNOTAVAIL; ENODEV without such an interface
 */
export function listenOnInterface(
  place: {
    readonly interface: string;
    readonly address: string;
    readonly port: number;
    readonly backlog: number;
  },
  socket: SocketHandler<undefined>,
): TCPSocketListener<undefined> {
  const { interface: device, address, port, backlog } = place;
  using listening = listenTcp({ address: addressBytes(address), port }, { device, backlog });
  // Bun takes a socket that listens already, and closes it; its types say so of connect() alone.
  const options = { fd: listening.number, socket } as unknown as TCPSocketListenOptions<undefined>;
  const listener = Bun.listen<undefined>(options);
  listening.release();
  return listener;
}
