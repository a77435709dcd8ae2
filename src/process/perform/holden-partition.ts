import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { errnoMessage, errnoName } from "../../../ffi/system-call-error.ts";
import { connectUnix, makeUnixSocket, peerCredentials } from "../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { identifyPeer, refusePeer } from "../../messaging/peer.ts";
import { StreamConnection } from "../../messaging/stream-connection.ts";
import {
  DESCRIPTOR_BYTE,
  decodeAnswer,
  encodePing,
  encodeStart,
  HoldenReader,
  HoldenType,
} from "../holden-protocol.ts";
import { type Instance, START_ANSWER_LIMIT } from "../lifecycle.ts";
import type { CarriedHoldenPartition } from "../protocol-state.ts";
import type { PartitionSpecification } from "../specification.ts";
import type { Keeper } from "./keeping.ts";
import type { Luggage, Unpacking } from "./luggage.ts";
import type {
  CommandRequest,
  CommandResult,
  Emit,
  LeftInstance,
  ManagedProcess,
  Partition,
} from "./partition.ts";
import { policyOf } from "./partition.ts";
import { RemoteInstances } from "./remote-instances.ts";
import type { RemoteHandlers } from "./remote-partition.ts";
import { verifyChild } from "./verify-process.ts";

/** How often an agent that does not answer is asked whether it is there. */
const PING_INTERVAL = 1_000;

type Answer =
  | { readonly kind: "started"; readonly process: OwnedDescriptor; readonly agentId: number }
  | { readonly kind: "refused"; readonly message: string; readonly code?: string }
  | { readonly kind: "lost"; readonly reason: string };

/**
 * A partition behind an agent that speaks Holden v0.2: one connection for each start, as its own
 * orchestrator has it, because its agent serves one client at a time. It tells no endings, passes
 * no descriptors and no environment; what the kernel cannot say stays unknown.
 */
export class HoldenPartition implements Partition {
  readonly loop: EventLoop;
  readonly canCheck = false;
  readonly isSilent = true;
  readonly #specification: PartitionSpecification;
  readonly #emit: Emit;
  readonly #handlers: RemoteHandlers;
  readonly #instances: RemoteInstances;
  /** Starts that are not answered yet. */
  #starting = 0;
  #timer: Disposable | undefined;
  #reachable = false;
  #closed = false;

  constructor(
    loop: EventLoop,
    specification: PartitionSpecification,
    options: {
      readonly emit: Emit;
      readonly handlers: RemoteHandlers;
      readonly keeper: Keeper;
    },
  ) {
    this.loop = loop;
    this.#specification = specification;
    this.#emit = options.emit;
    this.#handlers = options.handlers;
    this.#instances = new RemoteInstances(loop, {
      emit: options.emit,
      onTrouble: (message) => options.handlers.onTrouble(message),
      keeper: options.keeper,
    });
  }

  get underWay(): string | undefined {
    return this.#starting > 0 ? "the answer to a start" : undefined;
  }

  pack(luggage: Luggage): CarriedHoldenPartition {
    const instances = this.#instances.pack(luggage);
    return { name: this.#specification.name, reachable: this.#reachable, instances };
  }

  /** Watches what the program before this one watched, before `open`. @throws WrongLuggage */
  unpack(carried: CarriedHoldenPartition, unpacking: Unpacking): void {
    this.#reachable = carried.reachable;
    this.#instances.unpack(carried.instances, unpacking);
  }

  /** Asks for a PONG until one comes. */
  open(): void {
    if (this.#reachable) return;
    this.#ask();
  }

  #ask(): void {
    this.#exchange(encodePing(), (answer) => {
      if (this.#closed) return;
      if (answer.kind === "refused" && answer.message === "pong") {
        this.#reachable = true;
        this.#handlers.onReachable(true, "a Holden v0.2 agent");
        return;
      }
      this.#lose(answer.kind === "lost" ? answer.reason : "it does not answer a PING");
    });
  }

  #lose(reason: string): void {
    if (this.#reachable) this.#handlers.onReachable(false, reason);
    else this.#handlers.onMissed(reason);
    this.#reachable = false;
    this.#timer?.[Symbol.dispose]();
    this.#timer = this.loop.wakeAfter(PING_INTERVAL, () => this.#ask());
  }

  /** One request and its answer, on a connection of its own. */
  #exchange(request: Uint8Array, onAnswer: (answer: Answer) => void): void {
    const { path } = this.#specification.endpoint;
    const socket = makeUnixSocket("stream");
    const result = connectUnix(socket, path);
    if (result < 0) {
      socket.close();
      onAnswer({
        kind: "lost",
        reason: `${path}: ${errnoMessage(-result)} (${errnoName(-result)})`,
      });
      return;
    }
    const refusal = refusePeer(identifyPeer(socket), policyOf(this.#specification));
    if (refusal !== undefined) {
      socket.close();
      const { expected, received } = refusal;
      const reason = `refused the agent: expected ${expected}; received ${received}`;
      onAnswer({ kind: "lost", reason });
      return;
    }
    new HoldenExchange(this.loop, socket, request, onAnswer);
  }

  start(managed: ManagedProcess, invocation: string): void {
    const { name, command } = managed.specification;
    let request: Uint8Array;
    try {
      request = encodeStart(command);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const refusal = { message, code: undefined };
      this.#emit(name, { kind: "start-refused", invocation, refusal });
      return;
    }
    this.#starting += 1;
    this.#exchange(request, (answer) => {
      this.#starting -= 1;
      this.#onAnswer(name, invocation, answer);
    });
  }

  #onAnswer(name: string, invocation: string, answer: Answer): void {
    if (answer.kind === "refused") {
      const refusal = { message: answer.message, code: answer.code };
      this.#emit(name, { kind: "start-refused", invocation, refusal });
      return;
    }
    if (answer.kind === "lost") {
      this.#emit(name, { kind: "answer-lost", invocation });
      this.#lose(answer.reason);
      return;
    }
    const { process } = answer;
    const verified = verifyChild(process, { processId: answer.agentId });
    if (verified.kind === "refused") {
      process.close();
      const { expected, received } = verified;
      this.#handlers.onTrouble(
        `the agent passed a wrong descriptor: expected ${expected}, received ${received}`,
      );
      this.#emit(name, { kind: "answer-lost", invocation });
      return;
    }
    // Its agent reaps at once: a child that is gone already has no number any more.
    const processId = verified.kind === "process" ? verified.processId : 0;
    this.#instances.watch(name, { invocation, processId, process, parentTells: false });
    this.#emit(name, { kind: "started", invocation, processId });
  }

  /** By its pidfd alone: nothing else tells who it is. */
  adopt({ specification }: ManagedProcess, left: LeftInstance): void {
    this.#instances.watch(specification.name, { ...left, parentTells: false });
  }

  /** Holden carries no invocation: a start that was not answered cannot be looked for. */
  find(managed: ManagedProcess, invocation: string): void {
    const { name } = managed.specification;
    this.#handlers.onTrouble(
      `${name}: whether its start happened cannot be known, because Holden v0.2 carries no id; ` +
        "starting it again",
    );
    this.#emit(name, { kind: "not-found", invocation });
  }

  processOf(invocation: string): OwnedDescriptor | undefined {
    return this.#instances.processOf(invocation);
  }

  settle(_name: string, act: () => void): void {
    act();
  }

  renewed(): undefined {
    return undefined;
  }

  standbyOf(): undefined {
    return undefined;
  }

  signal(instance: Instance, signal: number): void {
    this.#instances.get(instance.invocation)?.signal(signal);
  }

  kill(_managed: ManagedProcess, instance: Instance): void {
    this.#instances.get(instance.invocation)?.kill();
  }

  clear(managed: ManagedProcess, instance: Instance): void {
    const { invocation } = instance;
    if (managed.specification.leftovers === "kill") this.#instances.get(invocation)?.kill();
    this.#emit(managed.specification.name, { kind: "cleared", invocation });
  }

  bindNotify(_name: string, onSocket: (socket: OwnedDescriptor | undefined) => void): void {
    onSocket(undefined);
  }

  openSocket(
    _target: Parameters<Partition["openSocket"]>[0],
    onSocket: (socket: OwnedDescriptor | undefined) => void,
  ): void {
    onSocket(undefined);
  }

  runCommand(
    _managed: ManagedProcess,
    _request: CommandRequest,
    onResult: (result: CommandResult) => void,
  ): void {
    onResult({ kind: "failed", reason: "Holden v0.2 cannot run a check in its partition" });
  }

  endCommand(_invocation: string): void {}

  close(): void {
    this.#closed = true;
    this.#timer?.[Symbol.dispose]();
    this.#instances.close();
  }
}

