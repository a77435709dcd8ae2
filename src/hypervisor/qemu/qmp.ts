import * as v from "valibot";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { connectWithin } from "../../messaging/connect-within.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { LineConnection } from "../../messaging/line-connection.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import { VmmRefused, VmmUnreachable } from "../driver.ts";

/** What is taken from a QEMU, and how long it may take; going over one is told as such. */
export const qmpLimits = {
  /** Bytes of a line: the longest answer, of query-cpus-fast with 255 processors, has 60 KB. */
  lineBytes: 1024 * 1024,
  /** Bytes of commands that QEMU has not read. */
  queuedBytes: 256 * 1024,
  /** Commands that are not answered. */
  openCommands: 16,
  /** Milliseconds until QEMU listens, has greeted and has agreed on capabilities. */
  connectTime: 10_000 as Milliseconds,
  /** Milliseconds for an answer. */
  answerTime: 5_000 as Milliseconds,
  /** Milliseconds for an answer that waits for disks: stop, cont, quit. */
  diskTime: 30_000 as Milliseconds,
  /** Milliseconds for the state of a machine to go or to come. */
  stateTime: 30_000 as Milliseconds,
  /** Bytes of a state: where memory is not shared, it would be part of it. */
  stateBytes: 64 * 1024 * 1024,
};
export type QmpLimits = typeof qmpLimits;

/** Commands that write out what disks have in memory before they answer. */
const waitsForDisks: readonly string[] = ["stop", "cont", "quit", "nbd-server-stop"];

/** docs/interop/qmp-spec in QEMU: the first line of a server. */
const greetingSchema = v.object({
  QMP: v.object({
    version: v.object({
      qemu: v.object({ major: v.number(), minor: v.number(), micro: v.number() }),
    }),
  }),
});
const answerSchema = v.object({ id: v.number(), return: v.unknown() });
const errorSchema = v.object({
  id: v.optional(v.number()),
  error: v.object({ class: v.string(), desc: v.string() }),
});
const eventSchema = v.object({
  event: v.string(),
  data: v.optional(v.record(v.string(), v.unknown()), {}),
});
export type QmpEvent = v.InferOutput<typeof eventSchema>;

/** Why this is no event; undefined when it is one. */
type Taken = { readonly violation: string } | undefined;

interface OpenCommand {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: Error) => void;
  readonly timer: Disposable;
}

export interface QmpHandlers {
  readonly onEvent: (event: QmpEvent) => void;
  /** The connection ended, and not by `close`. Told once. */
  readonly onLost: (reason: string) => void;
}

export interface QmpOptions extends QmpHandlers {
  /** A command that goes with the agreement on capabilities. */
  readonly first?: string;
  readonly limits: QmpLimits;
  readonly signal: AbortSignal;
}

/**
 * A client of QMP over a Unix socket. QEMU serves one client at a time: a second one is greeted
 * when the first has gone, which is what a worker that follows a dead one needs.
 */
export class QmpClient implements Disposable {
  readonly #loop: EventLoop;
  readonly #lines: LineConnection;
  readonly #limits: QmpLimits;
  readonly #handlers: QmpHandlers;
  readonly #open = new Map<number, OpenCommand>();
  readonly #greeted = Promise.withResolvers<string>();
  readonly #lost = Promise.withResolvers<string>();
  #nextId = 1;
  #isGreeted = false;
  #end: string | undefined;

