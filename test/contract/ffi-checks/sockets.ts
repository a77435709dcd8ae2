/** Unix and TCP sockets: descriptors, credentials, limits and refusals. */
import { deepStrictEqual, ok, strictEqual, throws } from "node:assert/strict";
import { existsSync, fstatSync, readdirSync, writeFileSync } from "node:fs";
import { libc } from "../../../ffi/c-library.ts";
import { F_SETFL, O_CLOEXEC } from "../../../ffi/constants.ts";
import { duplicate, makeEventCounter, makePipe } from "../../../ffi/descriptor.ts";
import { EPOLLOUT, EpollWaiter, epollAdd, makeEpoll } from "../../../ffi/epoll.ts";
import { cString, NativeMemory, readCString } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { processInformation, signalProcess } from "../../../ffi/pidfd.ts";
import { descriptorLimit, setDescriptorLimit } from "../../../ffi/process.ts";
import { Errno } from "../../../ffi/system-call-error.ts";
import {
  acceptConnection,
  bindUnix,
  connectTcp,
  connectUnix,
  finishWriting,
  hasHungUp,
  LONGEST_SOCKET_PATH,
  listen,
  MOST_DESCRIPTORS_A_MESSAGE,
  makeSocketPair,
  makeTcpSocket,
  makeUnixSocket,
  peerCredentials,
  peerLabel,
  peerProcess,
  pendingError,
  receiveCredentials,
  receiveMessage,
  sendMessage,
} from "../../../ffi/unix-socket.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { type Check, lowestFreeDescriptor } from "./check.ts";
import { descriptorFlags } from "./descriptors.ts";

const us = () => ({
  processId: process.pid,
  user: process.getuid?.() ?? -1,
  group: process.getgid?.() ?? -1,
});

function sendText(socket: OwnedDescriptor, text: string, descriptors: readonly number[] = []) {
  return sendMessage(socket, cString(text), { offset: 0, length: text.length }, descriptors);
}

function carryDescriptors(count: number): void {
  const [left, right] = makeSocketPair();
  using sender = left;
  using receiver = right;
  const pipe = makePipe();
  using read = pipe.read;
  using write = pipe.write;
  const sent = Array.from({ length: count }, (_, index) => (index % 3 ? read : write).number);
  strictEqual(sendText(sender, "x", sent), 1);
  const memory = new NativeMemory(16);
  const message = receiveMessage(receiver, memory);
  using stack = new DisposableStack();
  for (const descriptor of message.descriptors) stack.use(descriptor);
  strictEqual(message.length, 1);
  strictEqual(message.truncated, false);
  strictEqual(message.credentials, undefined);
  strictEqual(message.descriptors.length, count);
  message.descriptors.forEach((descriptor, index) => {
    ok(!sent.includes(descriptor.number));
    // The two ends of a pipe have one inode and differ in their access mode.
    const end = index % 3 ? read : write;
    strictEqual(descriptorFlags(descriptor.number) & 3, descriptorFlags(end.number) & 3);
    strictEqual(fstatSync(descriptor.number).ino, fstatSync(end.number).ino);
    strictEqual(descriptorFlags(descriptor.number) & O_CLOEXEC, O_CLOEXEC);
  });
}

/** The kernel installs as many as the limit allows, and says that it dropped the rest. */
function dropDescriptors(): void {
  const [left, right] = makeSocketPair();
  using sender = left;
  using receiver = right;
  using counter = makeEventCounter();
  strictEqual(sendText(sender, "x", new Array(200).fill(counter.number)), 1);
  const limit = descriptorLimit();
  ok(limit !== undefined);
  setDescriptorLimit({ soft: lowestFreeDescriptor() + 4, hard: limit.hard });
  const message = receiveMessage(receiver, new NativeMemory(16));
  setDescriptorLimit(limit);
  using stack = new DisposableStack();
  for (const descriptor of message.descriptors) stack.use(descriptor);
  strictEqual(message.truncated, true);
  ok(message.descriptors.length > 0 && message.descriptors.length < 200);
}