/** STARTED and then the byte with the pidfd, or ERROR, or PONG; or nothing in time. */
class HoldenExchange {
  readonly #stream: StreamConnection;
  readonly #reader = new HoldenReader();
  readonly #onAnswer: (answer: Answer) => void;
  readonly #deadline: Disposable;
  readonly #descriptors: OwnedDescriptor[] = [];
  #started = false;
  #done = false;

  constructor(
    loop: EventLoop,
    socket: OwnedDescriptor,
    request: Uint8Array,
    onAnswer: (answer: Answer) => void,
  ) {
    this.#onAnswer = onAnswer;
    this.#stream = new StreamConnection(loop, socket, {
      queuedBytes: 65_536,
      handlers: {
        onBytes: (bytes, descriptors) => this.#onBytes(bytes, descriptors),
        onEnd: (reason) => this.#finish({ kind: "lost", reason }),
      },
    });
    this.#deadline = loop.wakeAfter(START_ANSWER_LIMIT, () =>
      this.#finish({ kind: "lost", reason: "it does not answer" }),
    );
    this.#stream.send(request);
  }

  #onBytes(bytes: Uint8Array, descriptors: OwnedDescriptor[]): void {
    this.#descriptors.push(...descriptors);
    let rest = bytes;
    if (!this.#started) {
      this.#reader.push(bytes);
      const message = this.#reader.nextMessage();
      if (message === undefined) return;
      rest = this.#reader.takeRest();
      this.#onMessage(message);
    }
    if (!this.#started || this.#done || rest.length === 0) return;
    const process = this.#descriptors.shift();
    if (rest[0] !== DESCRIPTOR_BYTE || process === undefined) {
      this.#finish({ kind: "lost", reason: "it passed no descriptor" });
      return;
    }
    const agentId = peerCredentials(this.#stream.socket).processId;
    this.#finish({ kind: "started", process, agentId });
  }

  #onMessage(message: { type: number; body: Uint8Array } | { refusal: string }): void {
    if ("refusal" in message) {
      this.#finish({ kind: "lost", reason: message.refusal });
      return;
    }
    if (message.type === HoldenType.pong) {
      this.#finish({ kind: "refused", message: "pong" });
      return;
    }
    const answer = decodeAnswer(message);
    if (answer.kind === "error") this.#finish({ kind: "refused", message: answer.message });
    else this.#started = true;
  }

  #finish(answer: Answer): void {
    if (this.#done) return;
    this.#done = true;
    this.#deadline[Symbol.dispose]();
    this.#stream.close();
    for (const descriptor of this.#descriptors) descriptor.close();
    this.#onAnswer(answer);
  }
}
