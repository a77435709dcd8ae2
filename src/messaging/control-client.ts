import { ExitCode } from "../units/exit-code.ts";
import type { ControlError } from "./control-server.ts";
import { encodeFrame, FrameReader } from "./frame.ts";

/** Answers may hold a whole log. */
const ANSWER_LIMIT = 64 * 1024 * 1024;

/** The daemon understood the request and refused it. */
export class ControlRefusal extends Error {
  override readonly name = "ControlRefusal";
  readonly exitCode = ExitCode.refused;
  readonly error: ControlError;

  constructor(error: ControlError) {
    super(error.message);
    this.error = error;
  }
}

/** The daemon could not be reached, or went away. */
export class ControlUnreachable extends Error {
  override readonly name = "ControlUnreachable";
  readonly exitCode = ExitCode.refused;
  readonly path: string;
  /** The name of the error number, such as "ENOENT", when the connection failed. */
  readonly code: string | undefined;

  constructor(
    message: string,
    options: ErrorOptions & { readonly path: string; readonly code?: string | undefined },
  ) {
    super(message, options);
    this.path = options.path;
    this.code = options.code;
  }
}

interface Reply {
  readonly id?: unknown;
  readonly ok?: unknown;
  readonly item?: unknown;
  readonly error?: ControlError;
}

interface Waiting {
  onReply(reply: Reply): void;
  onEnd(reason: Error): void;
}

/** A client of a daemon's control socket, on Bun's own sockets: it needs no libc. */
export class ControlClient {
  readonly #path: string;
  readonly #waiting = new Map<number, Waiting>();
  readonly #reader = new FrameReader({ frameBytes: ANSWER_LIMIT, frameDescriptors: 0 });
  #socket: Bun.Socket | undefined;
  #unsent: Uint8Array[] = [];
  #nextId = 1;
  #ended: Error | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  async connect(): Promise<void> {
    try {
      this.#socket = await Bun.connect({
        unix: this.#path,
        socket: {
          data: (_socket, bytes) => this.#onData(bytes),
          drain: () => this.#flush(),
          close: () => this.#end(this.#lost("the daemon closed the connection")),
          error: (_socket, error) => this.#end(this.#lost(error.message)),
          connectError: () => {},
        },
      });
    } catch (failure) {
      const { code, message } = failure as { code?: string; message: string };
      const said = `Cannot connect to ${this.#path}: ${message}`;
      throw new ControlUnreachable(said, { cause: failure, path: this.#path, code });
    }
  }

  #lost(reason: string): ControlUnreachable {
    return new ControlUnreachable(`${this.#path}: ${reason}`, { path: this.#path });
  }

  /** Sends a request and gives its answer. @throws ControlRefusal, ControlUnreachable */
  request(verb: string, fields: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const answer = Promise.withResolvers<unknown>();
    this.#send(verb, fields, {
      onReply: (reply) => {
        if (reply.error !== undefined) answer.reject(new ControlRefusal(reply.error));
        else if ("ok" in reply) answer.resolve(reply.ok);
      },
      onEnd: (reason) => answer.reject(reason),
    });
    return answer.promise;
  }

  /** Sends a request and gives its items as they come, until its answer, which it returns. */
  async *stream(
    verb: string,
    fields: Readonly<Record<string, unknown>> = {},
  ): AsyncGenerator<unknown, unknown> {
    const items: unknown[] = [];
    let finished = false;
    let answer: unknown;
    let failure: Error | undefined;
    let wake = Promise.withResolvers<void>();
    const signal = () => {
      wake.resolve();
      wake = Promise.withResolvers<void>();
    };
    let next = wake.promise;
    this.#send(verb, fields, {
      onReply: (reply) => {
        if ("item" in reply) items.push(reply.item);
        else finished = true;
        if ("ok" in reply) answer = reply.ok;
        if (reply.error !== undefined) failure = new ControlRefusal(reply.error);
        signal();
      },
      onEnd: (reason) => {
        finished = true;
        failure = reason;
        signal();
      },
    });
    for (;;) {
      next = wake.promise;
      const item = items.shift();
      if (item !== undefined) yield item;
      else if (failure !== undefined) throw failure;
      else if (finished) return answer;
      else await next;
    }
  }

  #send(verb: string, fields: Readonly<Record<string, unknown>>, waiting: Waiting): void {
    if (this.#ended !== undefined || this.#socket === undefined) {
      waiting.onEnd(this.#ended ?? this.#lost("not connected"));
      return;
    }
    const id = this.#nextId++;
    this.#waiting.set(id, waiting);
    this.#unsent.push(encodeFrame({ id, verb, ...fields }));
    this.#flush();
  }

  #flush(): void {
    for (let first = this.#unsent[0]; first !== undefined; first = this.#unsent[0]) {
      const sent = this.#socket?.write(first) ?? 0;
      if (sent < first.length) {
        this.#unsent[0] = first.subarray(Math.max(0, sent));
        return;
      }
      this.#unsent.shift();
    }
  }

  #onData(bytes: Uint8Array): void {
    this.#reader.push(bytes);
    for (let frame = this.#reader.next(); frame !== undefined; frame = this.#reader.next()) {
      if ("refusal" in frame) {
        const { expected, received } = frame.refusal;
        this.#end(this.#lost(`expected ${expected}, received ${received}`));
        return;
      }
      this.#onReply(frame.body as Reply);
    }
  }

  #onReply(reply: Reply): void {
    // Id 0 answers the connection itself: it was refused.
    if (reply.id === 0 && reply.error !== undefined) {
      this.#end(new ControlRefusal(reply.error));
      return;
    }
    const waiting = this.#waiting.get(Number(reply.id));
    if (waiting === undefined) return;
    if (!("item" in reply)) this.#waiting.delete(Number(reply.id));
    waiting.onReply(reply);
  }

  #end(reason: Error): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    for (const waiting of this.#waiting.values()) waiting.onEnd(reason);
    this.#waiting.clear();
    this.#socket?.end();
  }

  close(): void {
    this.#end(this.#lost("closed"));
  }
}

/** Connects to a daemon's control socket. @throws ControlUnreachable */
export async function connectControl(path: string): Promise<ControlClient> {
  const client = new ControlClient(path);
  await client.connect();
  return client;
}
