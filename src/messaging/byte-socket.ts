/** What a socket of Bun carries, once it is known whose it is. */
export interface SocketData {
  peer: ByteSocket | undefined;
}

type BunSocket = Bun.Socket<SocketData>;

/**
 * A stream of bytes, by TLS or a Unix socket, that lets nothing heap up: what the other side does
 * not take at once waits here, and whoever sends is told to wait as well.
 */
export class ByteSocket {
  readonly #socket: BunSocket;
  #unsent: Uint8Array | undefined;
  #isEnding = false;
  #end: string | undefined;
  /** Came before anybody wanted them: at most so many, then the socket is paused. */
  #early: Uint8Array[] = [];
  #onBytes: ((bytes: Uint8Array) => void) | undefined;
  readonly #closed = Promise.withResolvers<string>();
  /** Who waits until what was written has been taken, each once. */
  #waiting: (() => void)[] = [];
  onDrained: () => void = () => {};

  constructor(socket: BunSocket) {
    this.#socket = socket;
    socket.data = { peer: this };
  }

  /** Why it is over; pending while it is not. */
  get closed(): Promise<string> {
    return this.#closed.promise;
  }

  get end(): string | undefined {
    return this.#end;
  }

  get isOpen(): boolean {
    return this.#end === undefined && !this.#isEnding;
  }

  /** Bytes that the peer has not taken yet. */
  get unsentBytes(): number {
    return this.#unsent?.length ?? 0;
  }

  /** Takes what comes from now on, and what has come already. */
  listen(onBytes: (bytes: Uint8Array) => void): void {
    this.#onBytes = onBytes;
    const early = this.#early;
    this.#early = [];
    for (const bytes of early) this.hear(bytes);
    this.#socket.resume();
  }

  /** Gives back what nobody wanted yet: whoever listens next hears it first. */
  unread(bytes: Uint8Array): void {
    this.#onBytes = undefined;
    this.#socket.pause();
    if (bytes.length > 0) this.#early.unshift(new Uint8Array(bytes));
  }

  /** @returns false when the writer should wait for `onDrained` before it writes more */
  write(bytes: Uint8Array): boolean {
    if (!this.isOpen) return true;
    if (this.#unsent !== undefined) {
      this.#unsent = Buffer.concat([this.#unsent, bytes]);
      return false;
    }
    const sent = Math.max(0, this.#socket.write(bytes));
    if (sent >= bytes.length) return true;
    this.#unsent = new Uint8Array(bytes.subarray(sent));
    return false;
  }

  /** Resolves when the peer has taken all, or is gone. */
  async drained(): Promise<void> {
    while (this.#unsent !== undefined && this.#end === undefined) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    }
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Ends after what was written has been taken. */
  finish(): void {
    if (!this.isOpen) return;
    this.#isEnding = true;
    if (this.#unsent === undefined) this.#socket.end();
  }

  /** Ends at once: what was written and not taken is lost. */
  terminate(reason: string): void {
    this.#over(reason);
    this.#socket.terminate();
  }

  // What the socket's handlers tell.

  hear(bytes: Uint8Array): void {
    if (this.#onBytes !== undefined) {
      this.#onBytes(bytes);
      return;
    }
    this.#early.push(new Uint8Array(bytes));
    this.#socket.pause();
  }

  drain(): void {
    if (this.#unsent !== undefined) {
      const sent = Math.max(0, this.#socket.write(this.#unsent));
      if (sent < this.#unsent.length) {
        this.#unsent = this.#unsent.subarray(sent);
        return;
      }
      this.#unsent = undefined;
      this.onDrained();
      this.#wake();
    }
    if (this.#isEnding) this.#socket.end();
  }

  close(reason: string): void {
    this.#over(reason);
  }

  #over(reason: string): void {
    if (this.#end !== undefined) return;
    this.#end = reason;
    this.#unsent = undefined;
    this.#closed.resolve(reason);
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

/** The handlers of Bun that all of these sockets share. */
export const byteSocketHandlers = {
  data: (socket: BunSocket, bytes: Uint8Array) => socket.data.peer?.hear(bytes),
  drain: (socket: BunSocket) => socket.data.peer?.drain(),
  close: (socket: BunSocket) => socket.data.peer?.close("the other side closed it"),
  error: (socket: BunSocket, error: Error) => socket.data.peer?.close(error.message),
  end: (socket: BunSocket) => socket.data.peer?.finish(),
};

/** Each takes what the other one gives, until either is over: the other one gets the rest first. */
export function join(
  one: ByteSocket,
  other: ByteSocket,
  onBytes: (count: number) => void = () => {},
): void {
  const pass = (from: ByteSocket, to: ByteSocket) => {
    to.onDrained = () => from.resume();
    from.listen((bytes) => {
      onBytes(bytes.length);
      if (!to.write(bytes)) from.pause();
    });
    void from.closed.then(() => to.finish());
  };
  pass(one, other);
  pass(other, one);
}

/** Connects to a Unix socket. @throws Error (ECONNREFUSED …) */
export async function connectUnixBytes(path: string): Promise<ByteSocket> {
  const opened = Promise.withResolvers<ByteSocket>();
  // A refusal is told twice: nobody waits for this when the call itself has said it.
  opened.promise.catch(() => undefined);
  await Bun.connect<SocketData>({
    unix: path,
    data: { peer: undefined },
    socket: {
      ...byteSocketHandlers,
      open: (socket) => opened.resolve(new ByteSocket(socket)),
      connectError: (_socket, error) => opened.reject(error),
    },
  });
  return await opened.promise;
}
