import { duplicate } from "../../ffi/descriptor.ts";
import { NativeMemory } from "../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage } from "../../ffi/system-call-error.ts";
import { type PeerCredentials, receiveMessage, sendMessage } from "../../ffi/unix-socket.ts";
import type { EventLoop, Watch } from "../event-loop/event-loop.ts";

/** Bytes taken by one read. */
const READ_SIZE = 65_536;
/** Reads in one turn: a peer that floods must not keep others waiting. */
const READS_A_TURN = 16;

/** Descriptors that are gathered for one message; the kernel takes 253. */
const DESCRIPTORS_TOGETHER = 64;

/** What a queued piece costs beside its bytes: a peer may make us queue very small ones. */
const PIECE_COST = 512;

/** Shared by all connections of this thread: what is read is copied out before the next read. */
const incoming = new NativeMemory(READ_SIZE);
const outgoing = new NativeMemory(READ_SIZE);

export interface StreamHandlers {
  /**
   * Bytes, valid only during the call, and descriptors, which are the handler's to close. The
   * sender's credentials come where `receiveCredentials` was asked for.
   */
  onBytes(
    bytes: Uint8Array,
    descriptors: OwnedDescriptor[],
    sender: PeerCredentials | undefined,
  ): void;
  /** Called once, when the connection is over for whatever reason; not after `close`. */
  onEnd(reason: string): void;
  /** What was queued for a peer that reads slowly has been sent. */
  onDrained?(): void;
}

interface Queued {
  readonly memory: NativeMemory;
  offset: number;
  descriptors: OwnedDescriptor[];
}

/**
 * A Unix stream socket that carries bytes and descriptors both ways, never blocks, and lets go of
 * a peer that does not read.
 */
export class StreamConnection implements Disposable {
  readonly #socket: OwnedDescriptor;
  readonly #watch: Watch;
  readonly #queueLimit: number;
  readonly #loop: EventLoop;
  readonly #takesRest: boolean;
  #failure: string | undefined;
  #handlers: StreamHandlers;
  #queue: Queued[] = [];
  #queuedBytes = 0;
  /** What is sent at the end of the turn. */
  readonly #later: Uint8Array[] = [];
  readonly #laterDescriptors: number[] = [];
  #laterBytes = 0;
  #closing = false;

