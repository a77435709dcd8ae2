import type { ByteSocket } from "../../messaging/byte-socket.ts";

const NEWLINE = 10;

interface Handlers {
  readonly onLine: (line: string) => void;
  /** It said what no line can be: it is let go of. */
  readonly onViolation: (reason: string) => void;
}

/** Lines of JSON over a stream of bytes, each of a limited length. */
export class LineChannel {
  readonly socket: ByteSocket;
  #handlers: Handlers;
  #lineBytes: number;
  readonly #queuedBytes: number;
  #rest = Buffer.alloc(0);
  #isReleased = false;

  constructor(
    socket: ByteSocket,
    limits: { readonly lineBytes: number; readonly queuedBytes: number },
    handlers: Handlers,
  ) {
    this.socket = socket;
    this.#lineBytes = limits.lineBytes;
    this.#queuedBytes = limits.queuedBytes;
    this.#handlers = handlers;
    socket.listen((bytes) => this.#take(bytes));
  }

  #take(bytes: Uint8Array): void {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    while (!this.#isReleased) {
      const end = this.#rest.indexOf(NEWLINE);
      const length = end < 0 ? this.#rest.length : end;
      if (length > this.#lineBytes) {
        this.#rest = Buffer.alloc(0);
        this.#handlers.onViolation(`expected a line of at most ${this.#lineBytes} bytes`);
        return;
      }
      if (end < 0) return;
      const line = this.#rest.subarray(0, end).toString("utf8");
      this.#rest = this.#rest.subarray(end + 1);
      this.#handlers.onLine(line);
    }
  }

  /** Somebody else takes the lines that come, which may be longer from now on. */
  setHandlers(handlers: Handlers, lineBytes: number): void {
    this.#handlers = handlers;
    this.#lineBytes = lineBytes;
  }

  /** @returns false when it could not be written: the connection is over, or nobody reads there */
  send(message: object): boolean {
    if (!this.socket.isOpen) return false;
    if (this.socket.unsentBytes > this.#queuedBytes) {
      this.socket.terminate(`more than ${this.#queuedBytes} bytes wait for it`);
      return false;
    }
    this.socket.write(Buffer.from(`${JSON.stringify(message)}\n`));
    return true;
  }

  /** No more lines: the bytes that follow are whoever's listens to the socket next. */
  release(): ByteSocket {
    this.#isReleased = true;
    this.socket.unread(this.#rest);
    return this.socket;
  }
}
