import * as v from "valibot";
import { setNonBlocking } from "../../../ffi/descriptor.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { finishWriting, receiveCredentials, socketKind } from "../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { FrameConnection } from "../../messaging/frame-connection.ts";
import { StreamConnection } from "../../messaging/stream-connection.ts";
import type { Refusal } from "../lifecycle.ts";
import {
  type AgentReply,
  type AgentRequest,
  agentReplySchema,
  type Hello,
  helloSchema,
  limits,
  PROTOCOL_VERSION,
  type WireEnding,
} from "../protocol.ts";
import type { CarriedLink } from "../protocol-state.ts";
import type { Luggage } from "./luggage.ts";
import { identifyAgent, verifyChild } from "./verify-process.ts";

type Unnumbered<Request> = Request extends unknown ? Omit<Request, "id"> : never;
type StartFields = Omit<Extract<AgentRequest, { kind: "start" }>, "id" | "kind">;
type PrepareFields = Omit<StartFields, "replaces">;

/** What a start came to. "lost": the connection ended before an answer. */
export type StartAnswer =
  | { readonly kind: "started"; readonly processId: number; readonly process: OwnedDescriptor }
  | { readonly kind: "refused"; readonly refusal: Refusal }
  | { readonly kind: "lost" };

/** What a prepared start came to. Neither of the two further answers made it. */
export type PreparedAnswer =
  | StartAnswer
  | { readonly kind: "not-prepared" }
  | { readonly kind: "disarmed" };

type SocketRequest = Unnumbered<Extract<AgentRequest, { kind: "socket" | "notify" }>>;

/** Whether a descriptor from another partition is a socket of the kind that was asked for. */
function isSocketFor(request: SocketRequest, descriptor: OwnedDescriptor): boolean {
  const found = socketKind(descriptor);
  if (request.kind === "notify") return found === "unix datagram";
  return found === `${request.family} stream`;
}

interface Pending {
  readonly invocation: string | undefined;
  /** It is answered at the end of an instance, whenever that is. */
  readonly isArmed: boolean;
  readonly onReply: (reply: AgentReply | undefined, descriptors: OwnedDescriptor[]) => void;
}

export interface LinkHandlers {
  onUp(hello: Hello, agentProcessId: number): void;
  /** An ending that the agent told, once for each instance that it started. */
  onExited(invocation: string, ending: WireEnding): void;
  /** The connection is over; every pending request is then answered as lost. */
  onDown(reason: string): void;
  /** Is the process of this instance reaped, as it must be when its agent tells its end? */
  isReaped(invocation: string): boolean;
}

/**
 * One connection to an agent. The other side is not trusted: whatever it says is checked, a
 * descriptor is used only when it is what it must be, and the first violation ends the link.
 */
export class AgentLink {
  readonly #handlers: LinkHandlers;
  readonly #frames: FrameConnection;
  readonly #pending = new Map<number, Pending>();
  /** Instances that were started on this link and whose end has not been told. */
  readonly #running = new Set<string>();
  readonly #deadline: Disposable;
  readonly #hello: Hello;
  readonly #dialled: boolean;
  #nextId = 1;
  #agentProcessId = 0;
  #up = false;
  #draining = false;
  #ended = false;