  constructor(
    loop: EventLoop,
    socket: OwnedDescriptor,
    options: {
      readonly queuedBytes: number;
      readonly handlers: StreamHandlers;
      /**
       * A send that finds the peer gone ends the connection only after what the peer sent before
       * has been taken: for descriptors of which there may be no other.
       */
      readonly takesRest?: boolean;
    },
  ) {
    this.#socket = socket;
    this.#loop = loop;
    this.#takesRest = options.takesRest ?? false;
    this.#queueLimit = options.queuedBytes;
    this.#handlers = options.handlers;
    this.#watch = loop.watch(socket, "readable", (ready) => {
      if (ready.writable) this.#flush();
      if (this.isOpen && (ready.readable || ready.hungUp || ready.failed)) this.#receive();
    });
  }

  get socket(): OwnedDescriptor {
    return this.#socket;
  }

  get isOpen(): boolean {
    return this.#socket.isOpen;
  }

  /** Bytes that the peer has not taken yet. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Descriptors among them, which are open here until it takes them. */
  get queuedDescriptors(): number {
    return this.#queue.reduce((count, { descriptors }) => count + descriptors.length, 0);
  }

  /** Nothing waits to be sent, and nothing has gone wrong. */
  get isIdle(): boolean {
    const sends = this.#queue.length > 0 || this.#later.length > 0;
    return this.isOpen && !sends && !this.#closing && this.#failure === undefined;
  }

  /** Somebody else takes what comes from now on. */
  setHandlers(handlers: StreamHandlers): void {
    this.#handlers = handlers;
  }

  /**
   * Sends bytes with descriptors on the first of them. False when the connection is over. What
   * the socket does not take at once is queued, with duplicates of the descriptors.
   */
  send(bytes: Uint8Array, descriptors: readonly number[] = []): boolean {
    if (this.#later.length > 0) this.sendGathered();
    return this.#sendNow(bytes, descriptors);
  }

  /**
   * Sends bytes with all others of this turn: at its end, or before the next that are sent. The
   * descriptors must stay open until then; all of them come with the first byte of all the bytes.
   */
  sendLater(bytes: Uint8Array, descriptors: readonly number[] = []): void {
    if (!this.isOpen || this.#closing) return;
    if (this.#later.length === 0) this.#loop.afterTurn(() => this.sendGathered());
    this.#later.push(bytes);
    this.#laterDescriptors.push(...descriptors);
    this.#laterBytes += bytes.length;
    const isFull = this.#laterDescriptors.length >= DESCRIPTORS_TOGETHER;
    if (isFull || this.#laterBytes >= READ_SIZE) this.sendGathered();
  }

  /** Sends now what was to be sent later. */
  sendGathered(): void {
    if (this.#later.length === 0) return;
    const bytes = new Uint8Array(this.#laterBytes);
    let offset = 0;
    for (const piece of this.#later.splice(0)) {
      bytes.set(piece, offset);
      offset += piece.length;
    }
    this.#laterBytes = 0;
    this.#sendNow(bytes, this.#laterDescriptors.splice(0));
  }

  #sendNow(bytes: Uint8Array, descriptors: readonly number[]): boolean {
    if (!this.isOpen || this.#closing || this.#failure !== undefined) return false;
    let sent = 0;
    if (this.#queue.length === 0) {
      const memory = bytes.length <= READ_SIZE ? outgoing : new NativeMemory(bytes.length);
      memory.bytes.set(bytes);
      const result = sendMessage(
        this.#socket,
        memory,
        { offset: 0, length: bytes.length },
        descriptors,
      );
      if (result === bytes.length) return true;
      if (result < 0 && result !== -Errno.EAGAIN) {
        this.#failToSend(-result);
        return false;
      }
      sent = Math.max(0, result);
    }
    return this.#enqueue(bytes.subarray(sent), sent > 0 ? [] : descriptors);
  }

  #failToSend(errno: number): void {
    const reason = `cannot send: ${errnoMessage(errno)}`;
    if (!this.#takesRest) {
      this.#end(reason);
      return;
    }
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    // Not here: the handler of what comes may be the one that is sending.
    this.#loop.afterTurn(() => {
      while (this.isOpen && this.#receiveOne() !== "empty");
      this.#end(reason);
    });
  }

  #enqueue(bytes: Uint8Array, descriptors: readonly number[]): boolean {
    if (this.#queuedBytes + bytes.length + PIECE_COST > this.#queueLimit) {
      this.#end(`it does not read: more than ${this.#queueLimit} bytes wait for it`);
      return false;
    }
    const memory = new NativeMemory(bytes.length);
    memory.bytes.set(bytes);
    const kept = descriptors.map((descriptor) => duplicate(descriptor));
    this.#queue.push({ memory, offset: 0, descriptors: kept });
    this.#queuedBytes += bytes.length + PIECE_COST;
    this.#watch.change("both");
    return true;
  }

  #flush(): void {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      const range = { offset: first.offset, length: first.memory.size - first.offset };
      const numbers = first.descriptors.map((descriptor) => descriptor.number);
      const result = sendMessage(this.#socket, first.memory, range, numbers);
      if (result === -Errno.EAGAIN) return;
      if (result < 0) {
        this.#failToSend(-result);
        return;
      }
      for (const descriptor of first.descriptors) descriptor.close();
      first.descriptors = [];
      first.offset += result;
      this.#queuedBytes -= result;
      if (first.offset < first.memory.size) return;
      this.#queue.shift();
      this.#queuedBytes -= PIECE_COST;
    }
    if (this.#closing) {
      this.close();
      return;
    }
    this.#watch.change("readable");
    this.#handlers.onDrained?.();
  }

  #receive(): void {
    for (let count = 0; count < READS_A_TURN && this.isOpen; count++) {
      if (this.#receiveOne() !== "more") return;
    }
  }

  /** One read: "last" when the socket most likely has no more, "empty" when it has none. */
  #receiveOne(): "more" | "last" | "empty" {
    const message = receiveMessage(this.#socket, incoming);
    if (message.length === -Errno.EAGAIN) return "empty";
    if (message.length < 0) {
      this.#end(`cannot receive: ${errnoMessage(-message.length)}`);
      return "empty";
    }
    if (message.truncated) {
      for (const descriptor of message.descriptors) descriptor.close();
      this.#end("more descriptors came with one message than this process can take");
      return "empty";
    }
    if (message.length === 0) {
      for (const descriptor of message.descriptors) descriptor.close();
      this.#end("the peer closed the connection");
      return "empty";
    }
    if (this.#closing) {
      for (const descriptor of message.descriptors) descriptor.close();
      return "more";
    }
    const bytes = incoming.bytes.subarray(0, message.length);
    this.#handlers.onBytes(bytes, message.descriptors, message.credentials);
    return message.length < READ_SIZE && message.descriptors.length === 0 ? "last" : "more";
  }

  #end(reason: string): void {
    if (!this.isOpen) return;
    const told = this.#closing;
    this.close();
    if (!told) this.#handlers.onEnd(reason);
  }

  /** Closes after what is queued has been sent; nothing more is taken from the peer. */
  finish(): void {
    this.sendGathered();
    if (this.#queue.length === 0) this.close();
    else this.#closing = true;
  }

  /** Closes at once; `onEnd` is not called. */
  close(): void {
    if (!this.isOpen) return;
    this.#watch[Symbol.dispose]();
    for (const entry of this.#queue) for (const descriptor of entry.descriptors) descriptor.close();
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#later.length = 0;
    this.#laterDescriptors.length = 0;
    this.#laterBytes = 0;
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
