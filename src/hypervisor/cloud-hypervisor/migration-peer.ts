import { unlinkSync } from "node:fs";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { connectWithin } from "../../messaging/connect-within.ts";
import { Listener, listenAt } from "../../messaging/listener.ts";
import { identifyPeer } from "../../messaging/peer.ts";
import { StreamConnection } from "../../messaging/stream-connection.ts";
import {
  type Bytes,
  formatDuration,
  type Milliseconds,
  type ProcessId,
} from "../../units/units.ts";
import { type MemoryDescriptor, VmmRefused, VmmUnreachable } from "../driver.ts";
import {
  ByteQueue,
  decodeAnswer,
  decodeSlot,
  encodeAnswer,
  encodeRequest,
  encodeSlot,
  HEADER_BYTES,
  type MigrationCommand,
  type MigrationRequest,
  type Receiving,
  RequestReader,
  stepReceiving,
  type WireRefusal,
} from "./migration-wire.ts";

/**
 * The other end of a local migration: to a VMM that sends, we are the one that receives, and the
 * other way round. Guest memory travels as descriptors, so that nothing is copied.
 */

export interface PeerLimits {
  readonly stateTime: Milliseconds;
  readonly messageBytes: Bytes;
  readonly memorySlots: number;
}

export interface PeerOptions {
  /** In the machine's run folder, where the VMM can reach it. Nothing stands there. */
  readonly path: string;
  readonly limits: PeerLimits;
  readonly signal: AbortSignal;
}

/** A machine as it came: the descriptors are the taker's to close. */
export interface ReceivedMachine {
  readonly slots: readonly { readonly slot: number; readonly descriptor: OwnedDescriptor }[];
  readonly config: Uint8Array;
  readonly state: Uint8Array;
}

const describe = ({ expected, received }: WireRefusal) =>
  `expected ${expected}, received ${received}`;

/**
 * Takes a machine from a VMM that is told to send it here. The last of its requests waits for its
 * answer: until `release` the machine is here and with the VMM, which does nothing meanwhile; "ok"
 * ends the VMM, and everything else, our own end as well, leaves the machine with it.
 */
export class MigrationReceiver implements Disposable {
  /** @throws VmmRefused, VmmUnreachable; what came is closed then */
  readonly received: Promise<ReceivedMachine>;
  readonly #outcome = Promise.withResolvers<ReceivedMachine>();
  readonly #listener: Listener;
  readonly #timer: Disposable;
  readonly #reader: RequestReader;
  readonly #options: PeerOptions & { readonly sender: ProcessId };
  readonly #loop: EventLoop;
  #stream: StreamConnection | undefined;
  #receiving: Receiving = "nothing";
  /** Came, and no request has spoken of them yet: one at most. */
  #descriptors: OwnedDescriptor[] = [];
  readonly #slots: { slot: number; descriptor: OwnedDescriptor }[] = [];
  #config = new Uint8Array(0);
  #state = new Uint8Array(0);
  #phase: "receiving" | "held" | "over" = "receiving";

  /** Whether all is here, and the VMM waits for its last answer. */
  get isHeld(): boolean {
    return this.#phase === "held";
  }

