import * as v from "valibot";
import { killPoint } from "../../../ffi/fault-hooks.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { errnoMessage, errnoName, SystemCallError } from "../../../ffi/system-call-error.ts";
import {
  bindUnix,
  connectUnix,
  hasHungUp,
  makeTcpSocket,
  makeUnixSocket,
  receiveCredentials,
} from "../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { FrameConnection } from "../../messaging/frame-connection.ts";
import type { StreamConnection } from "../../messaging/stream-connection.ts";
import type { Ending } from "../../units/ending.ts";
import { encodeEnding } from "../ending.ts";

import {
  type AgentReply,
  type AgentRequest,
  agentRequestSchema,
  type Hello,
  helloSchema,
  limits,
  type PrepareRequest,
  refusedSchema,
  type StartRequest,
  type WireError,
} from "../protocol.ts";
import type { ChildRequest, Children, PreparedChild, StartResult } from "./children.ts";
import { HoldenSession } from "./holden-session.ts";

/** The agent's own steps between a request and its answer; each is a kill point. */
export const agentSteps = [
  "agent:start:received",
  "agent:start:spawned",
  "agent:start:sent",
  "agent:exit:noticed",
  "agent:exit:told",
] as const;
export type AgentStep = (typeof agentSteps)[number];
export const agentKillPoint = (step: AgentStep): void => killPoint(step);

/** Milliseconds after which a prepared start that was made is answered, and the end before it. */
export const ANSWER_AFTER = 1;

const BRACE = "{".charCodeAt(0);

interface Prepared {
  readonly child: PreparedChild;
  readonly descriptors: readonly OwnedDescriptor[];
}

type ArmRequest = Extract<AgentRequest, { kind: "arm" }>;

interface Armed {
  readonly request: ArmRequest;
  /** Called when what it replaces is gone. */
  readonly onGone: () => void;
}

/** What a start and the going of a prepared one have in common. */
interface StartOrder {
  readonly id: number;
  readonly invocation: string;
  readonly replaces?: string | undefined;
}

function closeAll(descriptors: readonly OwnedDescriptor[]): void {
  for (const descriptor of descriptors) descriptor.close();
}

function childRequest(
  request: StartRequest | PrepareRequest,
  descriptors: readonly OwnedDescriptor[],
): ChildRequest {
  return {
    invocation: request.invocation,
    argv: request.argv,
    environment: request.environment,
    workingDirectory: request.working_directory,
    umask: request.umask,
    constraints: request.constraints,
    leftovers: request.leftovers,
    listen: request.listen,
    descriptors: descriptors.map((descriptor, index) => ({
      source: descriptor.number,
      target: request.descriptors[index] as number,
    })),
  };
}

export interface SessionOptions {
  readonly loop: EventLoop;
  readonly children: Children;
  readonly hello: Hello;
  /** Our side speaks first: the agent dialled out. */
  readonly dialled: boolean;
  /** The environment that a Holden child inherits. */
  readonly holdenEnvironment: readonly string[];
  /** Told once, with the reason, when the session is over. */
  readonly onEnd: (reason: string) => void;
  /** The peer said a valid hello. */
  readonly onGreeted: () => void;
  /** The session asked for this instance, and is told how it ended. */
  readonly onStarted: (invocation: string) => void;
}

/** One connection to an agent, from its first byte to its end. It keeps nothing of a child. */
export class AgentSession {
  readonly #stream: StreamConnection;
  readonly #options: SessionOptions;
  readonly #deadline: Disposable;
  #frames: FrameConnection | undefined;
  #greeted = false;
  /** Instances that the peer has not looked at yet. */
  readonly #unseen = new Set<string>();
  /** Starts that may come: memory and pipes, no process. */
  readonly #prepared = new Map<string, Prepared>();
  /** Prepared starts that are made at the end of what they replace, and who asked for that. */
  readonly #armed = new Map<string, Armed>();

