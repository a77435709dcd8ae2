/** Says of each frame that comes in by an interface what it is, in hexadecimal. */
import { writeSync } from "node:fs";
import { ETH_P_ALL } from "../../../ffi/constants.ts";
import { interfaceIndex, PacketSocket } from "../../../ffi/packet-socket.ts";
import { testEventLoop } from "../event-loop.ts";

const options = JSON.parse(process.env["OPTIONS"] ?? "{}") as { readonly interface: string };
const index = interfaceIndex(options.interface);
if (index === undefined) throw new Error(`No interface ${options.interface}`);
const socket = PacketSocket.open({ interface: index, protocol: ETH_P_ALL, longest: 2_048 });
testEventLoop().watch(socket.descriptor, "readable", () => {
  for (;;) {
    const packet = socket.receive();
    if (typeof packet === "number") return;
    if (packet.kind !== "outgoing") writeSync(1, `frame ${packet.bytes.toHex()}\n`);
  }
});
writeSync(1, "listening\n");
