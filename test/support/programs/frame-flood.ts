/** Sends frames to a card for ever. Words: INTERFACE TYPE-IN-HEXADECIMAL-DIGITS ADDRESS. */
import { writeSync } from "node:fs";
import { interfaceIndex, PacketSocket } from "../../../ffi/packet-socket.ts";

const [name = "", type = "", address = ""] = process.argv.slice(2);
const index = interfaceIndex(name);
if (index === undefined) throw new Error(`Expected an interface, received ${name}`);
using socket = PacketSocket.open({
  ...{ interface: index, protocol: Number.parseInt(type, 16), longest: 64 },
});
const hardwareAddress = Uint8Array.fromHex(address.replaceAll(":", ""));
const frame = new Uint8Array(64);
writeSync(1, "sending\n");
for (;;) socket.send(frame, hardwareAddress);