  constructor(stream: StreamConnection, options: SessionOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#deadline = options.loop.wakeAfter(limits.helloTime, () => {
      this.#end(`it said nothing whole within ${limits.helloTime} ms`);
    });
    stream.setHandlers({
      onBytes: (bytes, descriptors) => this.#onFirstBytes(bytes, descriptors),
      onEnd: (reason) => this.#end(reason),
    });
  }

  /** Speaks first, where that is ours. Apart from the making: a peer may be gone already. */
  begin(): void {
    if (this.#options.dialled) this.#beginFrames().send(this.#options.hello);
  }

  /** Tells how an instance ended, if the session still stands. */
  tellExit(invocation: string, ending: Ending): void {
    this.#reply({ kind: "exited", invocation, ending: encodeEnding(ending) });
  }

  /** A start will follow the end of this instance, here and now. */
  isArmedFor(invocation: string): boolean {
    return [...this.#armed.values()].some(({ request }) => request.replaces === invocation);
  }

  close(): void {
    this.#deadline[Symbol.dispose]();
    this.#frames?.close();
    this.#stream.close();
    for (const invocation of this.#unseen) this.#options.children.release(invocation);
    this.#unseen.clear();
    for (const invocation of [...this.#armed.keys()]) this.#takeArmed(invocation);
    for (const invocation of [...this.#prepared.keys()]) this.#forgetPrepared(invocation);
  }

  #end(reason: string): void {
    this.close();
    this.#options.onEnd(reason);
  }

  /** "{" is ours; anything else is the header of a Holden message. */
  #onFirstBytes(bytes: Uint8Array, descriptors: OwnedDescriptor[]): void {
    if (bytes[0] === BRACE) {
      this.#beginFrames().receive(bytes, descriptors);
      return;
    }
    for (const descriptor of descriptors) descriptor.close();
    const session = new HoldenSession(this.#stream, {
      children: this.#options.children,
      environment: this.#options.holdenEnvironment,
      onMessage: () => this.#deadline[Symbol.dispose](),
      onEnd: (reason) => this.#end(reason),
    });
    session.receive(bytes);
  }

  #beginFrames(): FrameConnection {
    const helloLimits = { frameBytes: limits.helloBytes, frameDescriptors: 0 };
    this.#frames = new FrameConnection(this.#stream, helloLimits, {
      onFrame: (body, descriptors) => this.#onFrame(body, descriptors),
      onViolation: (violation) =>
        this.#end(`expected ${violation.expected}, received ${violation.received}`),
      onEnd: (reason) => this.#end(reason),
    });
    return this.#frames;
  }

  #onFrame(body: unknown, descriptors: OwnedDescriptor[]): void {
    if (!this.#greeted) this.#onHello(body);
    else this.#onRequest(body, descriptors);
  }

  #onHello(body: unknown): void {
    const refused = v.safeParse(refusedSchema, body);
    if (refused.success && this.#options.dialled) {
      const { expected, received } = refused.output;
      this.#end(`it refused this agent: expected ${expected}; received ${received}`);
      return;
    }
    const hello = v.safeParse(helloSchema, body);
    if (!hello.success) {
      this.#end(`its hello is wrong: ${describeIssues(hello.issues)}`);
      return;
    }
    this.#deadline[Symbol.dispose]();
    this.#greeted = true;
    const { frameBytes, frameDescriptors } = limits;
    this.#frames?.setLimits({ frameBytes, frameDescriptors });
    if (!this.#options.dialled) this.#frames?.send(this.#options.hello);
    this.#options.onGreeted();
  }

  #onRequest(body: unknown, descriptors: OwnedDescriptor[]): void {
    const parsed = v.safeParse(agentRequestSchema, body);
    if (!parsed.success) {
      for (const descriptor of descriptors) descriptor.close();
      const asked = (body as { id?: unknown } | null)?.id;
      const id = typeof asked === "number" && Number.isSafeInteger(asked) && asked >= 0 ? asked : 0;
      const received = describeIssues(parsed.issues);
      this.#refuse(id, { kind: "request", message: `The request is wrong: ${received}`, received });
      return;
    }
    const request = parsed.output;
    const expected = "descriptors" in request ? request.descriptors.length : 0;
    if (descriptors.length !== expected) {
      const received = `${descriptors.length} descriptors`;
      for (const descriptor of descriptors) descriptor.close();
      const message = `Expected ${expected} descriptors, received ${received}`;
      this.#refuse(request.id, { kind: "descriptors", message, expected: `${expected}`, received });
      return;
    }
    this.#handle(request, descriptors);
  }

  #handle(request: AgentRequest, descriptors: OwnedDescriptor[]): void {
    switch (request.kind) {
      case "start":
        this.#start(request, descriptors);
        break;
      case "prepare":
        this.#prepare(request, descriptors);
        break;
      case "go":
        this.#go(request);
        break;
      case "arm":
        this.#arm(request);
        break;
      case "disarm":
        this.#disarm(request.invocation);
        break;
      case "seen":
        this.#unseen.delete(request.invocation);
        this.#options.children.release(request.invocation);
        break;
      case "ping":
        this.#reply({ kind: "pong", id: request.id });
        break;
      case "socket":
        this.#attempt(request.id, () => this.#makeSocket(request));
        break;
      case "notify":
        this.#attempt(request.id, () => this.#makeNotifySocket(request));
        break;
    }
  }

  #start(request: StartRequest, descriptors: OwnedDescriptor[]): void {
    const child = childRequest(request, descriptors);
    this.#startWhenClear(
      request,
      () => this.#options.children.start(child, (result) => this.#answerStart(request, result)),
      () => closeAll(descriptors),
    );
  }

  #prepare(request: PrepareRequest, descriptors: OwnedDescriptor[]): void {
    const { id } = request;
    const { preparedStarts, preparedBytes } = limits;
    const size = Buffer.byteLength([...request.argv, ...request.environment].join("\0"));
    const isPlain = request.constraints === undefined && request.listen !== true;
    const isOne = isPlain && size <= preparedBytes;
    if (!isOne || this.#prepared.size >= preparedStarts) {
      closeAll(descriptors);
      const each = `of at most ${preparedBytes} bytes, without constraints and LISTEN_PID`;
      const expected = `at most ${preparedStarts} prepared starts, each ${each}`;
      this.#refuse(id, { kind: "limit", message: `Expected ${expected}`, expected });
      return;
    }
    try {
      const child = this.#options.children.prepare(childRequest(request, descriptors));
      this.#forgetPrepared(request.invocation);
      this.#prepared.set(request.invocation, { child, descriptors });
      this.#reply({ kind: "prepared", id });
    } catch (error) {
      // No descriptor is left for it.
      if (!(error instanceof SystemCallError)) throw error;
      closeAll(descriptors);
      this.#refuse(id, { kind: "system", message: error.message, code: error.code });
    }
  }

  #forgetPrepared(invocation: string): void {
    const prepared = this.#prepared.get(invocation);
    if (prepared === undefined) return;
    this.#prepared.delete(invocation);
    prepared.child.spawn[Symbol.dispose]();
    closeAll(prepared.descriptors);
  }

  /** The decision to restart comes before the end: nobody is asked between the two. */
  #arm(request: ArmRequest): void {
    const { invocation, replaces } = request;
    if (this.#armed.has(invocation)) {
      const message = `Invocation ${invocation} is armed already`;
      this.#refuse(request.id, { kind: "double", message });
      return;
    }
    if (!this.#prepared.has(invocation)) {
      this.#go(request);
      return;
    }
    const onGone = () => {
      // Disarmed in this turn, or the session has ended in it.
      if (this.#armed.get(invocation)?.request !== request) return;
      this.#armed.delete(invocation);
      this.#go(request);
    };
    this.#armed.set(invocation, { request, onGone });
    this.#options.children.whenGone(replaces, onGone);
  }

  #takeArmed(invocation: string): ArmRequest | undefined {
    const armed = this.#armed.get(invocation);
    if (armed === undefined) return undefined;
    this.#armed.delete(invocation);
    this.#options.children.leaveAlone(armed.request.replaces, armed.onGone);
    return armed.request;
  }

  #disarm(invocation: string): void {
    const request = this.#takeArmed(invocation);
    if (request === undefined) return;
    const message = `Invocation ${invocation} is no longer armed`;
    this.#refuse(request.id, { kind: "disarmed", message });
  }

  #go(request: StartOrder): void {
    const { id, invocation } = request;
    const prepared = this.#prepared.get(invocation);
    if (prepared === undefined) {
      const message = `Invocation ${invocation} is not prepared here`;
      this.#refuse(id, { kind: "not-prepared", message });
      return;
    }
    this.#startWhenClear(
      request,
      () =>
        this.#options.children.startPrepared(prepared.child, (result) => {
          // The child's first instructions come before our words: on few processors each of these
          // would take from it. It is ours until then, dead or alive.
          if (result.kind === "started") this.#options.children.hold(invocation);
          this.#options.loop.wakeAfter(ANSWER_AFTER, () => this.#answerStart(request, result));
        }),
      () => this.#forgetPrepared(invocation),
    );
  }

  /**
   * Starts, when the instance that this one replaces is gone with all its rest; `close` is called
   * once the start is made, or will not be.
   */
  #startWhenClear(request: StartOrder, start: () => void, close: () => void): void {
    agentKillPoint("agent:start:received");
    const children = this.#options.children;
    const begin = () => {
      // Whoever asked may be gone, though its words are still read. A start now would be a second
      // one, because it has looked for this one, or is about to.
      if (this.#stream.isOpen && !hasHungUp(this.#stream.socket)) start();
      close();
    };
    const { id, invocation, replaces } = request;
    if (children.knows(invocation)) {
      close();
      this.#refuse(id, { kind: "double", message: `Invocation ${invocation} was started already` });
    } else if (replaces === undefined) begin();
    else if (children.afterEndOf(replaces, begin) === "alive") {
      close();
      const message = `Invocation ${replaces}, which this start replaces, is still alive`;
      this.#refuse(id, { kind: "alive", message });
    }
  }

  #answerStart(request: StartOrder, result: StartResult): void {
    if (result.kind === "refused") {
      const { message, code } = result.refusal;
      this.#refuse(
        request.id,
        code === undefined ? { kind: "start", message } : { kind: "start", message, code },
      );
      return;
    }
    agentKillPoint("agent:start:spawned");
    const { invocation } = request;
    if (!this.#stream.isOpen) {
      this.#options.children.release(invocation);
      return;
    }
    this.#options.onStarted(invocation);
    this.#unseen.add(invocation);
    this.#options.children.hold(invocation);
    const reply: AgentReply = { kind: "started", id: request.id, process_id: result.processId };
    this.#reply(reply, [result.process.number]);
    agentKillPoint("agent:start:sent");
  }

  #makeSocket(request: Extract<AgentRequest, { kind: "socket" }>): void {
    const { id, family, path } = request;
    using socket = family === "unix" ? makeUnixSocket("stream") : makeTcpSocket(family);
    if (family === "unix" && path !== undefined) {
      const result = connectUnix(socket, path);
      if (result < 0) {
        const message = `Cannot connect to ${path}: ${errnoMessage(-result)}`;
        this.#refuse(id, { kind: "socket", message, code: errnoName(-result) });
        return;
      }
    }
    const connected = family === "unix" && path !== undefined;
    this.#reply({ kind: "socket", id, connected }, [socket.number]);
  }

  #makeNotifySocket(request: Extract<AgentRequest, { kind: "notify" }>): void {
    const { id, name } = request;
    if (!name.startsWith("@") || name.length < 2) {
      const message = `Expected a name in the abstract namespace ("@…"), received "${name}"`;
      this.#refuse(id, { kind: "notify", message, expected: "@…", received: name });
      return;
    }
    using socket = makeUnixSocket("datagram");
    receiveCredentials(socket);
    const result = bindUnix(socket, name);
    if (result < 0) {
      const message = `Cannot bind ${name}: ${errnoMessage(-result)}`;
      this.#refuse(id, { kind: "notify", message, code: errnoName(-result) });
      return;
    }
    this.#reply({ kind: "notify", id }, [socket.number]);
  }

  /** Does what a request asks; a refusal of the kernel becomes its answer. */
  #attempt(id: number, call: () => void): void {
    try {
      call();
    } catch (error) {
      if (error instanceof SystemCallError) {
        this.#refuse(id, { kind: "system", message: error.message, code: error.code });
      } else if (error instanceof RangeError) {
        this.#refuse(id, { kind: "request", message: error.message });
      } else throw error;
    }
  }

  #refuse(id: number, error: WireError): void {
    this.#reply({ kind: "error", id, error });
  }

  #reply(reply: AgentReply, descriptors: readonly number[] = []): void {
    this.#frames?.send(reply, descriptors);
  }
}
