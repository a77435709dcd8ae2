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
import { hostlerVersion } from "../../../units/version.ts";
import type { Throughput, ThroughputTest } from "../../tasks/link.ts";
import {
  TEST_MARGIN,
  THROUGHPUT_PROTOCOL_VERSION,
  type ThroughputAnswer,
  type ThroughputHello,
  throughputAnswerSchema,
  throughputLimits,
} from "../../throughput/protocol.ts";
import { decodeIperf3, IPERF3, iperf3ClientWords } from "../../tools/iperf3.ts";
import { findTool, runTool } from "../run-tool.ts";
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
  /** By iperf3 at both ends, and by nothing else. */
  readonly isByTool: boolean;
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
    if (options.isByTool) return await measureByTool(options, target);
    using flow = new Flow();
    const up = await runTest(options, target, flow, "up");
    const down = await runTest(options, target, flow, "down");
    return {
      kind: "measured",
      up: { bytes: up.bytes, seconds: up.seconds },
      down: { bytes: down.bytes, seconds: down.seconds },
      corrupted: up.corrupted + down.corrupted,
      engine: { name: "hostler", version: hostlerVersion },
      address: target.text,
    };
  } catch (error) {
    if (!(error instanceof TestFailed)) throw error;
    return { kind: "failed", reason: error.message.slice(0, 512) };
  }
}

/** iperf3 looks at no byte that comes: nobody knows whether it is the one that was sent. */
async function measureByTool(options: MeasureOptions, target: Target): Promise<Throughput> {
  const program = findTool(IPERF3);
  if (program === null) {
    throw new TestFailed(
      "expected iperf3, as the spec asks for a tool, and it is not installed: " +
        'put it into the image, or say engine = "own" for the stage Network',
    );
  }
  const up = await runIperf3(options, target, { program, direction: "up" });
  const down = await runIperf3(options, target, { program, direction: "down" });
  return {
    kind: "measured",
    up: { bytes: up.bytes, seconds: up.seconds },
    down: { bytes: down.bytes, seconds: down.seconds },
    corrupted: null,
    engine: { name: IPERF3, version: up.version },
    address: target.text,
  };
}

/** The connection to our server is kept meanwhile: it is this card's turn while it is there. */
async function runIperf3(
  options: MeasureOptions,
  target: Target,
  { program, direction }: { readonly program: string; readonly direction: "up" | "down" },
) {
  const { test, card, duration, signal } = options;
  using socket = makeTcpSocket(target.family);
  await connect(socket, options, target);
  const { run, key } = test;
  const seconds = duration / 1_000;
  const hello = { protocol: THROUGHPUT_PROTOCOL_VERSION, run, key, direction, seconds } as const;
  say(socket, { ...hello, tool: IPERF3 });
  const port = await turn(socket, options);
  if (port === undefined) throw new TestFailed("the server tells no port of iperf3");
  const words = iperf3ClientWords(
    { direction, seconds },
    { host: target.text, port, card: card.name },
  );
  const limit = Math.ceil(duration) + 2 * TEST_MARGIN;
  const ended = await runTool([program, ...words], { limit, signal });
  if (ended.kind === "failed") throw new TestFailed(ended.reason);
  const answer = decodeIperf3({ direction, seconds }, ended.output);
  if (answer.kind === "flow") return answer;
  const last = ended.said === "" ? "" : `. It said: ${ended.said}`;
  throw new TestFailed(`iperf3 (exit code ${ended.code}): ${answer.reason}${last}`);
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
    if (answer.say === "go") return answer.port;
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
