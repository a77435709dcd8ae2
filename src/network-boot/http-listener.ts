import type { Socket, TCPSocketListener } from "bun";
import { monotonicNow } from "../event-loop/clock.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { listenOnInterface } from "../network/interface-listener.ts";
import type { MonotonicTime } from "../units/units.ts";
import type { BootFile } from "./boot-files.ts";
import { SCRIPT_PATH } from "./lifecycle-choice.ts";
import {
  HEAD_TIME,
  IDLE_TIME,
  LONGEST_HEAD,
  MOST_CONNECTIONS,
  MOST_CONNECTIONS_A_PEER,
  PIECE,
} from "./limits.ts";
import { encodeHead, type HttpRequest, hasBody, parseRequest, rangeOf } from "./protocol-http.ts";

/**
 * Files and scripts over plain HTTP, on one interface. Bun.serve cannot be tied to an interface, so
 * this is on a socket that is; firmware needs no more of HTTP than what is here.
 */

export interface HttpListenerOptions {
  readonly loop: EventLoop;
  readonly interface: string;
  readonly serverAddress: string;
  readonly port: number;
  readonly files: ReadonlyMap<string, BootFile>;
  /** What is at SCRIPT_PATH for whoever asks with this query. */
  readonly script: (search: string, peer: string) => Promise<ScriptAnswer>;
  readonly onEvent: (event: HttpEvent) => void;
}

export interface ScriptAnswer {
  readonly status: number;
  readonly text: string;
}

export type HttpEvent =
  /** All that was asked for went to the kernel. */
  | { readonly kind: "sent"; readonly peer: string; readonly file: string; readonly bytes: number }
  | { readonly kind: "refused"; readonly peer: string; readonly reason: string };

/** Since the listener began. */
export interface HttpCounters {
  connections: number;
  /** Connections over the bounds: they are closed at once. */
  overLimit: number;
  requests: number;
  refused: number;
  /** Connections that said nothing for too long. */
  idle: number;
  bytes: number;
}

/** What is on its way to a client. */
interface Sending {
  readonly file: BootFile | undefined;
  /** Of the file, what comes next, and where it ends. */
  position: number;
  readonly end: number;
  /** Bytes that were read, or written down, and not taken yet. */
  rest: Uint8Array;
  readonly keepsAlive: boolean;
  readonly bytes: number;
}

interface Connection {
  readonly socket: Socket<undefined>;
  readonly peer: string;
  /** What came and was not looked at: the beginning of a head. */
  received: Uint8Array;
  sending: Sending | undefined;
  /** A script is being made. */
  waits: boolean;
  /** When it is closed. */
  until: MonotonicTime;
  wake: Disposable | undefined;
  closed: boolean;
}

export class HttpListener implements Disposable {
  readonly counters: HttpCounters = {
    connections: 0,
    overLimit: 0,
    requests: 0,
    refused: 0,
    idle: 0,
    bytes: 0,
  };
  readonly #options: HttpListenerOptions;
  readonly #connections = new Map<Socket<undefined>, Connection>();
  readonly #listener: TCPSocketListener<undefined>;

