/** UDP and packet sockets, on loopback. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { ETH_P_IP } from "../../../ffi/constants.ts";
import {
  type FilterInstruction,
  interfaceIndex,
  LONGEST_INTERFACE_NAME,
  PacketSocket,
} from "../../../ffi/packet-socket.ts";
import { Errno } from "../../../ffi/system-call-error.ts";
import { UdpSocket } from "../../../ffi/udp-socket.ts";
import { waitFor } from "../../support/wait-for.ts";
import { type Check, withoutRoot } from "./check.ts";

const loopback = Uint8Array.of(127, 0, 0, 1);
const text = Uint8Array.of(1, 2, 3, 4, 5);

/** A socket at a port that was free. */
function listening(longest: number): { socket: UdpSocket; port: number } {
  for (let port = 40_000; ; port += 1) {
    const socket = new UdpSocket({ family: "ipv4", longest });
    const bound = socket.bind({ address: loopback, port });
    if (bound === 0) return { socket, port };
    socket[Symbol.dispose]();
    strictEqual(bound, -Errno.EADDRINUSE);
  }
}

async function received(socket: UdpSocket) {
  return await waitFor("a datagram", () => {
    const message = socket.receive();
    return typeof message === "number" ? undefined : message;
  });
}

async function exchange(): Promise<void> {
  const { socket, port } = listening(4);
  using receiver = socket;
  using sender = new UdpSocket({ family: "ipv4", longest: 16 });
  strictEqual(receiver.receive(), -Errno.EAGAIN);
  strictEqual(sender.send(text.subarray(0, 3), { address: loopback, port }), 3);
  const whole = await received(receiver);
  deepStrictEqual([whole.bytes, whole.truncated], [text.slice(0, 3), false]);
  strictEqual(receiver.send(Uint8Array.of(9), whole.from), 1);
  const back = await received(sender);
  deepStrictEqual([back.bytes, back.from], [Uint8Array.of(9), { address: loopback, port }]);
  strictEqual(sender.connect({ address: loopback, port }), 0);
  strictEqual(sender.send(text), 5);
  const cut = await received(receiver);
  deepStrictEqual([cut.bytes, cut.truncated], [text.slice(0, 4), true]);
  throws(() => sender.send(new Uint8Array(17)), RangeError);
  throws(() => sender.connect({ address: new Uint8Array(16), port }), RangeError);
}

/** UDP to one port, and only what is longer than a header. */
const toPort = (port: number): readonly FilterInstruction[] => [
  [0x30, 0, 0, 9],
  [0x15, 0, 4, 17],
  [0xb1, 0, 0, 0],
  [0x48, 0, 0, 2],
  [0x15, 0, 1, port],
  [0x06, 0, 0, 0xffff],
  [0x06, 0, 0, 0],
];

async function seePacket(): Promise<void> {
  const { socket, port } = listening(16);
  using receiver = socket;
  using sender = new UdpSocket({ family: "ipv4", longest: 16, device: "lo" });
  const options = { interface: interfaceIndex("lo") ?? 0, protocol: ETH_P_IP, longest: 64 };
  using packets = PacketSocket.open({ ...options, filter: toPort(port) });
  strictEqual(sender.send(text, { address: loopback, port: port === 9 ? 10 : 9 }), 5);
  strictEqual(sender.send(text, { address: loopback, port }), 5);
  await received(receiver);
  const packet = await waitFor("a packet", () => {
    const one = packets.receive();
    return typeof one === "number" || one.kind === "outgoing" ? undefined : one;
  });
  deepStrictEqual(packet.bytes.subarray(28), text);
  deepStrictEqual([packet.kind, packet.hardwareAddress], ["host", new Uint8Array(6)]);
  // Nobody makes a checksum for loopback.
  ok(packet.checksumPending && !packet.truncated);
  strictEqual(packets.receive(), -Errno.EAGAIN);
}

export const datagramChecks: readonly Check[] = [
  { name: "UDP brings bytes and who sent them", run: exchange },
  {
    name: "an interface has a number, or is not there",
    run: () => {
      strictEqual(interfaceIndex("lo"), 1);
      strictEqual(interfaceIndex("no-such-card"), undefined);
      throws(() => interfaceIndex("x".repeat(LONGEST_INTERFACE_NAME + 1)), RangeError);
      throws(() => interfaceIndex(""), RangeError);
      throws(() => interfaceIndex("a\0b"), RangeError);
    },
  },
  {
    name: "a packet socket sees what its filter lets through, and which checksums are pending",
    absence: withoutRoot,
    unlikeEmulator: "packet sockets and their filters are the other processor's",
    run: seePacket,
  },
];