  /** Listens from now on. @param options.sender the VMM: nobody else is heard */
  constructor(loop: EventLoop, options: PeerOptions & { readonly sender: ProcessId }) {
    this.#loop = loop;
    this.#options = options;
    const { limits, path, signal } = options;
    this.#reader = new RequestReader(limits.messageBytes);
    this.received = this.#outcome.promise;
    // Whoever listens to it may come after it has failed.
    this.received.catch(() => {});
    // All users may connect, because each VMM has its own; the peer's process is what counts.
    this.#listener = new Listener(loop, listenAt(path, 0o666), {
      path,
      onConnection: (socket) => this.#onConnection(socket),
      onExhausted: (error) => this.fail(new VmmUnreachable(`${path}: ${error.message}`)),
    });
    this.#timer = loop.wakeAfter(limits.stateTime, () => {
      const time = formatDuration(limits.stateTime);
      this.fail(new VmmUnreachable(`The machine's state did not come within ${time}`));
    });
    signal.addEventListener("abort", this.#onAbort);
    if (signal.aborted) this.#onAbort();
  }

  readonly #onAbort = (): void => this.fail(new VmmUnreachable("It was called off"));

  /** Gives it up: the VMM is told, and keeps the machine. */
  fail(reason: Error): void {
    if (this.#phase === "receiving") {
      for (const { descriptor } of this.#slots) descriptor.close();
      this.#outcome.reject(reason);
    }
    this.#end("error");
  }

  /** The machine is ours alone: the VMM ends. */
  release(): void {
    if (this.#phase === "held") this.#end("ok");
  }

  #end(answer: "ok" | "error"): void {
    if (this.#phase === "over") return;
    this.#phase = "over";
    this.#stopWaiting();
    this.#stream?.send(encodeAnswer(answer));
    this.#stream?.finish();
  }

  #stopWaiting(): void {
    this.#timer[Symbol.dispose]();
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    this.#listener.close();
    for (const descriptor of this.#descriptors.splice(0)) descriptor.close();
  }

  #onConnection(socket: OwnedDescriptor): void {
    const peer = identifyPeer(socket);
    if (this.#stream !== undefined || peer.processId !== this.#options.sender) {
      socket.close();
      return;
    }
    this.#stream = new StreamConnection(this.#loop, socket, {
      queuedBytes: this.#options.limits.messageBytes,
      takesRest: true,
      handlers: {
        onBytes: (bytes, descriptors) => this.#onBytes(bytes, descriptors),
        onEnd: (reason) => this.fail(new VmmUnreachable(`The VMM stopped sending: ${reason}`)),
      },
    });
  }

  #onBytes(bytes: Uint8Array, descriptors: OwnedDescriptor[]): void {
    this.#descriptors.push(...descriptors);
    this.#reader.push(bytes);
    while (this.#phase === "receiving") {
      const request = this.#reader.next();
      if (request === undefined) break;
      const refusal = "refusal" in request ? request.refusal : this.#take(request);
      if (refusal !== undefined) this.#refuse(refusal);
    }
    const most = this.#phase === "receiving" ? 1 : 0;
    if (this.#descriptors.length <= most) return;
    this.#refuse({ expected: "one descriptor at a time", received: "more" });
  }

  #refuse(refusal: WireRefusal): void {
    this.fail(new VmmRefused(`The VMM sends no machine: ${describe(refusal)}`));
    for (const descriptor of this.#descriptors.splice(0)) descriptor.close();
  }

  #take({ command, payload }: MigrationRequest): WireRefusal | undefined {
    if (command === "abandon")
      return { expected: "a machine", received: "the end of it (abandon)" };
    const next = stepReceiving(this.#receiving, command);
    if (typeof next === "object") return next.refusal;
    const refusal = command === "memory-descriptor" ? this.#takeSlot(payload) : undefined;
    if (refusal !== undefined) return refusal;
    if (command === "config") this.#config = Uint8Array.from(payload);
    if (command === "state") this.#state = Uint8Array.from(payload);
    this.#receiving = next;
    if (next === "complete") this.#hold();
    else this.#stream?.send(encodeAnswer("ok"));
    return undefined;
  }

  #takeSlot(payload: Uint8Array): WireRefusal | undefined {
    const slot = decodeSlot(payload);
    const descriptor = this.#descriptors.shift();
    if (descriptor === undefined) return { expected: "memory as a descriptor", received: "none" };
    this.#slots.push({ slot, descriptor });
    const { memorySlots } = this.#options.limits;
    if (this.#slots.filter((one) => one.slot === slot).length > 1) {
      return { expected: "each piece of memory once", received: `piece ${slot} again` };
    }
    if (this.#slots.length <= memorySlots) return undefined;
    return { expected: `at most ${memorySlots} pieces of memory`, received: "one more" };
  }

  #hold(): void {
    this.#phase = "held";
    this.#stopWaiting();
    this.#outcome.resolve({ slots: this.#slots, config: this.#config, state: this.#state });
  }

  [Symbol.dispose](): void {
    this.fail(new VmmUnreachable("It was called off"));
  }
}

/** A machine to be given: the descriptors stay the caller's. */
export interface GivenMachine {
  readonly slots: readonly { readonly slot: number; readonly descriptor: MemoryDescriptor }[];
  readonly config: Uint8Array;
  readonly state: Uint8Array;
}

