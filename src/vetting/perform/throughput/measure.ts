import { lookup } from "node:dns/promises";
import * as v from "valibot";
import { NativeMemory } from "../../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { bindToDevice } from "../../../../ffi/packet-socket.ts";
import { pollDescriptor } from "../../../../ffi/poll.ts";
import { Errno, errnoMessage } from "../../../../ffi/system-call-error.ts";
import { receiveBytes, sendBytes } from "../../../../ffi/tcp-socket.ts";
import {
  connectTcp,
  finishWriting,
  makeTcpSocket,
  pendingError,
} from "../../../../ffi/unix-socket.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import { parseAddress } from "../../../network/dhcp/address.ts";
import { ipv6Bytes } from "../../../network/dns/upstream.ts";
import { nextTurn } from "../../../store/files.ts";
import type { Milliseconds } from "../../../units/units.ts";
import type { Throughput, ThroughputTest } from "../../tasks/link.ts";
import {
  TEST_MARGIN,
  THROUGHPUT_PROTOCOL_VERSION,
  type ThroughputAnswer,
  type ThroughputHello,
  throughputAnswerSchema,
  throughputLimits,
} from "../../throughput/protocol.ts";
import { Flow } from "./flow.ts";

const CONNECT_WITHIN: Milliseconds = 15_000;
const SLICE: Milliseconds = 200;

export interface MeasureOptions {
  readonly test: ThroughputTest;
  /** All goes by this card, whatever the routes say. */
  readonly card: { readonly name: string; readonly index: number };
  readonly addresses: { readonly ipv4: Uint8Array[]; readonly ipv6: Uint8Array[] };
  /** Of each direction. */
  readonly duration: Milliseconds;
  readonly turnWithin: Milliseconds;
  readonly signal: AbortSignal;
}

/** The test cannot be made: the server, or the way to it, broke. */
class TestFailed extends Error {
  override readonly name = "TestFailed";
}

/** As much as goes, from the card and to it. What breaks is a value: it is not the card's fault. */
export async function measureThroughput(options: MeasureOptions): Promise<Throughput> {
  const { test, addresses } = options;
  let target: Target | undefined;
  try {
    target = await targetOf(test.host, addresses);
  } catch (error) {
    const reason = `${test.host} cannot be found: ${(error as Error).message}`;
    return { kind: "failed", reason: reason.slice(0, 512) };
  }
  if (target === undefined) {
    const reason = `it has no address from which ${test.host} could be reached`;
    return { kind: "not-seen", reason };
  }
  try {
    using flow = new Flow();
    const up = await runTest(options, target, flow, "up");
    const down = await runTest(options, target, flow, "down");
    return {
      kind: "measured",
      up: { bytes: up.bytes, seconds: up.seconds },
      down: { bytes: down.bytes, seconds: down.seconds },
      corrupted: up.corrupted + down.corrupted,
      address: target.text,
    };
  } catch (error) {
    if (!(error instanceof TestFailed)) throw error;
    return { kind: "failed", reason: error.message.slice(0, 512) };
  }
}

interface Target {
  readonly family: "ipv4" | "ipv6";
  readonly address: Uint8Array;
  readonly text: string;
}

/** An address of the server that this card has one of the same kind for. */
async function targetOf(
  host: string,
  { ipv4, ipv6 }: MeasureOptions["addresses"],
): Promise<Target | undefined> {
  for (const { address: text } of await lookup(host, { all: true })) {
    const four = parseAddress(text);
    if (four !== undefined && ipv4.length > 0) return { family: "ipv4", address: four, text };
    const six = ipv6Bytes(text);
    if (six === undefined) continue;
    const hasSuch = ipv6.some((own) => isLinkLocal(own) === isLinkLocal(six));
    if (hasSuch) return { family: "ipv6", address: six, text };
  }
  return undefined;
}

const isLinkLocal = (address: Uint8Array) =>
  address[0] === 0xfe && ((address[1] ?? 0) & 0xc0) === 0x80;

