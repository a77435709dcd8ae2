import { statSync } from "node:fs";
import { ExitCode } from "../units/exit-code.ts";
import { formatDuration, type Milliseconds } from "../units/units.ts";
import type { ControlError } from "./control-server.ts";
import { encodeFrame, FrameReader } from "./frame.ts";

/** Answers may hold a whole log. */
const ANSWER_LIMIT = 64 * 1024 * 1024;

/** How long a daemon has to take the connection and to answer that it is there. */
export const ANSWER_TIME: Milliseconds = 10_000;

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

/** Nobody can listen at this path: the command line is wrong. */
export class ControlPathRefused extends Error {
  override readonly name = "ControlPathRefused";
  readonly exitCode = ExitCode.usage;
}

/** The daemon could not be reached, or went away. */
export class ControlUnreachable extends Error {
  override readonly name = "ControlUnreachable";
  readonly exitCode = ExitCode.refused;
  readonly path: string;
  /** The name of the error number, such as "ENOENT", when the connection failed or took long. */
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

  /** Connects, and waits until the daemon says that it is there. @throws ControlUnreachable */
  async connect(limit: Milliseconds = ANSWER_TIME): Promise<void> {
    const reached = this.#open().then(() => this.#greet());
    // Of one that comes too late nobody hears any more.
    reached.catch(() => {});
    if ((await Promise.race([reached, expiry(limit)])) !== "expired") return;
    const said =
      `No answer at ${this.#path} within ${formatDuration(limit)}: its daemon hangs, or was ` +
      "stopped (kill -CONT has it go on)";
    const late = new ControlUnreachable(said, { path: this.#path, code: "ETIMEDOUT" });
    this.#end(late);
    throw late;
  }

  /** Any answer will do; why the connection ended is told to the request that is made of it. */
  async #greet(): Promise<void> {
    await this.request("ping").catch(() => {});
  }

  async #open(): Promise<void> {
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

/** A client has no event loop of its own; what it waits for here is nothing but time. */
export function expiry(limit: Milliseconds): Promise<"expired"> {
  return new Promise((resolve) => {
    AbortSignal.timeout(limit).addEventListener("abort", () => resolve("expired"));
  });
}

/** What stands at a path where a socket should be; undefined for a socket, or nothing. */
function describeOther(path: string): string | undefined {
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    if (found === undefined || found.isSocket()) return undefined;
    return found.isDirectory() ? "a directory" : "a file of another kind";
  } catch {
    // Connecting tells it better.
    return undefined;
  }
}

/** sun_path of struct sockaddr_un has 108 bytes, one of them the end: unix(7). */
function checkControlPath(path: string): void {
  const bytes = new TextEncoder().encode(path).length;
  if (path === "" || bytes > 107 || path.includes("\0")) {
    throw new ControlPathRefused(
      `Expected a path of 1 to 107 bytes after --control-socket, received ${bytes} bytes`,
    );
  }
  const other = describeOther(path);
  if (other === undefined) return;
  throw new ControlUnreachable(
    `Cannot connect to ${path}: expected a daemon's control socket, received ${other}. ` +
      "Give the right one by --control-socket PATH",
    { path },
  );
}

/**
 * Connects to a daemon's control socket, and gives it `limit` to answer.
 * @throws ControlPathRefused, ControlUnreachable
 */
export async function connectControl(
  path: string,
  limit: Milliseconds = ANSWER_TIME,
): Promise<ControlClient> {
  checkControlPath(path);
  const client = new ControlClient(path);
  await client.connect(limit);
  return client;
}
