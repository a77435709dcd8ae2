/** A client of the agent's wire, with descriptors; it looks at its socket when it is asked to. */
import { randomBytes } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import * as v from "valibot";
import { makePipe, readInto } from "../../ffi/descriptor.ts";
import { NativeMemory } from "../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { isThere, processInformation, signalProcess } from "../../ffi/pidfd.ts";
import { Errno, errnoName } from "../../ffi/system-call-error.ts";
import { connectUnix, makeUnixSocket, receiveMessage, sendMessage } from "../../ffi/unix-socket.ts";
import { encodeFrame, FrameReader } from "../../src/messaging/frame.ts";
import { descriptorInformation } from "../../src/process/perform/process-table.ts";
import {
  type AgentReply,
  agentReplySchema,
  type Hello,
  helloSchema,
  PROTOCOL_VERSION,
  type WireEnding,
} from "../../src/process/protocol.ts";
import { waitFor } from "./wait-for.ts";

const READ_SIZE = 65_536;
const incoming = new NativeMemory(READ_SIZE);

/** A Unix stream socket of a test, which never blocks. */
export class RawClient implements Disposable {
  readonly socket: OwnedDescriptor;
  readonly descriptors: OwnedDescriptor[] = [];
  received = new Uint8Array(0);
  /** True when the peer has closed. */
  ended = false;

  constructor(socket: OwnedDescriptor) {
    this.socket = socket;
  }

  /** Connects, as soon as somebody listens there and has room. */
  static async connect(path: string): Promise<RawClient> {
    const socket = makeUnixSocket("stream");
    const later = [-Errno.EAGAIN, -Errno.ENOENT, -Errno.ECONNREFUSED] as number[];
    const result = await waitFor(`a listener at ${path}`, () => {
      const code = connectUnix(socket, path);
      return later.includes(code) ? undefined : { code };
    });
    if (result.code < 0) throw new Error(`Cannot connect to ${path}: ${errnoName(-result.code)}`);
    return new RawClient(socket);
  }

  /** Sends what the peer takes at once. @returns the bytes sent; -1 when the peer has closed */
  trySend(bytes: Uint8Array, descriptors: readonly number[] = []): number {
    const memory = new NativeMemory(bytes.length);
    memory.bytes.set(bytes);
    const range = { offset: 0, length: bytes.length };
    const result = sendMessage(this.socket, memory, range, descriptors);
    if (result === -Errno.EAGAIN) return 0;
    if (result === -Errno.EPIPE || result === -Errno.ECONNRESET) return -1;
    if (result < 0) throw new Error(`Cannot send: ${errnoName(-result)}`);
    return result;
  }

  /** Sends all of it, with the descriptors on the first byte. @returns false: the peer closed */
  async sendBytes(bytes: Uint8Array, descriptors: readonly number[] = []): Promise<boolean> {
    let sent = this.trySend(bytes, descriptors);
    if (sent < 0) return false;
    let first = sent === 0;
    await waitFor("the peer to take bytes", () => {
      while (sent < bytes.length) {
        const more = this.trySend(bytes.subarray(sent), first ? descriptors : []);
        if (more < 0) sent = Number.POSITIVE_INFINITY;
        if (more <= 0) break;
        first = false;
        sent += more;
      }
      return sent >= bytes.length;
    });
    return Number.isFinite(sent);
  }

  /** Takes what has come. */
  look(): void {
    for (;;) {
      const message = receiveMessage(this.socket, incoming);
      if (message.length === -Errno.EAGAIN) return;
      if (message.length <= 0) {
        this.ended = true;
        return;
      }
      this.descriptors.push(...message.descriptors);
      this.take(incoming.bytes.slice(0, message.length));
    }
  }

  protected take(bytes: Uint8Array<ArrayBuffer>): void {
    this.received = new Uint8Array(Buffer.concat([this.received, bytes]));
  }

  /** The first `count` bytes, as soon as they have come. */
  async read(count: number): Promise<Uint8Array> {
    await waitFor(`${count} bytes (have ${this.received.length})`, () => {
      this.look();
      return this.received.length >= count;
    });
    const bytes = this.received.slice(0, count);
    this.received = this.received.slice(count);
    return bytes;
  }

  async closed(deadlineMilliseconds?: number): Promise<void> {
    const look = () => {
      this.look();
      return this.ended;
    };
    await waitFor("the peer to close the connection", look, deadlineMilliseconds);
  }

