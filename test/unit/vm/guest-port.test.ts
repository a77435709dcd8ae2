/** A device as a port: a socket stands for it, which has an end as the device has nobody there. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { makeSocketPair } from "../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { qemuDriver } from "../../../src/hypervisor/qemu/driver.ts";
import { StreamConnection } from "../../../src/messaging/stream-connection.ts";
import { limits, PORT_NAME } from "../../../src/vm/guest-agent/protocol.ts";
import {
  DevicePort,
  type GuestPort,
  openPort,
  type PortHandlers,
  PortRefused,
} from "../../../src/vm/perform/guest-port.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { filesIn, testMachine, testProgram } from "../../support/hypervisor/machines.ts";
import { waitFor } from "../../support/wait-for.ts";

let loop: EventLoop;
let port: DevicePort;
let theirs: OwnedDescriptor;
let heard = 0;
const told: string[] = [];

beforeEach(() => {
  heard = 0;
  told.splice(0);
  loop = testEventLoop();
  const [device, other] = makeSocketPair();
  theirs = other;
  port = new DevicePort(loop, device, {
    onBytes: (bytes) => {
      heard += bytes.length;
    },
    onGone: () => told.push("gone"),
    onDrained: () => told.push("drained"),
    onFailure: (reason) => told.push(reason),
  });
});

afterEach(() => {
  port[Symbol.dispose]();
  loop[Symbol.dispose]();
});

/** The other end, which reads. */
function asker() {
  let size = 0;
  const stream = new StreamConnection(loop, theirs, {
    queuedBytes: 16 * limits.queuedBytes,
    handlers: {
      onBytes: (bytes) => {
        size += bytes.length;
      },
      onEnd: () => {},
    },
  });
  return {
    stream,
    get size() {
      return size;
    },
  };
}

test("what is said before an asker has said anything is for nobody", () => {
  port.send(new Uint8Array(10));
  expect(port.queuedBytes).toBe(0);
});

test("bytes go both ways, whole, however much waits", async () => {
  const other = asker();
  other.stream.send(new Uint8Array(100));
  await waitFor("what was said", () => heard === 100);
  const piece = new Uint8Array(100_000);
  for (let count = 0; count < 20; count++) port.send(piece);
  await waitFor("all answers", () => other.size === 20 * piece.length);
  await waitFor("that it is told", () => told.includes("drained"));
  expect(port.queuedBytes).toBe(0);
  other.stream.close();
});

test("an asker that does not read its answers is not heard until it does", async () => {
  const first = new TextEncoder().encode("hello");
  const speaking = asker();
  speaking.stream.send(first);
  await waitFor("what was said", () => heard === first.length);
  // The other end's socket takes some of it; the rest is over the limit.
  const flood = new Uint8Array(4 * limits.queuedBytes);
  port.send(flood);
  expect(port.queuedBytes).toBeGreaterThan(limits.queuedBytes);
  speaking.stream.send(first);
  await waitFor("all answers", () => speaking.size === flood.length);
  await waitFor("the second", () => heard === 2 * first.length);
  speaking.stream.close();
});

test("that nobody is there is told once, and what waits is dropped", async () => {
  const other = asker();
  other.stream.send(new Uint8Array(1));
  await waitFor("what was said", () => heard === 1);
  other.stream.close();
  await waitFor("the end", () => told.includes("gone"));
  port.send(new Uint8Array(10));
  expect(port.queuedBytes).toBe(0);
  expect(told).toEqual(["gone"]);
});

test("closed twice, it is closed once", () => {
  port[Symbol.dispose]();
  port[Symbol.dispose]();
  port.send(new Uint8Array(1));
  expect(told).toEqual([]);
});

test("a port of AF_VSOCK that is taken, or without the module, is refused with the mend", () => {
  const place = { kind: "vsock", port: 26_736 } as const;
  const nothing: PortHandlers = {
    ...{ onBytes: () => {}, onGone: () => {}, onDrained: () => {}, onFailure: () => {} },
  };
  let first: GuestPort | undefined;
  try {
    first = openPort(loop, place, nothing);
  } catch (error) {
    expect(error).toBeInstanceOf(PortRefused);
  }
  expect(() => openPort(loop, place, nothing)).toThrow(/AF_VSOCK: E\w+\. .*--port vsock:NUMBER/);
  first?.[Symbol.dispose]();
});

test("the port that the agent looks for is the one that a VMM gives", () => {
  const { arguments: words } = qemuDriver.plan(
    testMachine({ agent: "virtio-serial" }),
    filesIn("/run/first"),
    testProgram,
    "new",
  );
  expect(words).toContain(
    `virtserialport,bus=channels.0,nr=1,chardev=agent,id=agent-port,name=${PORT_NAME}`,
  );
});
