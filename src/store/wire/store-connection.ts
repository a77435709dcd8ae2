import * as v from "valibot";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import type { Bytes, MonotonicTime } from "../../units/units.ts";
import { type Entry, type Store, StoreError, type StoreProblem } from "../store.ts";
import {
  type ClientMessage,
  type ClientRequest,
  clientMessageSchema,
  closeCodes,
  limits,
  PROTOCOL_VERSION,
  pingText,
  pongText,
  type ServerMessage,
  toWireEntry,
} from "./protocol.ts";

/** The WebSocket of one client, whatever serves it. */
export interface ConnectionSocket {
  send(text: string): void;
  /** Bytes that were sent and are not on their way yet. */
  bufferedAmount(): Bytes;
  /** Closes with one of `closeCodes`; what was sent before may still go out. */
  close(code: number, reason: string): void;
}

export type StoreOperation = "get" | "put" | "delete" | "watch";

export interface StoreConnectionOptions {
  readonly store: Store;
  readonly loop: EventLoop;
  readonly socket: ConnectionSocket;
  /** Of the store: see `welcome` in protocol.ts. */
  readonly incarnation: string;
  /**
   * Whether whoever speaks may do this. Asked for each request.
   * @param place a key, or for a watch its pattern
   */
  readonly permits: (operation: StoreOperation, bucket: string, place: string) => boolean;
  /** Aborted when the session of whoever speaks has ended: the connection ends at once. */
  readonly signal?: AbortSignal;
  /** A store threw what no store throws: a bug. */
  readonly onFailure: (failure: unknown) => void;
  /** Called once, when it is over, with the reason for people. */
  readonly onEnd?: (reason: string) => void;
  /** The clock; the machine's own when absent. */
  readonly now?: () => MonotonicTime;
}

interface OpenWatch {
  readonly stop: AbortController;
  /** Entries that go out in one message. */
  readonly batch: Entry[];
  batchBytes: Bytes;
  flushing: boolean;
}

/**
 * The server's side of one connection. A watch reads from the store only while its client reads:
 * behind that the store keeps the latest of each key. A client that does not read at all is let
 * go, and so is one that says nothing.
 */
export class StoreConnection implements Disposable {
  readonly #options: StoreConnectionOptions;
  readonly #watches = new Map<number, OpenWatch>();
  readonly #onAbort = () => this.end(closeCodes.sessionEnded, "the session has ended");
  #phase: "hello" | "open" | "ended" = "hello";
  #openRequests = 0;
  #openBytes: Bytes = 0;
  readonly #now: () => MonotonicTime;
  #lastWord: MonotonicTime;
  #silence: Disposable;
  /** While more than `behindBytes` wait: whoever waits for less, and the moment of giving up. */
  #behind: { readonly over: PromiseWithResolvers<void>; readonly timer: Disposable } | undefined;

