/** Sends DHCP messages to everybody, as one that has no address does. */
import { ETH_P_IP } from "../../../ffi/constants.ts";
import { interfaceIndex, PacketSocket } from "../../../ffi/packet-socket.ts";
import { encodeDatagram } from "../../../src/network/dhcp/datagram.ts";

const options = JSON.parse(process.env["OPTIONS"] ?? "{}") as {
  readonly interface: string;
  readonly from: string;
  /** In hexadecimal. */
  readonly payloads: readonly string[];
};
const index = interfaceIndex(options.interface);
if (index === undefined) throw new Error(`No interface ${options.interface}`);
const socket = PacketSocket.open({ interface: index, protocol: ETH_P_IP, longest: 1_500 });
for (const payload of options.payloads) {
  const packet = encodeDatagram({
    from: { address: options.from, port: 68 },
    to: { address: "255.255.255.255", port: 67 },
    payload: Uint8Array.fromHex(payload),
  });
  const sent = socket.send(packet, new Uint8Array(6).fill(255));
  if (sent < 0) throw new Error(`Cannot send: ${sent}`);
}
socket[Symbol.dispose]();
