/** A server of published folders that has Range, and can be told to misbehave. */
import { readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";

export interface Asked {
  readonly name: string;
  /** From, and the one after the last. */
  readonly range: readonly [number, number] | undefined;
  /** Of this server, from 1. */
  readonly count: number;
}

/** @returns undefined to answer as it should */
export type Misbehave = (asked: Asked) => Response | Promise<Response> | undefined;

export class ArtifactServer implements AsyncDisposable {
  readonly asked: Asked[] = [];
  misbehave: Misbehave = () => undefined;
  readonly #folder: string;
  readonly #server: Bun.Server<undefined>;

  constructor(folder: string, tls?: { readonly key: string; readonly cert: string }) {
    this.#folder = folder;
    this.#server = Bun.serve({
      ...{ hostname: "127.0.0.1", port: 0, fetch: (request) => this.#answer(request) },
      ...(tls !== undefined && { tls }),
    });
  }

  get address(): string {
    return this.#server.url.href;
  }

  /** Bytes of a published file, or undefined. */
  bytes(name: string): Buffer | undefined {
    const path = join(this.#folder, basename(name));
    return statSync(path, { throwIfNoEntry: false })?.isFile() === true
      ? readFileSync(path)
      : undefined;
  }

  #answer(request: Request): Response | Promise<Response> {
    const name = basename(decodeURIComponent(new URL(request.url).pathname));
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "") ?? [];
    const range = from === undefined ? undefined : ([Number(from), Number(to) + 1] as const);
    const asked: Asked = { name, range, count: this.asked.length + 1 };
    this.asked.push(asked);
    return this.misbehave(asked) ?? this.answer(asked);
  }

  /** As it should. */
  answer({ name, range }: Asked): Response {
    const bytes = this.bytes(name);
    if (bytes === undefined) return new Response("none", { status: 404 });
    if (range === undefined) return new Response(bytes);
    const [from, end] = range;
    if (from >= bytes.length) return new Response(null, { status: 416 });
    const part = bytes.subarray(from, end);
    const last = from + part.length - 1;
    const headers = { "content-range": `bytes ${from}-${last}/${bytes.length}` };
    return new Response(part, { status: 206, headers });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}

/**
 * A server that sends so many bytes of an answer, and then nothing, until the test breaks the
 * connection: what a client has heard by then is no matter of luck.
 */
export class CuttingServer implements AsyncDisposable {
  readonly #server: Bun.TCPSocketListener<{ received: string }>;
  readonly #held = new Set<Bun.Socket<{ received: string }>>();
  readonly asked: Asked[] = [];

  /** @param cut bytes of the body that are sent; undefined: all; 0: it is broken off at once */
  constructor(from: ArtifactServer, cut: (asked: Asked, length: number) => number | undefined) {
    this.#server = Bun.listen<{ received: string }>({
      ...{ hostname: "127.0.0.1", port: 0 },
      socket: {
        open: (socket) => {
          socket.data = { received: "" };
        },
        data: (socket, data) => {
          socket.data.received += data.toString("latin1");
          if (!socket.data.received.includes("\r\n\r\n")) return;
          const asked = readAsked(socket.data.received, this.asked.length + 1);
          socket.data.received = "";
          this.asked.push(asked);
          const { head, body } = answerTo(from, asked);
          const end = cut(asked, body.length);
          if (end === 0) socket.end();
          else if (end === undefined) socket.end(Buffer.concat([head, body]));
          else {
            socket.write(Buffer.concat([head, body.subarray(0, end)]));
            this.#held.add(socket);
          }
        },
      },
    });
  }

  get address(): string {
    return `http://127.0.0.1:${this.#server.port}/`;
  }

  /** Breaks the connections that wait. */
  drop(): void {
    for (const socket of this.#held) socket.terminate();
    this.#held.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.stop(true);
  }
}

function readAsked(head: string, count: number): Asked {
  const name = /^GET \/(\S+)/.exec(head)?.[1] ?? "";
  const [, from, last] = /range: bytes=(\d+)-(\d+)/i.exec(head) ?? [];
  const range = from === undefined ? undefined : ([Number(from), Number(last) + 1] as const);
  return { name, range, count };
}

function answerTo(
  from: ArtifactServer,
  { name, range }: Asked,
): { readonly head: Uint8Array; readonly body: Uint8Array } {
  const whole = from.bytes(name) ?? Buffer.alloc(0);
  const [start, end] = range ?? [0, whole.length];
  const body = whole.subarray(start, end);
  const status = range === undefined ? "200 OK" : "206 Partial Content";
  const place = `content-range: bytes ${start}-${start + body.length - 1}/${whole.length}`;
  const lines = [
    `HTTP/1.1 ${status}`,
    `content-length: ${body.length}`,
    place,
    "connection: close",
  ];
  return { head: Buffer.from(`${lines.join("\r\n")}\r\n\r\n`), body };
}