async function runTest(
  options: MeasureOptions,
  target: Target,
  flow: Flow,
  direction: ThroughputHello["direction"],
): Promise<{ bytes: number; seconds: number; corrupted: number }> {
  const { test, duration, signal } = options;
  using socket = makeTcpSocket(target.family);
  await connect(socket, options, target);
  const { run, key } = test;
  const seconds = duration / 1_000;
  say(socket, { protocol: THROUGHPUT_PROTOCOL_VERSION, run, key, direction, seconds });
  await turn(socket, options);
  if (direction === "down") {
    const most = { silence: TEST_MARGIN, all: duration + TEST_MARGIN };
    const flowed = await flow.receive(socket, most, signal);
    if (flowed.ended === "end" && flowed.bytes > 0) return flowed;
    throw new TestFailed(`the connection broke after ${flowed.bytes} bytes: ${flowed.ended}`);
  }
  const sent = await flow.send(socket, duration, signal);
  if (sent.ended !== "time") {
    throw new TestFailed(`the connection broke after ${sent.bytes} bytes: ${sent.ended}`);
  }
  finishWriting(socket);
  const answer = await hear(socket, TEST_MARGIN, signal);
  if (answer.say !== "done") throw new TestFailed(`expected a count, received ${answer.say}`);
  return answer;
}

async function connect(socket: OwnedDescriptor, options: MeasureOptions, target: Target) {
  const { test, card, signal } = options;
  bindToDevice(socket, card.name);
  const { family, address } = target;
  const scope = isLinkLocal(address) ? { scope: card.index } : {};
  const begun = connectTcp(socket, { family, address, port: test.port, ...scope });
  const whom = `${target.text} port ${test.port} by ${card.name}`;
  if (begun < 0 && begun !== -Errno.EINPROGRESS) {
    throw new TestFailed(`cannot connect to ${whom}: ${errnoMessage(-begun)}`);
  }
  if (!(await ready(socket, "writable", CONNECT_WITHIN, signal))) {
    throw new TestFailed(`${whom} does not answer`);
  }
  const error = pendingError(socket);
  if (error !== 0) throw new TestFailed(`cannot connect to ${whom}: ${errnoMessage(error)}`);
}

async function turn(socket: OwnedDescriptor, { turnWithin, signal }: MeasureOptions) {
  const end = monotonicNow() + turnWithin;
  for (;;) {
    const answer = await hear(socket, end - monotonicNow(), signal);
    if (answer.say === "go") return;
    if (answer.say === "refused") throw new TestFailed(`the server refuses: ${answer.reason}`);
  }
}

const byte = new NativeMemory(1);

/** One line. Byte by byte, because what follows it may be the test's own. */
async function hear(
  socket: OwnedDescriptor,
  within: Milliseconds,
  signal: AbortSignal,
): Promise<ThroughputAnswer> {
  const end = monotonicNow() + within;
  let text = "";
  while (!text.endsWith("\n")) {
    const came = receiveBytes(socket, byte.address, 1);
    if (came === -Errno.EAGAIN) {
      if (await ready(socket, "readable", end - monotonicNow(), signal)) continue;
      throw new TestFailed(`the server said nothing for ${Math.round(within / 1_000)} s`);
    }
    if (came === 0) throw new TestFailed("the server closed the connection");
    if (came < 0) throw new TestFailed(`the connection broke: ${errnoMessage(-came)}`);
    text += String.fromCharCode(byte.bytes[0] ?? 0);
    if (text.length > throughputLimits.lineBytes) throw new TestFailed("the server says no line");
  }
  const answer = v.safeParse(v.pipe(v.string(), v.parseJson(), throughputAnswerSchema), text);
  if (!answer.success) throw new TestFailed(`the server says ${JSON.stringify(text)}`);
  return answer.output;
}

function say(socket: OwnedDescriptor, hello: ThroughputHello): void {
  const line = Buffer.from(`${JSON.stringify(hello)}\n`);
  const memory = new NativeMemory(line.length);
  memory.bytes.set(line);
  if (sendBytes(socket, memory.address, line.length) === line.length) return;
  throw new TestFailed("the connection broke at its first line");
}

/** In slices, so that whoever wants this to end is heard. */
async function ready(
  socket: OwnedDescriptor,
  interest: "readable" | "writable",
  within: Milliseconds,
  signal: AbortSignal,
): Promise<boolean> {
  const end = monotonicNow() + within;
  for (;;) {
    const left = end - monotonicNow();
    if (pollDescriptor(socket, interest, Math.min(left, SLICE))) return true;
    if (left <= 0) return false;
    if (signal.aborted) throw new TestFailed("it was to end");
    await nextTurn();
  }
}