/** The VMM does not listen for a machine. */
export class NobodyReceives extends VmmUnreachable {}

/**
 * Gives a machine to a VMM that was told to receive it at this path. It is paused there.
 * @param options.listening calls off the waiting for the VMM to listen
 */
export async function sendMachine(
  loop: EventLoop,
  machine: GivenMachine,
  options: PeerOptions & { readonly listening: AbortSignal },
): Promise<void> {
  const { path, limits, listening } = options;
  const limit = limits.stateTime;
  const connected = await connectWithin(loop, path, { limit, signal: listening });
  if (connected.kind === "failed") {
    throw new NobodyReceives(`The VMM takes no machine at ${path}: ${connected.reason}`);
  }
  // Nobody else is to come by this path.
  removeSocket(path);
  using sender = new MigrationSender(loop, connected.socket, options);
  await sender.ask("start");
  for (const { slot, descriptor } of machine.slots) {
    await sender.ask("memory-descriptor", encodeSlot(slot), [descriptor.number]);
  }
  await sender.ask("config", machine.config);
  await sender.ask("state", machine.state);
  await sender.ask("complete-paused");
}

/** Removes a socket that may be there. */
export function removeSocket(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It is not there, which is as well; what else keeps it will refuse whoever needs the path.
  }
}

/** One request at a time, each with its answer. */
class MigrationSender implements Disposable {
  readonly #stream: StreamConnection;
  readonly #timer: Disposable;
  readonly #signal: AbortSignal;
  readonly #answers = new ByteQueue();
  #open: PromiseWithResolvers<void> | undefined;
  #command: MigrationCommand = "start";
  #ended: Error | undefined;

  constructor(loop: EventLoop, socket: OwnedDescriptor, { limits, signal }: PeerOptions) {
    this.#signal = signal;
    this.#stream = new StreamConnection(loop, socket, {
      // The header, its payload, and what each costs in the queue.
      queuedBytes: 2 * limits.messageBytes,
      takesRest: true,
      handlers: {
        onBytes: (bytes, descriptors) => {
          for (const descriptor of descriptors) descriptor.close();
          this.#onBytes(bytes);
        },
        onEnd: (reason) => this.#end(new VmmUnreachable(`${this.#failure}: ${reason}`)),
      },
    });
    this.#timer = loop.wakeAfter(limits.stateTime, () => {
      const time = formatDuration(limits.stateTime);
      this.#end(new VmmUnreachable(`${this.#failure}: no answer within ${time}`));
    });
    signal.addEventListener("abort", this.#onAbort);
    if (signal.aborted) this.#onAbort();
  }

  readonly #onAbort = (): void => this.#end(new VmmUnreachable("It was called off"));

  get #failure(): string {
    return `The VMM does not take the machine (${this.#command})`;
  }

  async ask(
    command: MigrationCommand,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly number[] = [],
  ): Promise<void> {
    this.#command = command;
    if (this.#ended !== undefined) throw this.#ended;
    this.#open = Promise.withResolvers<void>();
    // A descriptor belongs to the first byte after the header: the VMM reads the two apart.
    this.#stream.send(encodeRequest(command, payload.length));
    if (payload.length > 0) this.#stream.send(payload, descriptors);
    await this.#open.promise;
  }

  #onBytes(bytes: Uint8Array): void {
    this.#answers.push(bytes);
    const answer = this.#answers.take(HEADER_BYTES);
    if (answer === undefined) return;
    const status = decodeAnswer(answer);
    if (typeof status === "object") {
      this.#end(new VmmRefused(`${this.#failure}: ${describe(status)}`));
    } else if (status === "error") {
      this.#end(new VmmRefused(`${this.#failure}: it answered with an error`));
    } else if (this.#open === undefined || this.#answers.size > 0) {
      this.#end(new VmmRefused(`${this.#failure}: it answered more than it was asked`));
    } else {
      this.#open.resolve();
      this.#open = undefined;
    }
  }

  #end(reason: Error): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.#open?.reject(reason);
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#timer[Symbol.dispose]();
    this.#stream.close();
  }
}
