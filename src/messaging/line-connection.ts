import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { StreamConnection } from "./stream-connection.ts";

/** What one line may be; going over it ends the connection. */
export interface LineLimits {
  /** Bytes of a line, less its end. */
  readonly lineBytes: number;
  /** Bytes that wait for a peer that does not read. */
  readonly queuedBytes: number;
  /** Descriptors that came and were not taken yet. */
  readonly descriptors: number;
}

export interface LineHandlers {
  /**
   * A line, as parsed JSON. A line that carries a descriptor has it on its first byte, so the
   * descriptors are taken in the order of the lines that speak of them.
   */
  onLine(body: unknown, takeDescriptor: () => OwnedDescriptor | undefined): void;
  /** Called once, when it is over; `violation` when the peer broke the rules of the wire. */
  onEnd(reason: string, violation: boolean): void;
}

const NEWLINE = 0x0a;

/**
 * Lines of JSON with descriptors over a Unix stream socket: what programs in any language speak
 * with a few lines of code. Between our own daemons `FrameConnection` is used, which knows lengths.
 */
export class LineConnection implements Disposable {
  readonly #stream: StreamConnection;
  readonly #limits: LineLimits;
  readonly #handlers: LineHandlers;
  readonly #descriptors: OwnedDescriptor[] = [];
  /** The beginning of a line whose end has not come; one piece, however small they come. */
  #line = new Uint8Array(0);
  #size = 0;

  constructor(
    loop: EventLoop,
    socket: OwnedDescriptor,
    options: {
      readonly limits: LineLimits;
      readonly handlers: LineHandlers;
      /** As for a stream: what a peer said before it was gone is taken, also when a send fails. */
      readonly takesRest?: boolean;
    },
  ) {
    this.#limits = options.limits;
    this.#handlers = options.handlers;
    this.#stream = new StreamConnection(loop, socket, {
      queuedBytes: options.limits.queuedBytes,
      takesRest: options.takesRest ?? false,
      handlers: {
        onBytes: (bytes, descriptors) => this.#onBytes(bytes, descriptors),
        onEnd: (reason) => this.#end(reason, false),
      },
    });
  }

  get isOpen(): boolean {
    return this.#stream.isOpen;
  }

  /** Descriptors that wait for a peer that does not read: duplicates that are open here. */
  get queuedDescriptors(): number {
    return this.#stream.queuedDescriptors;
  }

  /** One line, with at most one descriptor, which stays the caller's. */
  send(body: unknown, descriptor?: OwnedDescriptor): boolean {
    const bytes = new TextEncoder().encode(`${JSON.stringify(body)}\n`);
    return this.#stream.send(bytes, descriptor === undefined ? [] : [descriptor.number]);
  }

  #onBytes(bytes: Uint8Array, descriptors: OwnedDescriptor[]): void {
    this.#descriptors.push(...descriptors);
    if (this.#descriptors.length > this.#limits.descriptors) {
      const received = `${this.#descriptors.length}`;
      this.#violate(`at most ${this.#limits.descriptors} descriptors`, received);
      return;
    }
    let begin = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, begin)) {
      this.#keep(bytes.subarray(begin, end));
      begin = end + 1;
      if (!this.#takeLine()) return;
    }
    this.#keep(bytes.subarray(begin));
    if (this.#size > this.#limits.lineBytes) this.#tooLong();
  }

  #keep(bytes: Uint8Array): void {
    const size = this.#size + bytes.length;
    if (size > this.#line.length) {
      const larger = new Uint8Array(Math.max(size, 2 * this.#line.length));
      larger.set(this.#line.subarray(0, this.#size));
      this.#line = larger;
    }
    this.#line.set(bytes, this.#size);
    this.#size = size;
  }

  /** False when the connection is over. */
  #takeLine(): boolean {
    if (this.#size > this.#limits.lineBytes) {
      this.#tooLong();
      return false;
    }
    const line = this.#line.subarray(0, this.#size);
    this.#line = new Uint8Array(0);
    this.#size = 0;
    let body: unknown;
    try {
      body = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(line));
    } catch {
      this.#violate(
        "a line of JSON",
        JSON.stringify(Buffer.from(line.subarray(0, 64)).toString("latin1")),
      );
      return false;
    }
    this.#handlers.onLine(body, () => this.#descriptors.shift());
    return this.isOpen;
  }

  #tooLong(): void {
    this.#violate(`a line of at most ${this.#limits.lineBytes} bytes`, "a longer one");
  }

  #violate(expected: string, received: string): void {
    this.close();
    this.#handlers.onEnd(`expected ${expected}, received ${received}`, true);
  }

  #end(reason: string, violation: boolean): void {
    this.#forget();
    this.#handlers.onEnd(reason, violation);
  }

  #forget(): void {
    for (const descriptor of this.#descriptors.splice(0)) descriptor.close();
    this.#line = new Uint8Array(0);
    this.#size = 0;
  }

  /** Closes after what is queued has been sent. */
  finish(): void {
    this.#forget();
    this.#stream.finish();
  }

  /** Closes at once; `onEnd` is not called. */
  close(): void {
    this.#forget();
    this.#stream.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
