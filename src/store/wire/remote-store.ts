import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";
import {
  type Capabilities,
  checkKey,
  checkPattern,
  checkWrite,
  type Entry,
  type LinkState,
  type PutOptions,
  type Revision,
  type Store,
  StoreError,
  type WatchEvent,
  type WatchOptions,
} from "../store.ts";
import { LinkBoard } from "./link-board.ts";
import { OpenRequests } from "./open-requests.ts";
import { fromWireEntry, limits, type ServerMessage, type Welcome } from "./protocol.ts";
import { RemoteLink, type RemoteLinkOptions } from "./remote-link.ts";
import { RemoteWatch } from "./remote-watch.ts";

export interface RemoteStoreOptions extends RemoteLinkOptions {
  /** How long a request may take, waiting for the link included. */
  readonly deadline?: Milliseconds;
}

const usualDeadline: Milliseconds = 10_000;

/**
 * A store that another process serves, over wss:// or ws+unix://. It connects for ever, and its
 * watches go on where they were. A request waits for the link; a write whose answer does not come
 * is ambiguous, a read is asked again.
 */
export class RemoteStore implements Store {
  readonly #link: RemoteLink;
  readonly #board = new LinkBoard("down");
  readonly #requests: OpenRequests;
  readonly #watches = new Map<number, RemoteWatch>();
  #capabilities: Capabilities = { acknowledgement: "unknown", server: "not reached yet" };
  #incarnation: string | undefined;
  #nextId = 1;
  #isClosed = false;

  constructor(loop: EventLoop, options: RemoteStoreOptions) {
    const deadline = options.deadline ?? usualDeadline;
    this.#requests = new OpenRequests(loop, deadline, (text) => this.#link.send(text));
    this.#link = new RemoteLink(loop, options, {
      onWelcome: (welcome) => this.#onWelcome(welcome),
      onMessage: (message) => this.#onMessage(message),
      onState: (state) => this.#board.set(state),
      onLost: () => this.#requests.lost(),
    });
    this.#link.dial();
  }

  get capabilities(): Capabilities {
    return this.#capabilities;
  }

  async get(bucket: string, key: string): Promise<Entry | undefined> {
    checkKey(bucket, key);
    const answer = await this.#ask({ kind: "get", bucket, key });
    if (answer.kind !== "got") throw unexpected(answer);
    return answer.entry === null ? undefined : fromWireEntry(answer.entry);
  }

  put(bucket: string, key: string, value: string, options: PutOptions): Promise<Revision> {
    return this.#write({ kind: "put", bucket, key, value }, options);
  }

  delete(bucket: string, key: string, options: PutOptions): Promise<Revision> {
    return this.#write({ kind: "delete", bucket, key }, options);
  }

  async #write(
    request: { readonly kind: "put" | "delete"; bucket: string; key: string; value?: string },
    options: PutOptions,
  ): Promise<Revision> {
    checkWrite({ value: "", ...request, options });
    const { writeId, expect } = options;
    const answer = await this.#ask({ ...request, write_id: writeId, expect });
    if (answer.kind !== "written") throw unexpected(answer);
    return answer.revision;
  }

  async #ask(request: {
    readonly kind: "get" | "put" | "delete";
    readonly bucket: string;
    readonly key: string;
    readonly value?: string;
    readonly write_id?: string;
    readonly expect?: Revision | undefined;
  }): Promise<ServerMessage> {
    if (this.#isClosed) throw new StoreError("The store was closed", { kind: "unavailable" });
    const id = this.#nextId++;
    const answer = await this.#requests.add({
      id,
      isWrite: request.kind !== "get",
      what: `${request.kind} ${request.bucket} ${request.key}`,
      text: JSON.stringify({ ...request, id }),
    });
    if (answer.kind === "refused") {
      const said = `The store refused ${request.kind} ${request.bucket} ${request.key}`;
      throw new StoreError(`${said}: ${answer.message}`, answer.problem);
    }
    return answer;
  }

  /**
   * @throws StoreError denied; refused for a pattern that is none, or one watch too many
   */
  async *watch(
    bucket: string,
    pattern: string,
    options: WatchOptions = {},
  ): AsyncGenerator<WatchEvent, void> {
    checkPattern(bucket, pattern);
    if (this.#watches.size >= limits.watches) {
      const expected = `at most ${limits.watches} watches`;
      const problem = { kind: "refused", expected, received: "one more" } as const;
      throw new StoreError(`Cannot watch ${bucket}: there are ${limits.watches}`, problem);
    }
    if (options.signal?.aborted === true || this.#isClosed) return;
    const watch: RemoteWatch = new RemoteWatch(
      { bucket, pattern, ...options },
      { send: (text) => this.#link.send(text), enter: (former) => this.#enter(watch, former) },
    );
    const stop = () => watch.stop();
    options.signal?.addEventListener("abort", stop, { once: true });
    watch.begin();
    try {
      yield* watch.events();
    } finally {
      options.signal?.removeEventListener("abort", stop);
      watch.unwatch();
      this.#watches.delete(watch.id);
    }
  }

  /** Gives a watch another id: what still comes for the former is nobody's. */
  #enter(watch: RemoteWatch, former: number): number {
    this.#watches.delete(former);
    const id = this.#nextId++;
    this.#watches.set(id, watch);
    return id;
  }

  link(signal: AbortSignal): AsyncGenerator<LinkState, void> {
    return this.#board.follow(signal);
  }

  #onWelcome(welcome: Welcome): void {
    const { server, acknowledgement, incarnation } = welcome;
    this.#capabilities = { server, acknowledgement };
    const isAnother = this.#incarnation !== undefined && this.#incarnation !== incarnation;
    this.#incarnation = incarnation;
    for (const watch of [...this.#watches.values()]) {
      if (isAnother) watch.restart();
      else watch.begin();
    }
    this.#requests.send();
  }

  #onMessage(message: Exclude<ServerMessage, Welcome>): void {
    if (message.kind === "pong") return;
    const watch = this.#watches.get(message.id);
    if (watch !== undefined) watch.onMessage(message);
    else this.#requests.answer(message.id, message);
  }

  /** Requests that wait end as they would at their deadline, and so do watches. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#link.close();
    this.#board.set("down");
    this.#requests.close();
    for (const watch of this.#watches.values()) watch.stop();
    return Promise.resolve();
  }
}

function unexpected(answer: ServerMessage): StoreError {
  const received = answer.kind;
  return new StoreError(`The store answered ${received} to another request`, {
    kind: "unavailable",
  });
}