  private constructor(loop: EventLoop, socket: OwnedDescriptor, options: QmpOptions) {
    this.#loop = loop;
    this.#limits = options.limits;
    this.#handlers = options;
    const { lineBytes, queuedBytes } = options.limits;
    this.#lines = new LineConnection(loop, socket, {
      limits: { lineBytes, queuedBytes, descriptors: 0 },
      // An answer that was written before QEMU ended is an answer.
      takesRest: true,
      handlers: {
        onLine: (body) => this.#onLine(body),
        onEnd: (reason) => this.#lose(reason),
      },
    });
  }

  /**
   * Connects, waits for the greeting, and agrees on capabilities. QEMU takes commands in their
   * order, so that the first one need not wait for that.
   * @returns with what `first` is answered, if it was asked for
   * @throws VmmUnreachable when that does not come within the limit, or is no QMP
   */
  static async connect(
    loop: EventLoop,
    path: string,
    options: QmpOptions,
  ): Promise<{ client: QmpClient; version: string; first: Promise<unknown> }> {
    const { signal, limits } = options;
    const limit = limits.connectTime;
    const connected = await connectWithin(loop, path, { limit, signal });
    if (connected.kind === "failed") {
      throw new VmmUnreachable(`Cannot connect to QEMU at ${path}: ${connected.reason}`);
    }
    let isServing = false;
    const client = new QmpClient(loop, connected.socket, {
      ...options,
      onLost: (reason) => {
        if (isServing) options.onLost(reason);
      },
    });
    const callOff = () => client.#lose("it was called off");
    using _timer = loop.wakeAfter(limit, () => {
      client.#lose(
        `it did not greet within ${formatDuration(limit)}: it hangs, or serves another client`,
      );
    });
    signal.addEventListener("abort", callOff);
    try {
      const version = await client.#greeted.promise;
      const agreed = client.execute("qmp_capabilities");
      const first = options.first === undefined ? agreed : client.execute(options.first);
      // Whoever awaits it hears of it; where the agreement fails nobody does.
      first.catch(() => {});
      await agreed;
      isServing = true;
      return { client, version, first };
    } catch (error) {
      client.close();
      const reason = error instanceof Error ? error.message : String(error);
      throw new VmmUnreachable(`Cannot speak with QEMU at ${path}: ${reason}`, { cause: error });
    } finally {
      signal.removeEventListener("abort", callOff);
    }
  }

  /** Why the connection ended; pending while it has not, and after `close`. */
  get lost(): Promise<string> {
    return this.#lost.promise;
  }

  /**
   * One command. What it answers is not checked.
   * @param descriptor goes with the command's bytes, and stays the caller's
   * @throws VmmRefused when QEMU refuses it; VmmUnreachable when it does not answer in time, or
   *   the connection ends first: then nobody knows whether it was done
   */
  execute(
    command: string,
    words: Readonly<Record<string, unknown>> = {},
    descriptor?: OwnedDescriptor,
  ): Promise<unknown> {
    if (this.#end !== undefined) return Promise.reject(new VmmUnreachable(this.#end));
    const { openCommands, diskTime, answerTime } = this.#limits;
    if (this.#open.size >= openCommands) {
      const reason = `QEMU has not answered ${openCommands} commands: "${command}" was not sent`;
      return Promise.reject(new VmmUnreachable(reason));
    }
    const limit = waitsForDisks.includes(command) ? diskTime : answerTime;
    const id = this.#nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    // It stays open: its answer may come later, and is then nobody's.
    const timer = this.#loop.wakeAfter(limit, () => {
      reject(
        new VmmUnreachable(`QEMU did not answer "${command}" within ${formatDuration(limit)}`),
      );
    });
    this.#open.set(id, { command, resolve, reject, timer });
    this.#lines.send({ execute: command, arguments: words, id }, descriptor);
    return promise;
  }

  #onLine(body: unknown): void {
    const taken = this.#isGreeted ? this.#take(body) : this.#takeGreeting(body);
    if (taken === undefined) return;
    this.#lose(taken.violation);
  }

  #takeGreeting(body: unknown): Taken {
    const parsed = v.safeParse(greetingSchema, body);
    if (!parsed.success) return { violation: `a wrong greeting: ${describeIssues(parsed.issues)}` };
    const { major, minor, micro } = parsed.output.QMP.version.qemu;
    this.#isGreeted = true;
    this.#greeted.resolve(`${major}.${minor}.${micro}`);
    return undefined;
  }

  #take(body: unknown): Taken {
    if (typeof body !== "object" || body === null) {
      return { violation: `expected an object, received ${typeof body}` };
    }
    if ("event" in body) return this.#takeEvent(body);
    if ("error" in body) return this.#takeError(body);
    const parsed = v.safeParse(answerSchema, body);
    if (!parsed.success) return { violation: `a wrong answer: ${describeIssues(parsed.issues)}` };
    const asked = this.#settle(parsed.output.id);
    asked?.resolve(parsed.output.return);
    return asked === undefined ? { violation: "an answer that nobody asked for" } : undefined;
  }

  #takeEvent(body: object): Taken {
    const parsed = v.safeParse(eventSchema, body);
    if (!parsed.success) return { violation: `a wrong event: ${describeIssues(parsed.issues)}` };
    this.#handlers.onEvent(parsed.output);
    return undefined;
  }

  #takeError(body: object): Taken {
    const parsed = v.safeParse(errorSchema, body);
    if (!parsed.success) return { violation: `a wrong error: ${describeIssues(parsed.issues)}` };
    const { id, error } = parsed.output;
    const asked = id === undefined ? undefined : this.#settle(id);
    // Without an id it could not read what we sent, and nobody knows which command that was.
    if (asked === undefined) return { violation: `an error that answers nothing: ${error.desc}` };
    asked.reject(new VmmRefused(`QEMU refused "${asked.command}": ${error.desc}`));
    return undefined;
  }

  #settle(id: number): OpenCommand | undefined {
    const asked = this.#open.get(id);
    asked?.timer[Symbol.dispose]();
    this.#open.delete(id);
    return asked;
  }

  #lose(reason: string): void {
    if (this.#end !== undefined) return;
    this.#finish(`the connection to QEMU ended: ${reason}`);
    this.#lost.resolve(reason);
    this.#handlers.onLost(reason);
  }

  #finish(reason: string): void {
    if (this.#end !== undefined) return;
    this.#end = reason;
    this.#lines.close();
    if (!this.#isGreeted) this.#greeted.reject(new VmmUnreachable(reason));
    for (const { timer, reject } of this.#open.values()) {
      timer[Symbol.dispose]();
      reject(new VmmUnreachable(reason));
    }
    this.#open.clear();
  }

  /** Closes at once: what is not answered is refused, and nothing is told. */
  close(): void {
    this.#finish("it was closed");
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
