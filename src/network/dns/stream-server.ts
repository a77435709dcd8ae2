import type { Socket, SocketHandler, TCPSocketListener } from "bun";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { listenOnInterface } from "../interface-listener.ts";
import {
  IDLE_TIME,
  LONGEST_QUERY,
  MOST_CONNECTIONS,
  MOST_CONNECTIONS_A_MACHINE,
  MOST_UNTAKEN,
} from "./limits.ts";
import { FrameReader, framed } from "./upstream.ts";

/** DNS over TCP at one address, by Bun's own sockets: RFC 7766. */

export interface StreamServerOptions {
  readonly loop: EventLoop;
  readonly address: string;
  readonly port: number;
  /** Who comes by another interface is refused; undefined: by any. */
  readonly interface?: string;
  /** Connections of one address; MOST_CONNECTIONS_A_MACHINE unless said otherwise. */
  readonly mostAMachine?: number;
  /** Whether anybody is answered at this address. */
  readonly isKnown: (address: string) => boolean;
  /** @returns undefined where nothing is said, and the connection ends */
  readonly answer: (query: Uint8Array, address: string) => Promise<Uint8Array | undefined>;
}

interface Connection {
  readonly address: string;
  readonly reader: FrameReader;
  /** Bytes that the client has not taken yet. */
  untaken: Uint8Array<ArrayBuffer>;
  idle: Disposable;
}

export class StreamServer implements Disposable {
  readonly #options: StreamServerOptions;
  readonly #connections = new Map<Socket<undefined>, Connection>();
  readonly #listener: TCPSocketListener<undefined>;

  private constructor(options: StreamServerOptions) {
    this.#options = options;
    this.#listener = listen(options, {
      open: (socket) => this.#open(socket),
      data: (socket, bytes) => this.#take(socket, bytes),
      drain: (socket) => this.#drain(socket),
      close: (socket) => this.#forget(socket),
      error: (socket) => this.#drop(socket),
    });
  }

  /** @throws Error EADDRINUSE, EADDRNOTAVAIL; ENODEV without such an interface */
  static listen(options: StreamServerOptions): StreamServer {
    return new StreamServer(options);
  }

  get port(): number {
    return this.#options.interface === undefined ? this.#listener.port : this.#options.port;
  }

  /** Those that are open. */
  get connections(): number {
    return this.#connections.size;
  }

  #open(socket: Socket<undefined>): void {
    const address = socket.remoteAddress;
    const { isKnown, mostAMachine = MOST_CONNECTIONS_A_MACHINE } = this.#options;
    const own = [...this.#connections.values()].filter((one) => one.address === address).length;
    const isFull = this.#connections.size >= MOST_CONNECTIONS || own >= mostAMachine;
    if (isFull || !isKnown(address)) {
      socket.terminate();
      return;
    }
    const reader = new FrameReader(LONGEST_QUERY);
    const idle = this.#dropAfterSilence(socket);
    this.#connections.set(socket, { address, reader, idle, untaken: new Uint8Array(0) });
  }

  #dropAfterSilence(socket: Socket<undefined>): Disposable {
    return this.#options.loop.wakeAfter(IDLE_TIME, () => this.#drop(socket));
  }

  #take(socket: Socket<undefined>, bytes: Uint8Array): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    connection.idle[Symbol.dispose]();
    connection.idle = this.#dropAfterSilence(socket);
    const queries = connection.reader.add(bytes);
    if (queries === undefined) this.#drop(socket);
    for (const query of queries ?? []) {
      this.#serve(socket, connection, query).catch(() => this.#drop(socket));
    }
  }

  async #serve(
    socket: Socket<undefined>,
    connection: Connection,
    query: Uint8Array,
  ): Promise<void> {
    const answer = await this.#options.answer(query, connection.address);
    if (this.#connections.get(socket) !== connection) return;
    const { untaken } = connection;
    if (answer === undefined || untaken.length + answer.length + 2 > MOST_UNTAKEN) {
      this.#drop(socket);
      return;
    }
    const bytes = framed(answer);
    const all = new Uint8Array(untaken.length + bytes.length);
    all.set(untaken);
    all.set(bytes, untaken.length);
    connection.untaken = all;
    this.#drain(socket);
  }

  #drain(socket: Socket<undefined>): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined || connection.untaken.length === 0) return;
    const written = socket.write(connection.untaken);
    if (written < 0) this.#drop(socket);
    else connection.untaken = connection.untaken.slice(written);
  }

  #forget(socket: Socket<undefined>): void {
    this.#connections.get(socket)?.idle[Symbol.dispose]();
    this.#connections.delete(socket);
  }

  #drop(socket: Socket<undefined>): void {
    this.#forget(socket);
    socket.terminate();
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
    for (const socket of [...this.#connections.keys()]) this.#drop(socket);
  }
}

function listen(
  { address, port, interface: name }: StreamServerOptions,
  socket: SocketHandler<undefined>,
): TCPSocketListener<undefined> {
  if (name === undefined) return Bun.listen<undefined>({ hostname: address, port, socket });
  return listenOnInterface({ interface: name, address, port, backlog: MOST_CONNECTIONS }, socket);
}