const messageChecks: readonly Check[] = [
  ...[0, 1, 2, MOST_DESCRIPTORS_A_MESSAGE].map((count) => ({
    name: `a message carries ${count} descriptors`,
    run: () => carryDescriptors(count),
  })),
  {
    name: "a message with 254 descriptors is refused before it is sent",
    run: () => {
      const [left, right] = makeSocketPair();
      using sender = left;
      using receiver = right;
      const many = new Array(MOST_DESCRIPTORS_A_MESSAGE + 1).fill(sender.number);
      throws(() => sendText(sender, "x", many), RangeError);
      strictEqual(receiveMessage(receiver, new NativeMemory(1)).length, -Errno.EAGAIN);
      strictEqual(sendText(sender, "x", [-1]), -Errno.EBADF);
    },
  },
  { name: "descriptors that do not fit are reported as dropped", run: dropDescriptors },
  {
    name: "part of a memory is sent, in order, and the end of the stream is 0",
    run: () => {
      const [sender, right] = makeSocketPair();
      using receiver = right;
      const memory = cString("0123456789");
      strictEqual(sendMessage(sender, memory, { offset: 3, length: 4 }, []), 4);
      sender.close();
      const received = new NativeMemory(16);
      strictEqual(receiveMessage(receiver, received).length, 4);
      strictEqual(readCString(received.address), "3456");
      strictEqual(receiveMessage(receiver, received).length, 0);
      strictEqual(sendText(receiver, "x"), -Errno.EPIPE);
    },
  },
  {
    name: "a peer that writes no more, or is gone, has hung up; what it wrote is still read",
    run: () => {
      const [left, right] = makeSocketPair();
      using one = left;
      strictEqual(sendText(right, "x"), 1);
      strictEqual(hasHungUp(one), false);
      finishWriting(right);
      strictEqual(hasHungUp(one), true);
      strictEqual(hasHungUp(right), false);
      strictEqual(receiveMessage(one, new NativeMemory(4)).length, 1);
      strictEqual(receiveMessage(one, new NativeMemory(4)).length, 0);
      strictEqual(sendText(one, "y"), 1);
      right.close();
      strictEqual(hasHungUp(one), true);
      finishWriting(makeUnixSocket("stream"));
    },
  },
  {
    name: "a full socket answers EAGAIN, also a blocking one",
    run: () => {
      const [left, right] = makeSocketPair();
      using sender = left;
      using _receiver = right;
      const memory = new NativeMemory(1_000_000);
      // A socket that somebody passed to us may well be a blocking one.
      strictEqual(libc.fcntl(sender.number, F_SETFL, 0), 0);
      let result = 0;
      for (let sends = 0; sends < 100 && result >= 0; sends++) {
        result = sendMessage(sender, memory, { offset: 0, length: memory.size }, []);
      }
      strictEqual(result, -Errno.EAGAIN);
    },
  },
];

const credentialChecks: readonly Check[] = [
  {
    name: "the kernel says who the peer is",
    run: () => {
      const [left, right] = makeSocketPair();
      using one = left;
      using _other = right;
      deepStrictEqual(peerCredentials(one), us());
      const label = peerLabel(one);
      ok(label === undefined || (label.length > 0 && !label.includes("\0")));
      throws(() => peerCredentials(makeEventCounter()), { code: "ENOTSOCK" });
    },
  },
  {
    name: "a message brings its sender's credentials, with descriptors beside them",
    run: () => {
      const [left, right] = makeSocketPair();
      using sender = left;
      using receiver = right;
      receiveCredentials(receiver);
      const many = new Array(MOST_DESCRIPTORS_A_MESSAGE).fill(sender.number);
      strictEqual(sendText(sender, "x", many), 1);
      const message = receiveMessage(receiver, new NativeMemory(16));
      for (const descriptor of message.descriptors) descriptor.close();
      deepStrictEqual(message.credentials, us());
      strictEqual(message.descriptors.length, MOST_DESCRIPTORS_A_MESSAGE);
      strictEqual(message.truncated, false);
    },
  },
  {
    name: "a descriptor for the peer's process is ours, Linux 6.5",
    run: () => {
      const [left, right] = makeSocketPair();
      using one = left;
      using _other = right;
      using peer = peerProcess(one);
      if (peer === undefined) return;
      strictEqual(signalProcess(peer, 0), "sent");
      const information = processInformation(peer);
      if (typeof information === "object") strictEqual(information.processId, process.pid);
    },
  },
];