  [Symbol.dispose](): void {
    for (const descriptor of this.descriptors.splice(0)) descriptor.close();
    this.socket.close();
  }
}

export interface Received {
  readonly reply: AgentReply;
  readonly descriptors: OwnedDescriptor[];
}

/** What a start needs; the rest is usual. */
export interface StartFields {
  readonly argv: readonly string[];
  readonly invocation?: string;
  readonly environment?: readonly string[];
  readonly leftovers?: "kill" | "keep";
  /** Descriptor of this process to descriptor of the child. */
  readonly descriptors?: readonly (readonly [source: number, target: number])[];
  readonly [field: string]: unknown;
}

export const newInvocation = () => randomBytes(16).toString("hex");

export const clientHello: Hello = {
  kind: "hello",
  protocol: PROTOCOL_VERSION,
  role: "orchestrator",
  version: "test",
  instance: "0000000000000000",
};

/** Whom a pidfd means, as the host numbers it; -1 once it was reaped. */
export function hostProcessIdOf(process: OwnedDescriptor): number {
  return Number(descriptorInformation(process.number).get("Pid"));
}

/** True when everybody who could write to the pipe has closed it. */
export function isAtEnd(pipe: OwnedDescriptor): boolean {
  return readInto(pipe, new NativeMemory(READ_SIZE)) === 0;
}

/** A child, as an agent's client knows it. */
export class TestChild {
  readonly invocation: string;
  /** As the agent numbers it. */
  readonly processId: number;
  readonly process: OwnedDescriptor;
  readonly #client: AgentClient;

  constructor(client: AgentClient, invocation: string, reply: Received) {
    const [process] = reply.descriptors;
    if (reply.reply.kind !== "started" || process === undefined) {
      throw new Error(`Expected started, received ${JSON.stringify(reply.reply)}`);
    }
    this.#client = client;
    this.invocation = invocation;
    this.processId = reply.reply.process_id;
    this.process = process;
  }

  /** As the host numbers it; -1 once it was reaped. */
  get hostProcessId(): number {
    return hostProcessIdOf(this.process);
  }

  signal(number: number): boolean {
    return signalProcess(this.process, number) === "sent";
  }

  /** Its end as the agent tells it. */
  async told(): Promise<WireEnding> {
    return await this.#client.exited(this.invocation);
  }

  /** Waits until it was reaped; its end as the kernel tells it, where it does. */
  async reaped(): Promise<unknown> {
    await waitFor("the child to be reaped", () => !isThere(this.process));
    const information = processInformation(this.process);
    return typeof information === "object" ? information.ending : undefined;
  }
}

/** Our own protocol. */
export class AgentClient extends RawClient {
  readonly #reader = new FrameReader({ frameBytes: 1 << 26, frameDescriptors: 253 });
  readonly #frames: Received[] = [];
  #nextId = 1;
  hello: Hello | undefined;

  /** Connects and says hello; `frame` is the first one to send, for one that lies. */
  static override async connect(path: string, hello: unknown = clientHello): Promise<AgentClient> {
    const { socket } = await RawClient.connect(path);
    const client = new AgentClient(socket);
    await client.greet(hello);
    return client;
  }

  async greet(hello: unknown = clientHello): Promise<void> {
    await this.sendBytes(encodeFrame(hello));
    await this.heardHello();
  }

  async heardHello(): Promise<void> {
    await waitFor("the agent's hello", () => {
      this.look();
      return this.ended || this.hello !== undefined;
    });
    if (this.hello === undefined) throw new Error("The agent closed the connection");
  }

  protected override take(bytes: Uint8Array<ArrayBuffer>): void {
    this.#reader.push(bytes);
    for (let frame = this.#reader.next(); frame !== undefined; frame = this.#reader.next()) {
      if ("refusal" in frame) throw new Error(`The agent sent ${JSON.stringify(frame.refusal)}`);
      if (this.hello === undefined) {
        this.hello = v.parse(helloSchema, frame.body);
        continue;
      }
      const reply = v.parse(agentReplySchema, frame.body);
      this.#frames.push({ reply, descriptors: this.descriptors.splice(0, frame.descriptors) });
    }
  }

  /** Frames that came and that nobody asked for. */
  get unread(): AgentReply[] {
    this.look();
    return this.#frames.map(({ reply }) => reply);
  }

