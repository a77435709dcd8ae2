/**
 * Runs in a network namespace of a test, as a program: one command, its answer as a line of JSON.
 *
 *   plan DESIRED    what would be done       apply DESIRED   does it, and plans once more
 *   remove GROUP INDEX …  links, by a group of that number
 *   observe         links, tables            counters        of links
 *   allow LIST …    addresses for a minute   allowed LIST    addresses that are
 *   relay TAP PEER SOCKET   a machine's cable: between its TAP and a new one, which the test moves
 *                   into the machine's namespace; lines of the socket, frames in hexadecimal
 *                   digits, are sent as the machine's, and frames to it are printed
 *   serve PROTOCOL ADDRESS PORT        answers with who asked
 *   ask PROTOCOL ADDRESS PORT          asks, and gives the answer
 */
import { libc } from "../../ffi/c-library.ts";
import { POLLIN } from "../../ffi/constants.ts";
import { readInto, writeFrom } from "../../ffi/descriptor.ts";
import { layouts } from "../../ffi/layouts.ts";
import { NativeMemory } from "../../ffi/memory.ts";
import { NetlinkSocket } from "../../ffi/netlink.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { openTap } from "../../ffi/tun.ts";
import {
  allowOnNetwork,
  applyNetwork,
  observeNetwork,
  readAllowList,
  readLinkCounters,
} from "../../src/network/kernel-network.ts";
import { removeLinks } from "../../src/network/link-removal.ts";
import { describeOperation, planNetwork } from "../../src/network/plan.ts";
import { formatIpv4, parseIpv4 } from "../../src/network/subnet.ts";

const virtioHeaderSize = 12;
const [command = "", ...words] = process.argv.slice(2);
const [first = "", second = "", third = ""] = words;

const commands: Readonly<Record<string, () => unknown>> = {
  plan: () => {
    const { operations, refusals } = planNetwork(JSON.parse(first), observeNetwork());
    return { operations: operations.map(describeOperation), refusals };
  },
  apply: () => {
    const begin = performance.now();
    const plan = planNetwork(JSON.parse(first), observeNetwork());
    const planned = performance.now();
    const refused = applyNetwork(plan.operations);
    const applied = performance.now();
    const again = planNetwork(JSON.parse(first), observeNetwork());
    return {
      operations: plan.operations.map(describeOperation),
      refusals: plan.refusals,
      refused: refused.map(({ operation, reason }) => `${describeOperation(operation)}: ${reason}`),
      again: again.operations.map(describeOperation),
      planMilliseconds: planned - begin,
      applyMilliseconds: applied - planned,
      againMilliseconds: performance.now() - applied,
    };
  },
  observe: () => {
    const { links, addresses, routes, chains, settings } = observeNetwork();
    return { links, addresses, routes, chains, settings };
  },
  remove: () => {
    using route = new NetlinkSocket("route");
    const indexes = words.slice(1).map(Number);
    return removeLinks(route, indexes, () => Number(first)).map((error) => error?.code ?? null);
  },
  counters: () => Object.fromEntries(readLinkCounters()),
  allow: () => {
    const addresses = words.slice(1).map((text) => {
      return { address: parseIpv4(text) ?? 0, timeout: 60_000 };
    });
    allowOnNetwork({ bridge: "br-procurator", allowList: first }, addresses);
    return {};
  },
  allowed: () => {
    const list = readAllowList({ bridge: "br-procurator", allowList: first });
    return list.map(({ address, timeout }) => ({ address: formatIpv4(address), timeout }));
  },
};

function open(name: string, as: "new" | "existing"): OwnedDescriptor {
  const tap = openTap({ name, as });
  if (typeof tap === "number") throw new Error(`${name}: error ${tap}`);
  return tap;
}

/** Copies what waits at one end to the other. @returns the frames, without virtio's header */
function copy(from: OwnedDescriptor, to: OwnedDescriptor, memory: NativeMemory): string[] {
  const frames: string[] = [];
  for (let size = readInto(from, memory); size > 0; size = readInto(from, memory)) {
    writeFrom(to, memory, size);
    frames.push(memory.bytes.slice(virtioHeaderSize, size).toHex());
  }
  return frames;
}

async function relay(): Promise<void> {
  const tap = open(first, "existing");
  const peer = open(second, "new");
  const memory = new NativeMemory(70_000);
  const waiting = new NativeMemory(2 * layouts.pollfd.size);
  for (const [index, { number }] of [tap, peer].entries()) {
    waiting.view.setInt32(index * layouts.pollfd.size, number, true);
    waiting.view.setInt16(index * layouts.pollfd.size + layouts.pollfd.events, POLLIN, true);
  }
  const input: string[] = [];
  let rest = "";
  Bun.listen({
    unix: third,
    socket: {
      data: (_socket, bytes) => {
        const lines = (rest + bytes.toString()).split("\n");
        rest = lines.pop() ?? "";
        input.push(...lines);
      },
    },
  });
  console.log("ready");
  for (;;) {
    // Short, so that what comes by the socket is seen as well.
    libc.poll(waiting.address, 2, 2);
    copy(peer, tap, memory);
    for (const frame of copy(tap, peer, memory)) console.log(`frame ${frame}`);
    for (const line of input.splice(0)) {
      memory.bytes.fill(0, 0, virtioHeaderSize);
      const bytes = Uint8Array.fromHex(line);
      memory.bytes.set(bytes, virtioHeaderSize);
      writeFrom(tap, memory, virtioHeaderSize + bytes.length);
      console.log("sent");
    }
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

async function serve(): Promise<void> {
  const port = Number(third);
  if (first === "tcp") {
    Bun.listen({
      hostname: second,
      port,
      socket: { open: (socket) => void socket.end(socket.remoteAddress), data: () => {} },
    });
  } else {
    await Bun.udpSocket({
      hostname: second,
      port,
      socket: {
        data: (socket, _data, askerPort, asker) => void socket.send(asker, askerPort, asker),
      },
    });
  }
  console.log("ready");
}

/** Asks until it is answered: whoever expects none looks at what was dropped. */
async function ask(): Promise<void> {
  const answer = Promise.withResolvers<string>();
  const port = Number(third);
  const data = (_socket: unknown, bytes: Buffer) => answer.resolve(bytes.toString());
  if (first === "tcp") {
    const socket = await Bun.connect({ hostname: second, port, socket: { data } });
    console.log(`answer ${await answer.promise}`);
    socket.end();
  } else {
    const socket = await Bun.udpSocket({ socket: { data } });
    socket.send("?", port, second);
    console.log(`answer ${await answer.promise}`);
    socket.close();
  }
}

const loops: Readonly<Record<string, () => Promise<void>>> = { relay, serve, ask };
const loop = loops[command];
if (loop !== undefined) await loop();
else console.log(JSON.stringify(commands[command]?.()));
