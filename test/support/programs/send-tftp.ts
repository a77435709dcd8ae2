/** Sends one TFTP request that says that it is another's, as somebody does who forges addresses. */
import { ETH_P_IP } from "../../../ffi/constants.ts";
import { interfaceIndex, PacketSocket } from "../../../ffi/packet-socket.ts";
import { encodeDatagram } from "../../../src/network/dhcp/datagram.ts";
import { requestBytes } from "../tftp-packets.ts";

const options = JSON.parse(process.env["OPTIONS"] ?? "{}") as {
  readonly interface: string;
  readonly from: string;
  readonly to: string;
  readonly file: string;
};
const index = interfaceIndex(options.interface);
if (index === undefined) throw new Error(`No interface ${options.interface}`);
const socket = PacketSocket.open({ interface: index, protocol: ETH_P_IP, longest: 1_500 });
const packet = encodeDatagram({
  from: { address: options.from, port: 2_070 },
  to: { address: options.to, port: 69 },
  payload: requestBytes(options.file),
});
const sent = socket.send(packet, new Uint8Array(6).fill(255));
if (sent < 0) throw new Error(`Cannot send: ${sent}`);
socket[Symbol.dispose]();