function connectThroughPath(): void {
  using folder = temporaryFolder();
  const path = folder.file("socket");
  using listener = makeUnixSocket("stream");
  using early = makeUnixSocket("stream");
  strictEqual(connectUnix(early, path), -Errno.ENOENT);
  strictEqual(bindUnix(listener, path), 0);
  strictEqual(connectUnix(early, path), -Errno.ECONNREFUSED);
  listen(listener, 8);
  strictEqual(acceptConnection(listener), undefined);
  strictEqual(connectUnix(early, path), 0);
  strictEqual(pendingError(early), 0);
  using accepted = acceptConnection(listener);
  ok(accepted !== undefined);
  strictEqual(sendText(early, "hello"), 5);
  const received = new NativeMemory(16);
  strictEqual(receiveMessage(accepted, received).length, 5);
  strictEqual(readCString(received.address), "hello");
  using second = makeUnixSocket("stream");
  strictEqual(bindUnix(second, path), -Errno.EADDRINUSE);
  writeFileSync(folder.file("file"), "");
  strictEqual(connectUnix(second, folder.file("file")), -Errno.ECONNREFUSED);
}

function refusePaths(): void {
  using socket = makeUnixSocket("stream");
  for (const path of ["", "/tmp/a\0b", `/${"x".repeat(LONGEST_SOCKET_PATH)}`, "ü".repeat(54)]) {
    throws(() => bindUnix(socket, path), RangeError);
    throws(() => connectUnix(socket, path), RangeError);
  }
  using folder = temporaryFolder();
  const longest = `${folder.path}/`.padEnd(LONGEST_SOCKET_PATH, "x");
  strictEqual(longest.length, LONGEST_SOCKET_PATH);
  strictEqual(bindUnix(socket, longest), 0);
  ok(readdirSync(folder.path).includes(longest.slice(folder.path.length + 1)));
}

/** Waits until a connection stands or is refused. */
function untilWritable(socket: OwnedDescriptor): void {
  using epoll = makeEpoll();
  epollAdd(epoll, socket, { events: EPOLLOUT, key: 1 });
  new EpollWaiter(epoll.number, 1).wait();
}

function connectOverTcp(): void {
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
  const address = new Uint8Array([127, 0, 0, 1]);
  using socket = makeTcpSocket("ipv4");
  const result = connectTcp(socket, { family: "ipv4", address, port: server.port });
  ok(result === 0 || result === -Errno.EINPROGRESS);
  untilWritable(socket);
  strictEqual(pendingError(socket), 0);
  server.stop(true);
  using refused = makeTcpSocket("ipv4");
  const second = connectTcp(refused, { family: "ipv4", address, port: server.port });
  if (second === -Errno.EINPROGRESS) untilWritable(refused);
  const error = second === -Errno.EINPROGRESS ? pendingError(refused) : -second;
  strictEqual(error, Errno.ECONNREFUSED);
}

const connectionChecks: readonly Check[] = [
  { name: "a connection goes through a path", run: connectThroughPath },
  { name: "a path that the kernel would misread is refused", run: refusePaths },
  {
    name: "a name in the abstract namespace is not a path",
    run: () => {
      const name = `@hostler-check-${process.pid}-${Bun.nanoseconds()}`;
      using listener = makeUnixSocket("stream");
      using client = makeUnixSocket("stream");
      strictEqual(bindUnix(listener, name), 0);
      ok(!existsSync(name));
      listen(listener, 1);
      strictEqual(connectUnix(client, name), 0);
      using accepted = acceptConnection(listener);
      ok(accepted !== undefined);
    },
  },
  {
    name: "a datagram that does not fit is reported as cut",
    run: () => {
      using folder = temporaryFolder();
      const path = folder.file("datagrams");
      using receiver = makeUnixSocket("datagram");
      using sender = makeUnixSocket("datagram");
      receiveCredentials(receiver);
      strictEqual(bindUnix(receiver, path), 0);
      strictEqual(connectUnix(sender, path), 0);
      strictEqual(sendText(sender, "READY=1"), 7);
      strictEqual(sendText(sender, "READY=1"), 7);
      const whole = receiveMessage(receiver, new NativeMemory(16));
      deepStrictEqual([whole.length, whole.truncated], [7, false]);
      deepStrictEqual(whole.credentials, us());
      const cut = receiveMessage(receiver, new NativeMemory(4));
      deepStrictEqual([cut.length, cut.truncated], [4, true]);
    },
  },
  { name: "TCP connects, and says why it could not", run: connectOverTcp },
  {
    name: "a duplicate of a socket is the same connection",
    run: () => {
      const [left, right] = makeSocketPair();
      using one = duplicate(left.number);
      using other = right;
      left.close();
      strictEqual(sendText(one, "x"), 1);
      strictEqual(receiveMessage(other, new NativeMemory(4)).length, 1);
    },
  },
];

export const socketChecks: readonly Check[] = [
  ...messageChecks,
  ...credentialChecks,
  ...connectionChecks,
];