  constructor(options: StoreConnectionOptions) {
    this.#options = options;
    this.#now = options.now ?? monotonicNow;
    this.#lastWord = this.#now();
    this.#silence = options.loop.wakeAfter(limits.helloTime, () => {
      if (this.#phase === "hello") this.#violate("a hello within 10 s", "none");
    });
    options.signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (options.signal?.aborted === true) this.#onAbort();
  }

  get isOpen(): boolean {
    return this.#phase !== "ended";
  }

  /** A message came. */
  receive(message: string | Uint8Array): void {
    if (this.#phase === "ended") return;
    this.#lastWord = this.#now();
    if (typeof message !== "string") {
      this.#violate("text", "bytes");
      return;
    }
    if (message.length > limits.messageBytes) {
      this.#violate(`at most ${limits.messageBytes} bytes`, `${message.length}`);
      return;
    }
    if (message === pingText && this.#phase === "open") {
      this.#sendText(pongText);
      return;
    }
    const parsed = parse(message);
    if ("refusal" in parsed) {
      this.end(closeCodes.violation, parsed.refusal);
      return;
    }
    this.#take(parsed.message);
  }

  #take(message: ClientMessage): void {
    if (this.#phase === "hello") {
      this.#greet(message);
      return;
    }
    switch (message.kind) {
      case "hello":
        this.#violate("one hello", "another");
        return;
      case "ping":
        this.#sendText(pongText);
        return;
      case "unwatch":
        this.#watches.get(message.id)?.stop.abort();
        this.#watches.delete(message.id);
        return;
      case "watch":
        this.#watch(message);
        return;
      default:
        this.#answer(message);
    }
  }

  #greet(message: ClientMessage): void {
    if (message.kind !== "hello") {
      this.#violate("hello", message.kind);
      return;
    }
    if (message.version !== PROTOCOL_VERSION) {
      this.#violate(`version ${PROTOCOL_VERSION} of the wire`, `${message.version}`);
      return;
    }
    this.#phase = "open";
    this.#silence[Symbol.dispose]();
    this.#watchSilence();
    const { store, incarnation } = this.#options;
    const { server, acknowledgement } = store.capabilities;
    this.#send({
      kind: "welcome",
      version: PROTOCOL_VERSION,
      server: server.slice(0, limits.textLength),
      acknowledgement,
      incarnation,
    });
  }

  #watchSilence(): void {
    const end = this.#lastWord + limits.silence;
    this.#silence = this.#options.loop.wakeAt(end, () => {
      if (this.#now() - this.#lastWord < limits.silence) this.#watchSilence();
      else this.end(closeCodes.silent, "nothing was said for too long");
    });
  }

  #answer(request: Exclude<ClientRequest, { kind: "watch" }>): void {
    const refusal = this.#refuse(request);
    if (refusal !== undefined) {
      this.#refused(request.id, refusal);
      return;
    }
    const bytes = weightOf(request);
    this.#openRequests += 1;
    this.#openBytes += bytes;
    this.#carryOut(request)
      .then((answer) => this.#send(answer))
      .catch((error: unknown) => this.#failed(request, error))
      .finally(() => {
        this.#openRequests -= 1;
        this.#openBytes -= bytes;
      });
  }

  #refuse(request: Exclude<ClientRequest, { kind: "watch" }>): StoreProblem | undefined {
    const { kind, bucket, key } = request;
    if (!this.#options.permits(kind, bucket, key)) return { kind: "denied" };
    if (this.#openRequests >= limits.openRequests) {
      const expected = `at most ${limits.openRequests} open requests`;
      return { kind: "refused", expected, received: "one more" };
    }
    if (this.#openBytes + weightOf(request) > limits.openBytes) {
      const expected = `at most ${limits.openBytes} bytes in open requests`;
      return { kind: "refused", expected, received: "more" };
    }
    return undefined;
  }

  async #carryOut(request: Exclude<ClientRequest, { kind: "watch" }>): Promise<ServerMessage> {
    const { store } = this.#options;
    const { id, bucket, key } = request;
    if (request.kind === "get") {
      const entry = await store.get(bucket, key);
      return { kind: "got", id, entry: entry === undefined ? null : toWireEntry(entry) };
    }
    const { write_id: writeId, expect } = request;
    const options = { writeId, ...(expect !== undefined && { expect }) };
    const revision =
      request.kind === "put"
        ? await store.put(bucket, key, request.value, options)
        : await store.delete(bucket, key, options);
    return { kind: "written", id, revision };
  }

  #failed(request: ClientRequest, error: unknown): void {
    if (error instanceof StoreError) {
      this.#refused(request.id, error.problem, error.message);
      return;
    }
    const isWrite = request.kind === "put" || request.kind === "delete";
    this.#refused(request.id, { kind: isWrite ? "ambiguous" : "unavailable" });
    this.#options.onFailure(error);
  }

  #refused(id: number, problem: StoreProblem, message: string = problem.kind): void {
    this.#send({ kind: "refused", id, problem, message: message.slice(0, limits.textLength) });
  }

  #watch(request: Extract<ClientRequest, { kind: "watch" }>): void {
    const { id, bucket, pattern } = request;
    if (!this.#options.permits("watch", bucket, pattern)) {
      this.#refused(id, { kind: "denied" });
      return;
    }
    if (this.#watches.size >= limits.watches) {
      const expected = `at most ${limits.watches} watches`;
      this.#refused(id, { kind: "refused", expected, received: "one more" });
      return;
    }
    if (this.#watches.has(id)) {
      this.#violate("an id that no watch has", `${id}`);
      return;
    }
    const stop = new AbortController();
    const watch: OpenWatch = { stop, batch: [], batchBytes: 0, flushing: false };
    this.#watches.set(id, watch);
    this.#follow(request, watch).catch((error: unknown) => {
      if (stop.signal.aborted) return;
      this.#watches.delete(id);
      this.#failed(request, error);
    });
  }

  async #follow(
    { id, bucket, pattern, since }: Extract<ClientRequest, { kind: "watch" }>,
    watch: OpenWatch,
  ): Promise<void> {
    const { signal } = watch.stop;
    const options = { signal, ...(since !== undefined && { since }) };
    for await (const event of this.#options.store.watch(bucket, pattern, options)) {
      if (signal.aborted) return;
      if (event.kind === "entry") {
        this.#batch(id, watch, event.entry);
      } else {
        this.#flush(id, watch);
        if (event.kind === "reset") this.#send({ kind: "reset", id });
        else this.#send({ kind: "synced", id, revision: event.revision });
      }
      // Until the client has read, the store coalesces for it.
      if (this.#behind !== undefined) {
        this.#flush(id, watch);
        await this.#behind?.over.promise;
      }
      if (signal.aborted) return;
    }
    throw new StoreError("The store ended a watch", { kind: "unavailable" });
  }

  /** Entries that come in one go are told in one message. */
  #batch(id: number, watch: OpenWatch, entry: Entry): void {
    const bytes = entry.key.length + entry.value.length;
    if (watch.batchBytes + bytes > limits.batchBytes) this.#flush(id, watch);
    watch.batch.push(entry);
    watch.batchBytes += bytes;
    if (watch.batch.length >= limits.batchEntries) {
      this.#flush(id, watch);
    } else if (!watch.flushing) {
      watch.flushing = true;
      setImmediate(() => {
        watch.flushing = false;
        this.#flush(id, watch);
      });
    }
  }

  #flush(id: number, watch: OpenWatch): void {
    if (watch.batch.length === 0 || watch.stop.signal.aborted) return;
    const entries = watch.batch.splice(0);
    watch.batchBytes = 0;
    // One text for all who watch the same entry.
    this.#sendText(`{"kind":"entries","id":${id},"entries":[${entries.map(textOf).join(",")}]}`);
  }

  #send(message: ServerMessage): void {
    this.#sendText(JSON.stringify(message));
  }

  #sendText(text: string): void {
    if (this.#phase === "ended") return;
    this.#options.socket.send(text);
    const buffered = this.#options.socket.bufferedAmount();
    if (buffered > limits.queuedBytes) {
      this.end(closeCodes.behind, `${buffered} bytes wait to be read`);
    } else if (buffered > limits.behindBytes && this.#behind === undefined) {
      const timer = this.#options.loop.wakeAfter(limits.behindTime, () =>
        this.end(closeCodes.behind, "what was sent is not read"),
      );
      this.#behind = { over: Promise.withResolvers(), timer };
    }
  }

  /** The socket has sent what waited, or some of it. */
  drained(): void {
    if (this.#behind === undefined) return;
    if (this.#options.socket.bufferedAmount() > limits.behindBytes) return;
    this.#catchUp();
  }

  #catchUp(): void {
    const behind = this.#behind;
    this.#behind = undefined;
    behind?.timer[Symbol.dispose]();
    behind?.over.resolve();
  }

  #violate(expected: string, received: string): void {
    this.end(closeCodes.violation, `expected ${expected}, received ${received}`);
  }

  /** Ends it from here. @param code one of `closeCodes` */
  end(code: number, reason: string): void {
    if (this.#phase === "ended") return;
    // A reason may have 123 bytes: RFC 6455, 5.5.1.
    this.#options.socket.close(code, cut(reason, 123));
    this.closed(reason);
  }

  /** The socket is closed already. */
  closed(reason = "the client closed the connection"): void {
    if (this.#phase === "ended") return;
    this.#phase = "ended";
    this.#silence[Symbol.dispose]();
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    for (const watch of this.#watches.values()) watch.stop.abort();
    this.#watches.clear();
    this.#catchUp();
    this.#options.onEnd?.(reason);
  }

  [Symbol.dispose](): void {
    this.end(closeCodes.goingAway, "the server ends");
  }
}

function parse(text: string): { readonly message: ClientMessage } | { readonly refusal: string } {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return { refusal: "expected JSON, received something else" };
  }
  const result = v.safeParse(clientMessageSchema, body);
  return result.success ? { message: result.output } : { refusal: describeIssues(result.issues) };
}

const texts = new WeakMap<Entry, string>();

function textOf(entry: Entry): string {
  const known = texts.get(entry);
  if (known !== undefined) return known;
  const text = JSON.stringify(toWireEntry(entry));
  texts.set(entry, text);
  return text;
}

function weightOf(request: Exclude<ClientRequest, { kind: "watch" }>): Bytes {
  return request.key.length + (request.kind === "put" ? request.value.length : 0);
}

function cut(text: string, bytes: number): string {
  const encoded = new TextEncoder().encode(text);
  if (encoded.length <= bytes) return text;
  return new TextDecoder().decode(encoded.subarray(0, bytes)).replace(/\uFFFD*$/, "");
}
