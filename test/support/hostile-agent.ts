/** An agent that speaks our wire and misbehaves as it is told, in the process of the test. */
import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { libc } from "../../ffi/c-library.ts";
import { SCM_CREDENTIALS, SOL_SOCKET, SYS_sendmsg } from "../../ffi/constants.ts";
import { layouts } from "../../ffi/layouts.ts";
import { cString, NativeMemory } from "../../ffi/memory.ts";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { openProcess } from "../../ffi/pidfd.ts";
import { encodeFrame, FrameReader } from "../../src/messaging/frame.ts";
import { type AgentReply, type AgentRequest, helloSchema } from "../../src/process/protocol.ts";
import { clientHello, RawClient } from "./agent-client.ts";
import { childOf } from "./partition.ts";
import { waitFor } from "./wait-for.ts";

export type Request<Kind extends AgentRequest["kind"]> = Extract<AgentRequest, { kind: Kind }>;

export const agentHello = { ...clientHello, role: "agent" };

export class HostileAgent extends RawClient {
  readonly #reader = new FrameReader({ frameBytes: 1 << 26, frameDescriptors: 253 });
  readonly requests: AgentRequest[] = [];
  readonly #children: Disposable[] = [];

  /** Connects to an orchestrator that listens, and says a hello. */
  static async dial(path: string, hello: unknown = agentHello): Promise<HostileAgent> {
    // The orchestrator may have the agent before this one still.
    const { socket } = await RawClient.connect(path);
    const agent = new HostileAgent(socket);
    agent.trySend(encodeFrame(hello));
    return agent;
  }

  protected override take(bytes: Uint8Array<ArrayBuffer>): void {
    this.#reader.push(bytes);
    for (let frame = this.#reader.next(); frame !== undefined; frame = this.#reader.next()) {
      if ("refusal" in frame) throw new Error(`Received ${JSON.stringify(frame.refusal)}`);
      for (const descriptor of this.descriptors.splice(0, frame.descriptors)) descriptor.close();
      const isHello = (frame.body as { kind?: string }).kind === helloSchema.entries.kind.literal;
      if (!isHello) this.requests.push(frame.body as AgentRequest);
    }
  }

  /** The next request of this kind. */
  async asked<Kind extends AgentRequest["kind"]>(kind: Kind): Promise<Request<Kind>> {
    const found = await waitFor(`a request "${kind}"`, () => {
      this.look();
      const index = this.requests.findIndex((request) => request.kind === kind);
      if (index >= 0) return { request: this.requests.splice(index, 1)[0] };
      return this.ended && { request: undefined };
    });
    if (found.request === undefined) throw new Error(`The connection ended before "${kind}"`);
    return found.request as Request<Kind>;
  }

  answer(reply: AgentReply, descriptors: readonly number[] = [], announced?: number): void {
    this.trySend(encodeFrame(reply, announced ?? descriptors.length), descriptors);
  }

  /** Says that the start led to this descriptor. */
  answerStart(request: Request<"start">, descriptors: readonly number[]): void {
    this.answer({ kind: "started", id: request.id, process_id: 1_000 }, descriptors);
  }

  /** Starts what was asked for in truth: a child of this process. */
  startTruly(request: Request<"start">): TestProcess {
    const child = childProcess(["/bin/sleep", "1000"]);
    this.#children.push(child);
    this.answerStart(request, [child.process.number]);
    return child;
  }

  override [Symbol.dispose](): void {
    for (const child of this.#children) child[Symbol.dispose]();
    super[Symbol.dispose]();
  }
}

/** A child of this process, with its pidfd. */
export interface TestProcess extends Disposable {
  readonly processId: number;
  readonly process: OwnedDescriptor;
}

export function childProcess(argv: readonly string[]): TestProcess {
  const [program = "", ...words] = argv;
  const child = spawn(program, words, { stdio: "ignore", detached: true });
  const processId = child.pid ?? 0;
  const process = openProcess(processId);
  if (process === undefined) throw new Error(`${program} has ended already`);
  const end = () => {
    child.kill("SIGKILL");
    if (process.isOpen) process.close();
  };
  return { processId, process, [Symbol.dispose]: end };
}

/** A child of a child. */
export async function grandchildProcess(): Promise<TestProcess> {
  const child = childProcess(["/bin/sh", "-c", "sleep 1000; :"]);
  const processId = await waitFor("a grandchild", () => childOf(child.processId));
  const process = openProcess(processId);
  if (process === undefined) throw new Error("the grandchild has ended already");
  const end = () => {
    libc.kill(processId, 9);
    child[Symbol.dispose]();
    process.close();
  };
  return { processId, process, [Symbol.dispose]: end };
}

const numbers =
  process.arch === "arm64" ? { memfd: 279, pidfdOpen: 434 } : { memfd: 319, pidfdOpen: 434 };

/** A descriptor that is closed at the end of the block. */
export function memoryFile(): OwnedDescriptor {
  const name = cString("hostler-test");
  return new OwnedDescriptor(libc.syscall(numbers.memfd, name.address, 0, 0, 0, 0, 0));
}

/** PIDFD_THREAD, Linux 6.9: a descriptor of one thread. */
export function threadDescriptor(threadId: number): OwnedDescriptor {
  const PIDFD_THREAD = 0o200;
  const number = libc.syscall(numbers.pidfdOpen, threadId, PIDFD_THREAD, 0, 0, 0, 0);
  return new OwnedDescriptor(number);
}

/** Sends bytes in the name of another process, as root may: SCM_CREDENTIALS, unix(7). */
export function sendInTheNameOf(socket: OwnedDescriptor, bytes: Uint8Array, processId: number) {
  const { cmsghdr, iovec, msghdr, ucred } = layouts;
  const text = new NativeMemory(bytes.length);
  text.bytes.set(bytes);
  const vector = new NativeMemory(iovec.size);
  vector.setPointer(iovec.iov_base, text.address);
  vector.setUnsigned64(iovec.iov_len, bytes.length);
  const control = new NativeMemory(cmsghdr.size + 16);
  control.setUnsigned64(cmsghdr.cmsg_len, cmsghdr.size + ucred.size);
  control.view.setInt32(cmsghdr.cmsg_level, SOL_SOCKET, true);
  control.view.setInt32(cmsghdr.cmsg_type, SCM_CREDENTIALS, true);
  control.view.setInt32(cmsghdr.size + ucred.pid, processId, true);
  const header = new NativeMemory(msghdr.size);
  header.setPointer(msghdr.msg_iov, vector.address);
  header.setUnsigned64(msghdr.msg_iovlen, 1);
  header.setPointer(msghdr.msg_control, control.address);
  header.setUnsigned64(msghdr.msg_controllen, control.size);
  const sent = libc.syscall(SYS_sendmsg, socket.number, header.address, 0, 0, 0, 0);
  if (sent !== bytes.length) throw new Error("Cannot send in the name of another process");
}

export function openedFile(path: string, flags: string | number = "r"): OwnedDescriptor {
  return new OwnedDescriptor(openSync(path, flags));
}
