/** Bytes through TCP, waiting for them, and what a link runs at. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { makePipe, writeFrom } from "../../../ffi/descriptor.ts";
import { linkSettings } from "../../../ffi/ethtool.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { pollDescriptor } from "../../../ffi/poll.ts";
import { Errno } from "../../../ffi/system-call-error.ts";
import { boundPort, listenTcp, receiveBytes, sendBytes } from "../../../ffi/tcp-socket.ts";
import { acceptConnection, connectTcp, makeTcpSocket } from "../../../ffi/unix-socket.ts";
import { waitFor } from "../../support/wait-for.ts";
import type { Check } from "./check.ts";

const loopbacks = {
  ipv4: Uint8Array.of(127, 0, 0, 1),
  ipv6: Uint8Array.from({ length: 16 }, (_, index) => (index === 15 ? 1 : 0)),
} as const;

async function exchange(family: "ipv4" | "ipv6"): Promise<void> {
  const address = loopbacks[family];
  using listener = listenTcp({ address, port: 0 }, { backlog: 1 });
  const port = boundPort(listener);
  ok(port > 0);
  throws(() => listenTcp({ address, port }, { backlog: 1 }), /EADDRINUSE/);
  using client = makeTcpSocket(family);
  const begun = connectTcp(client, { family, address, port });
  ok(begun === 0 || begun === -Errno.EINPROGRESS);
  ok(pollDescriptor(client, "writable", 5_000));
  const accept = (): OwnedDescriptor | undefined => acceptConnection(listener);
  using server = await waitFor("a connection", accept);
  const memory = new NativeMemory(8);
  strictEqual(receiveBytes(server, memory.address, 8), -Errno.EAGAIN);
  strictEqual(pollDescriptor(server, "readable", 1), false);
  memory.bytes.set([1, 2, 3, 4]);
  strictEqual(sendBytes(client, memory.address, 4), 4);
  memory.bytes.fill(0);
  ok(pollDescriptor(server, "readable", 5_000));
  strictEqual(receiveBytes(server, memory.address, 8), 4);
  deepStrictEqual([...memory.bytes], [1, 2, 3, 4, 0, 0, 0, 0]);
  client.close();
  ok(pollDescriptor(server, "readable", 5_000));
  strictEqual(receiveBytes(server, memory.address, 8), 0);
}

export const streamChecks: readonly Check[] = [
  { name: "bytes go through TCP of IPv4", run: () => exchange("ipv4") },
  { name: "bytes go through TCP of IPv6", run: () => exchange("ipv6") },
  {
    name: "what is ready is seen, and what is not is waited for in vain",
    run: () => {
      const { read, write } = makePipe();
      using reading = read;
      using writing = write;
      strictEqual(pollDescriptor(reading, "readable", 0), false);
      strictEqual(pollDescriptor(writing, "writable", 0), true);
      writeFrom(writing, new NativeMemory(1), 1);
      strictEqual(pollDescriptor(reading, "readable", 0), true);
    },
  },
  {
    name: "loopback has no speed, and what is no link has none either",
    unlikeEmulator: "the ioctl of ethtool is not passed on",
    run: () => {
      strictEqual(linkSettings("lo")?.speed, undefined);
      strictEqual(linkSettings("none-such"), undefined);
    },
  },
];