  private constructor(options: HttpListenerOptions) {
    this.#options = options;
    const { interface: name, serverAddress: address, port } = options;
    const place = { interface: name, address, port, backlog: MOST_CONNECTIONS };
    this.#listener = listenOnInterface(place, {
      open: (socket) => this.#open(socket),
      data: (socket, bytes) => this.#hear(socket, bytes),
      drain: (socket) => this.#goOn(this.#connections.get(socket)),
      close: (socket) => this.#forget(socket),
      error: (socket) => this.#drop(socket),
    });
  }

  /** @throws SystemCallError EADDRINUSE, EADDRNOTAVAIL; ENODEV without such an interface */
  static start(options: HttpListenerOptions): HttpListener {
    return new HttpListener(options);
  }

  get connections(): number {
    return this.#connections.size;
  }

  #open(socket: Socket<undefined>): void {
    const peer = socket.remoteAddress;
    const own = [...this.#connections.values()].filter((one) => one.peer === peer).length;
    if (this.#connections.size >= MOST_CONNECTIONS || own >= MOST_CONNECTIONS_A_PEER) {
      this.counters.overLimit += 1;
      socket.terminate();
      return;
    }
    this.counters.connections += 1;
    const connection: Connection = {
      socket,
      peer,
      received: new Uint8Array(0),
      sending: undefined,
      waits: false,
      until: monotonicNow() + HEAD_TIME,
      wake: undefined,
      closed: false,
    };
    this.#connections.set(socket, connection);
    this.#watchTime(connection);
  }

  /** One timer for each, which looks when it rings whether its time was put off. */
  #watchTime(connection: Connection): void {
    connection.wake = this.#options.loop.wakeAt(connection.until, () => {
      if (connection.closed) return;
      if (monotonicNow() < connection.until) {
        this.#watchTime(connection);
        return;
      }
      this.counters.idle += 1;
      this.#drop(connection.socket);
    });
  }

  #hear(socket: Socket<undefined>, bytes: Uint8Array): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    const { received } = connection;
    // Nobody needs to send a second head before the first was answered, with more than that.
    if (received.length + bytes.length > 2 * LONGEST_HEAD) {
      this.#drop(socket);
      return;
    }
    // A head has its time from its first byte on.
    if (received.length === 0) connection.until = monotonicNow() + HEAD_TIME;
    const all = new Uint8Array(received.length + bytes.length);
    all.set(received);
    all.set(bytes, received.length);
    connection.received = all;
    this.#look(connection);
  }

  /** Takes up the next request, when the one before is answered. */
  #look(connection: Connection): void {
    if (connection.closed || connection.waits || connection.sending !== undefined) return;
    const parsed = parseRequest(connection.received);
    if (parsed === undefined) return;
    this.counters.requests += 1;
    if (!parsed.ok) {
      const { key, expected, received } = parsed.refusal;
      this.#refuse(connection, 400, `${key}: expected ${expected}, received ${received}`);
      return;
    }
    const request = parsed.value;
    connection.received = connection.received.subarray(request.length);
    if (hasBody(request)) this.#refuse(connection, 413, "expected no body");
    else this.#serve(connection, request);
  }

  #serve(connection: Connection, request: HttpRequest): void {
    const { method, path } = request;
    if (method !== "GET" && method !== "HEAD") {
      this.#refuse(connection, 405, "expected GET or HEAD");
      return;
    }
    if (path === SCRIPT_PATH) {
      this.#serveScript(connection, request);
      return;
    }
    const file = this.#options.files.get(path.slice(1));
    if (file === undefined) {
      this.#answerText(connection, request, { status: 404, text: "No such file\n" });
      this.#tellRefused(connection, `no such file: ${JSON.stringify(path.slice(0, 128))}`);
      return;
    }
    if (!file.isUnchanged()) {
      this.#answerText(connection, request, { status: 503, text: "The file has changed\n" });
      this.#tellRefused(connection, `${file.name} has changed since it was hashed`);
      return;
    }
    this.#serveFile(connection, request, file);
  }

  #serveScript(connection: Connection, request: HttpRequest): void {
    connection.waits = true;
    connection.until = monotonicNow() + IDLE_TIME;
    this.#options
      .script(request.search, connection.peer)
      .then((answer) => {
        connection.waits = false;
        if (!connection.closed) this.#answerText(connection, request, answer);
      })
      .catch((failure: unknown) => this.#options.loop.fail(failure));
  }

  #serveFile(connection: Connection, request: HttpRequest, file: BootFile): void {
    const tag = `"${file.sha256}"`;
    const range = rangeOf(request.fields, { size: file.size, tag });
    const fields = {
      "Content-Type": file.name.endsWith(".efi") ? "application/efi" : "application/octet-stream",
      "Accept-Ranges": "bytes",
      ETag: tag,
    };
    if (range.kind === "unsatisfiable") {
      const head = { ...fields, "Content-Range": `bytes */${file.size}`, "Content-Length": 0 };
      this.#send(connection, request, encodeHead(416, head));
      return;
    }
    const first = range.kind === "part" ? range.first : 0;
    const last = range.kind === "part" ? range.last : file.size - 1;
    const partial = range.kind === "part" && {
      "Content-Range": `bytes ${first}-${last}/${file.size}`,
    };
    const head = encodeHead(range.kind === "part" ? 206 : 200, {
      ...fields,
      ...partial,
      "Content-Length": last - first + 1,
      ...connectionField(request),
    });
    const isHead = request.method === "HEAD";
    this.#send(connection, request, head, isHead ? undefined : { file, first, end: last + 1 });
  }

  #answerText(connection: Connection, request: HttpRequest, { status, text }: ScriptAnswer): void {
    const body = new TextEncoder().encode(text);
    const head = encodeHead(status, {
      "Content-Type": "text/plain; charset=utf-8",
      // Each script may hold a token, which is good once.
      "Cache-Control": "no-store",
      "Content-Length": body.length,
      ...connectionField(request),
    });
    const all = new Uint8Array(head.length + body.length);
    all.set(head);
    all.set(body, head.length);
    this.#send(connection, request, request.method === "HEAD" ? head : all);
  }

  /** Answers what is none of ours, and ends the connection. */
  #refuse(connection: Connection, status: number, reason: string): void {
    this.#tellRefused(connection, reason);
    const head = encodeHead(status, { "Content-Length": 0, Connection: "close" });
    connection.received = new Uint8Array(0);
    this.#send(connection, { keepsAlive: false }, head);
  }

  #tellRefused({ peer }: Connection, reason: string): void {
    this.counters.refused += 1;
    this.#options.onEvent({ kind: "refused", peer, reason });
  }

  #send(
    connection: Connection,
    { keepsAlive }: Pick<HttpRequest, "keepsAlive">,
    head: Uint8Array,
    part?: { readonly file: BootFile; readonly first: number; readonly end: number },
  ): void {
    connection.sending = {
      file: part?.file,
      position: part?.first ?? 0,
      end: part?.end ?? 0,
      rest: head,
      keepsAlive,
      bytes: part === undefined ? 0 : part.end - part.first,
    };
    this.#goOn(connection);
  }

  /** Sends as much as is taken; a piece at a time, so that others have their turn. */
  #goOn(connection: Connection | undefined): void {
    const sending = connection?.sending;
    if (connection === undefined || sending === undefined || connection.closed) return;
    if (sending.rest.length === 0 && !readNext(sending)) {
      this.#tellRefused(connection, `${sending.file?.name} cannot be read`);
      this.#drop(connection.socket);
      return;
    }
    const written = connection.socket.write(sending.rest);
    if (written < 0) {
      this.#drop(connection.socket);
      return;
    }
    if (written > 0) connection.until = monotonicNow() + IDLE_TIME;
    this.counters.bytes += written;
    sending.rest = sending.rest.subarray(written);
    if (sending.rest.length > 0) return;
    if (sending.position < sending.end) {
      this.#options.loop.afterTurn(() => this.#goOnLater(connection));
      return;
    }
    this.#finish(connection, sending);
  }

  #goOnLater(connection: Connection): void {
    const { loop } = this.#options;
    loop
      .letOthers()
      .then(() => this.#goOn(connection))
      .catch((failure: unknown) => loop.fail(failure));
  }

  #finish(connection: Connection, { file, bytes, keepsAlive }: Sending): void {
    connection.sending = undefined;
    const { peer } = connection;
    if (file !== undefined) this.#options.onEvent({ kind: "sent", peer, file: file.name, bytes });
    if (!keepsAlive) {
      connection.socket.end();
      return;
    }
    this.#look(connection);
  }

  #forget(socket: Socket<undefined>): void {
    const connection = this.#connections.get(socket);
    if (connection === undefined) return;
    connection.closed = true;
    connection.wake?.[Symbol.dispose]();
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

/** @returns false when the file does not give what it has */
function readNext(sending: Sending): boolean {
  const { file, position, end } = sending;
  if (file === undefined || position >= end) return true;
  const piece = new Uint8Array(Math.min(PIECE, end - position));
  try {
    if (file.read(piece, position) !== piece.length) return false;
  } catch {
    return false;
  }
  sending.position += piece.length;
  sending.rest = piece;
  return true;
}

function connectionField({ keepsAlive }: HttpRequest): Readonly<Record<string, string>> {
  return { Connection: keepsAlive ? "keep-alive" : "close" };
}