  /** The next frame that is wanted, out of the order in which they come. */
  async next(
    description: string,
    wanted: (reply: AgentReply) => boolean,
    deadlineMilliseconds?: number,
  ): Promise<Received> {
    const find = () => {
      this.look();
      const index = this.#frames.findIndex(({ reply }) => wanted(reply));
      if (index >= 0) return this.#frames.splice(index, 1)[0];
      return this.ended ? ("ended" as const) : undefined;
    };
    const found = await waitFor(description, find, deadlineMilliseconds);
    if (found === "ended") throw new Error(`The agent closed the connection before ${description}`);
    return found;
  }

  /** Sends a request, and gives its answer. */
  async request(
    fields: Readonly<Record<string, unknown>>,
    descriptors: readonly number[] = [],
    deadlineMilliseconds?: number,
  ): Promise<Received> {
    const id = this.#nextId++;
    await this.sendBytes(encodeFrame({ id, ...fields }, descriptors.length), descriptors);
    const isAnswer = (reply: AgentReply) => "id" in reply && reply.id === id;
    return await this.next(`the answer to ${fields["kind"]}`, isAnswer, deadlineMilliseconds);
  }

  async requestStart(fields: StartFields): Promise<Received> {
    const { descriptors = [], ...rest } = fields;
    const request = {
      kind: "start",
      invocation: newInvocation(),
      environment: [],
      leftovers: "kill",
      ...rest,
      descriptors: descriptors.map(([, target]) => target),
    };
    return await this.request(
      request,
      descriptors.map(([source]) => source),
    );
  }

  /** Starts a child and says that it was seen. @throws Error when it is refused */
  async start(fields: StartFields): Promise<TestChild> {
    const invocation = fields.invocation ?? newInvocation();
    const reply = await this.requestStart({ ...fields, invocation });
    const child = new TestChild(this, invocation, reply);
    await this.sendBytes(encodeFrame({ kind: "seen", id: this.#nextId++, invocation }));
    return child;
  }

  /** The error that a start is refused with. @throws Error when it was started */
  async refusal(fields: StartFields): Promise<Extract<AgentReply, { kind: "error" }>["error"]> {
    const { reply } = await this.requestStart(fields);
    if (reply.kind === "error") return reply.error;
    throw new Error(`Expected a refusal, received ${JSON.stringify(reply)}`);
  }

  async exited(invocation: string): Promise<WireEnding> {
    const { reply } = await this.next(
      `the end of ${invocation}`,
      (found) => found.kind === "exited" && found.invocation === invocation,
    );
    if (reply.kind !== "exited") throw new Error("unreachable");
    return reply.ending;
  }

  async ping(deadlineMilliseconds?: number): Promise<void> {
    const { reply } = await this.request({ kind: "ping" }, [], deadlineMilliseconds);
    if (reply.kind !== "pong") throw new Error(`Expected pong, received ${reply.kind}`);
  }

  /** Starts a child whose standard output comes back as text, up to a line "end" or its end. */
  async output(fields: StartFields): Promise<{ child: TestChild; lines: string[] }> {
    const { read, write } = makePipe();
    try {
      const descriptors = [...(fields.descriptors ?? []), [write.number, 1]] as const;
      const child = await this.start({ ...fields, descriptors });
      write.close();
      return { child, lines: await readLines(read) };
    } finally {
      write.close();
      read.close();
    }
  }

  override [Symbol.dispose](): void {
    for (const { descriptors } of this.#frames) {
      for (const descriptor of descriptors) descriptor.close();
    }
    super[Symbol.dispose]();
  }
}

/** Reads a pipe to a line "end", or to its end. */
export async function readLines(pipe: OwnedDescriptor): Promise<string[]> {
  const memory = new NativeMemory(READ_SIZE);
  let text = "";
  await waitFor("all that the child writes", () => {
    for (;;) {
      const length = readInto(pipe, memory);
      if (length === -Errno.EAGAIN) return text.endsWith("end\n");
      if (length <= 0) return true;
      text += new TextDecoder().decode(memory.bytes.subarray(0, length));
    }
  });
  return text.split("\n").slice(0, -1);
}

/** A descriptor of /dev/null, for tests that need many of any kind. */
export function openNull(): { readonly number: number } & Disposable {
  const number = openSync("/dev/null", "r+");
  return { number, [Symbol.dispose]: () => closeSync(number) };
}