  constructor(
    loop: EventLoop,
    socket: OwnedDescriptor,
    options: {
      readonly hello: Hello;
      /** We dialled, so we speak first. */
      readonly dialled: boolean;
      readonly handlers: LinkHandlers;
    },
  ) {
    this.#handlers = options.handlers;
    this.#hello = options.hello;
    this.#dialled = options.dialled;
    // The kernel then says who wrote each message, also when systemd made the listening socket.
    receiveCredentials(socket);
    const stream = new StreamConnection(loop, socket, {
      queuedBytes: limits.queuedBytes,
      handlers: { onBytes: () => {}, onEnd: () => {} },
    });
    const helloLimits = { frameBytes: limits.helloBytes, frameDescriptors: 0 };
    this.#frames = new FrameConnection(stream, helloLimits, {
      onFrame: (body, descriptors) => this.#onFrame(body, descriptors),
      onViolation: ({ expected, received }) => this.#violate(expected, received),
      onEnd: (reason) => this.#end(reason),
    });
    this.#deadline = loop.wakeAfter(limits.helloTime, () => {
      this.close(`it said no hello within ${limits.helloTime} ms`);
    });
  }

  /** It owes an answer that comes by itself: an armed start is answered at the end of another. */
  get owes(): boolean {
    return [...this.#pending.values()].some(({ isArmed }) => !isArmed);
  }

  /** Everything was answered, and nothing is on its way: another program can go on with it. */
  get isIdle(): boolean {
    return this.isUp && this.#pending.size === 0 && this.#frames.isIdle;
  }

  pack(luggage: Luggage): CarriedLink {
    return {
      socket: luggage.pack(this.#frames.stream.socket),
      protocol: PROTOCOL_VERSION,
      dialled: this.#dialled,
      agentProcessId: this.#agentProcessId,
      nextId: this.#nextId,
      running: [...this.#running],
    };
  }

  /** Goes on where the program before this one was: both sides have said hello. */
  goOn({ agentProcessId, nextId, running }: CarriedLink): void {
    this.#deadline[Symbol.dispose]();
    const { frameBytes, frameDescriptors } = limits;
    this.#frames.setLimits({ frameBytes, frameDescriptors });
    this.#agentProcessId = agentProcessId;
    this.#nextId = nextId;
    for (const invocation of running) this.#running.add(invocation);
    this.#up = true;
  }

  /** Speaks first, where that is ours. Apart from the making: a peer may be gone already. */
  begin(): void {
    if (this.#dialled) this.#frames.send(this.#hello);
  }

  get isUp(): boolean {
    return this.#up && !this.#draining && this.#frames.isOpen;
  }

  /** It was left, and has not ended: nothing more may be written to it. */
  get isDraining(): boolean {
    return this.#draining && this.#frames.isOpen;
  }

  /** Asks the agent to start an instance. The descriptors stay the caller's. */
  start(
    fields: StartFields,
    descriptors: readonly number[],
    onAnswer: (answer: StartAnswer) => void,
  ): void {
    const { invocation } = fields;
    this.#request({ kind: "start", ...fields }, { descriptors, invocation }, (reply, received) =>
      this.#onStartReply(invocation, reply, received, onAnswer),
    );
  }

  /** Has the agent lay out a start that may come, and tells whether it did. */
  prepare(
    fields: PrepareFields,
    descriptors: readonly number[],
    onResult: (prepared: boolean) => void,
  ): void {
    this.#request({ kind: "prepare", ...fields }, { descriptors }, (reply, received) => {
      for (const descriptor of received) descriptor.close();
      onResult(reply?.kind === "prepared");
    });
  }

  /** Has the agent make a start that it prepared. */
  go(
    order: { readonly invocation: string; readonly replaces: string | undefined },
    onAnswer: (answer: PreparedAnswer) => void,
  ): void {
    const { invocation, replaces } = order;
    const request = { kind: "go" as const, invocation };
    this.#request(
      replaces === undefined ? request : { ...request, replaces },
      { invocation },
      (reply, received) => this.#onPreparedReply(invocation, reply, received, onAnswer),
    );
  }

  /** Has the agent make a start that it prepared, at the end of the instance that it replaces. */
  arm(
    order: { readonly invocation: string; readonly replaces: string },
    onAnswer: (answer: PreparedAnswer) => void,
  ): void {
    const { invocation, replaces } = order;
    this.#request({ kind: "arm", invocation, replaces }, { invocation }, (reply, received) => {
      const isEarly = reply !== undefined && !this.#handlers.isReaped(replaces);
      if (isEarly && reply.kind === "error" && reply.error.kind !== "disarmed") {
        // Nothing was tried yet: it will be asked for in another way.
        onAnswer({ kind: "not-prepared" });
      } else if (isEarly && reply.kind === "started") {
        for (const descriptor of received) descriptor.close();
        onAnswer({ kind: "lost" });
        this.#violate("an armed start after the end of what it replaces", "one before");
      } else this.#onPreparedReply(invocation, reply, received, onAnswer);
    });
  }

  /** Takes an `arm` back, whose answer then comes if it has not. */
  disarm(invocation: string): void {
    if (this.isUp) this.#frames.send({ kind: "disarm", id: this.#nextId++, invocation });
  }

  #onPreparedReply(
    invocation: string,
    reply: AgentReply | undefined,
    descriptors: OwnedDescriptor[],
    onAnswer: (answer: PreparedAnswer) => void,
  ): void {
    const kind = reply?.kind === "error" ? reply.error.kind : undefined;
    if (kind === "not-prepared" || kind === "disarmed") onAnswer({ kind });
    else this.#onStartReply(invocation, reply, descriptors, onAnswer);
  }

  /** Asks for a socket; undefined when there is none. */
  requestSocket(
    request: SocketRequest,
    onSocket: (socket: OwnedDescriptor | undefined) => void,
  ): void {
    this.#request(request, {}, (reply, descriptors) => {
      const [socket] = descriptors;
      const fits = reply?.kind === request.kind && socket !== undefined;
      if (fits && isSocketFor(request, socket)) {
        // A socket that blocks would hold up everything here.
        setNonBlocking(socket);
        if (request.kind === "notify") receiveCredentials(socket);
        onSocket(socket);
        return;
      }
      for (const descriptor of descriptors) descriptor.close();
      onSocket(undefined);
      if (reply === undefined || reply.kind === "error") return;
      const received = fits ? "a descriptor of another kind" : `"${reply.kind}"`;
      this.#violate(`the socket that "${request.kind}" asked for`, received);
    });
  }

  #request(
    request: Unnumbered<AgentRequest>,
    options: { readonly descriptors?: readonly number[]; readonly invocation?: string },
    onReply: Pending["onReply"],
  ): void {
    if (this.#ended) {
      onReply(undefined, []);
      return;
    }
    const id = this.#nextId++;
    const isArmed = request.kind === "arm";
    this.#pending.set(id, { invocation: options.invocation, isArmed, onReply });
    // A connection that broke in the sending answers everything that is pending as lost.
    this.#frames.send({ ...request, id }, options.descriptors);
  }

  #onStartReply(
    invocation: string,
    reply: AgentReply | undefined,
    descriptors: OwnedDescriptor[],
    onAnswer: (answer: StartAnswer) => void,
  ): void {
    if (reply?.kind === "error") {
      const { message, code } = reply.error;
      onAnswer({ kind: "refused", refusal: { message, code } });
      return;
    }
    const [process] = descriptors;
    if (reply?.kind !== "started" || process === undefined) {
      for (const descriptor of descriptors) descriptor.close();
      onAnswer({ kind: "lost" });
      if (reply !== undefined) this.#violate("started, or an error", `"${reply.kind}"`);
      return;
    }
    const verified = verifyChild(process, { processId: this.#agentProcessId });
    if (verified.kind !== "process") {
      process.close();
      onAnswer({ kind: "lost" });
      if (verified.kind === "reaped")
        this.#violate("a child that is not reaped yet", "one that is");
      else this.#violate(verified.expected, verified.received);
      return;
    }
    this.#running.add(invocation);
    onAnswer({ kind: "started", processId: verified.processId, process });
    this.#frames.send({ kind: "seen", id: this.#nextId++, invocation });
  }

  #onFrame(body: unknown, descriptors: OwnedDescriptor[]): void {
    if (!this.#up) {
      this.#onHello(body);
      return;
    }
    const parsed = v.safeParse(agentReplySchema, body);
    if (!parsed.success) {
      for (const descriptor of descriptors) descriptor.close();
      this.#violate("an answer of an agent", describeIssues(parsed.issues));
      return;
    }
    const reply = parsed.output;
    const carried = ["started", "socket", "notify"].includes(reply.kind) ? 1 : 0;
    if (descriptors.length !== carried) {
      for (const descriptor of descriptors) descriptor.close();
      this.#violate(`${carried} descriptors with "${reply.kind}"`, `${descriptors.length}`);
      return;
    }
    if (reply.kind === "exited") this.#onExited(reply.invocation, reply.ending);
    else this.#onReply(reply, descriptors);
  }

  #onHello(body: unknown): void {
    const hello = v.safeParse(helloSchema, body);
    if (!hello.success || hello.output.role !== "agent") {
      const received = hello.success ? hello.output.role : describeIssues(hello.issues);
      this.#violate("the hello of an agent", received);
      return;
    }
    const writer = this.#frames.sender?.processId ?? 0;
    const agent = identifyAgent(this.#frames.stream.socket, { dialled: this.#dialled, writer });
    if (agent === undefined) {
      this.#violate("an agent in our PID namespace or below", "one that we cannot see");
      return;
    }
    this.#agentProcessId = agent;
    this.#deadline[Symbol.dispose]();
    this.#up = true;
    const { frameBytes, frameDescriptors } = limits;
    this.#frames.setLimits({ frameBytes, frameDescriptors });
    if (!this.#dialled) this.#frames.send(this.#hello);
    this.#handlers.onUp(hello.output, agent);
  }

  #onReply(reply: Exclude<AgentReply, { kind: "exited" }>, descriptors: OwnedDescriptor[]): void {
    const pending = this.#pending.get(reply.id);
    if (pending === undefined) {
      for (const descriptor of descriptors) descriptor.close();
      this.#violate("an answer to a request of ours", `one to ${reply.id}`);
      return;
    }
    this.#pending.delete(reply.id);
    pending.onReply(reply, descriptors);
  }

  #onExited(invocation: string, ending: WireEnding): void {
    if (!this.#running.has(invocation)) {
      this.#violate("the end of an instance that runs, once", `the end of ${invocation}`);
      return;
    }
    if (!this.#handlers.isReaped(invocation)) {
      this.#violate("the end of an instance that has ended", `${invocation}, which has not`);
      return;
    }
    this.#running.delete(invocation);
    this.#handlers.onExited(invocation, ending);
  }

  #violate(expected: string, received: string): void {
    this.close(`it broke the protocol: expected ${expected}, received ${received}`);
  }

  #end(reason: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#up = false;
    this.#deadline[Symbol.dispose]();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    // First that it is gone: a start that follows from a lost answer must wait for the next agent.
    this.#handlers.onDown(reason);
    for (const { onReply } of pending) onReply(undefined, []);
  }

  /**
   * Asks for nothing more, and waits until the agent has read everything and hung up as well: only
   * then is it certain that no start of this link is still to happen.
   */
  drain(): void {
    this.#draining = true;
    finishWriting(this.#frames.stream.socket);
  }

  /** Ends the link, as told. */
  close(reason: string): void {
    // After a violation of the frames the connection is closed already, and the link is not.
    this.#frames.close();
    this.#end(reason);
  }
}
