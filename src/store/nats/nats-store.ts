import { connect, type NatsConnection } from "@nats-io/transport-node";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";
import { admit } from "../admission.ts";
import { closedStore, conflict } from "../memory-store.ts";
import {
  type Capabilities,
  checkKey,
  checkPattern,
  checkWrite,
  type Entry,
  type LinkState,
  type PutOptions,
  type Revision,
  refused,
  type Store,
  StoreError,
  type WatchEvent,
  type WatchOptions,
} from "../store.ts";
import { LinkBoard } from "../wire/link-board.ts";
import { limits } from "../wire/protocol.ts";
import { BucketKeeper, type BucketKeeperOptions } from "./bucket-keeper.ts";
import { type NatsAddress, optionsOf, ReconnectWaits } from "./connection-options.ts";
import { JetStream, unanswered } from "./jet-stream.ts";
import { NatsWatch } from "./nats-watch.ts";

export interface NatsStoreOptions extends NatsAddress, Omit<BucketKeeperOptions, "deadline"> {
  /** How long a request may take, waiting for the link included. */
  readonly deadline?: Milliseconds;
  /** Without a word for so long, the link is stale. */
  readonly staleAfter?: Milliseconds;
  /** Told what an operator has to know: a bucket that is refused, or was rewound. */
  readonly onTrouble?: (message: string) => void;
}

const usualDeadline: Milliseconds = 5_000;
const usualStaleAfter: Milliseconds = 15_000;
/** A connection that is stale for so many times `staleAfter` is given up for a new one. */
const GIVE_UP = 4;
/** Between two looks at buckets that could not be prepared. */
const AGAIN: Milliseconds = 1_000;
/** Tries of a write whose key changes between its conflict and the look at it. */
const MOST_TRIES = 16;

/**
 * A store in NATS JetStream, in the layout of its KV buckets. A revision is one of its bucket: it
 * rises there alone, and a stream that was restored gives revisions again, which is told by
 * `reset`, and by conflicts.
 */
export class NatsStore implements Store {
  readonly #loop: EventLoop;
  readonly #options: NatsStoreOptions;
  readonly #deadline: Milliseconds;
  readonly #board = new LinkBoard("down");
  readonly #keeper: BucketKeeper;
  readonly #watches = new Map<NatsWatch, string>();
  readonly #waits = new ReconnectWaits();
  readonly #ready = Promise.withResolvers<void>();
  #connection: NatsConnection | undefined;
  #stream: JetStream | undefined;
  #isClosed = false;
  #lastTrouble: string | undefined;
  #timer: Disposable | undefined;
  #lastWord = monotonicNow();
  #consumers = 0;
  #requests = 0;
  readonly #name = crypto.randomUUID().replaceAll("-", "");

  /**
   * Connects for ever; `ready` tells of the first time.
   * @throws StoreError refused, for an address without TLS off loopback
   * @throws FileRefused for a file with credentials
   */
  constructor(loop: EventLoop, options: NatsStoreOptions) {
    this.#loop = loop;
    this.#options = options;
    this.#deadline = options.deadline ?? usualDeadline;
    this.#keeper = new BucketKeeper({ ...options, deadline: this.#deadline });
    this.#ready.promise.catch(() => {});
    connect(optionsOf(options, this.#waits, (message) => this.#trouble(message))).then(
      (connection) => this.#connected(connection),
      (error: unknown) => this.#ready.reject(error),
    );
  }

  /**
   * Waits until the buckets are there and their acknowledgements can be relied upon.
   * @throws StoreError refused, when a bucket that is not volatile could lose what it acknowledged
   */
  ready(): Promise<void> {
    return this.#ready.promise;
  }

  get capabilities(): Capabilities {
    const version = this.#connection?.info?.version;
    return {
      acknowledgement: this.#keeper.acknowledgement,
      server: version === undefined ? "nats-server, not reached yet" : `nats-server ${version}`,
    };
  }

  #connected(connection: NatsConnection): void {
    if (this.#isClosed) {
      connection.close().catch(() => {});
      return;
    }
    this.#connection = connection;
    this.#stream = new JetStream(connection, this.#deadline);
    this.#waits.stood();
    this.#followStatus(connection).catch((error: unknown) => this.#ready.reject(error));
    this.#lastWord = monotonicNow();
    this.#prepare();
    this.#watchWords(connection);
  }

  async #followStatus(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type === "disconnect" || status.type === "close") {
        this.#board.set("down");
        this.#stream?.lost();
      } else if (status.type === "reconnecting") {
        this.#waits.attempt();
      } else if (status.type === "reconnect") {
        this.#waits.stood();
        this.#lastWord = monotonicNow();
        this.#prepare();
      }
    }
  }

  /** The connection stands, anew perhaps: buckets first, then watches, then whoever waits. */
  #prepare(): void {
    const [connection, stream] = [this.#connection, this.#stream];
    const server = connection?.info;
    if (this.#isClosed || connection === undefined || stream === undefined) return;
    if (server === undefined) return;
    const facts = { id: server.server_id, version: server.version };
    this.#keeper.prepare(stream, facts).then(
      ({ refusals, rewound }) => {
        for (const bucket of rewound) this.#rewound(bucket);
        this.#lastTrouble = undefined;
        for (const refusal of refusals) this.#trouble(refusal);
        const [first] = refusals;
        if (first === undefined) this.#ready.resolve();
        else this.#ready.reject(refused("a bucket that can be relied upon", first));
        for (const watch of this.#watches.keys()) watch.begin(connection, stream);
        this.#board.set("up");
      },
      (error: unknown) => {
        if (this.#isClosed) return;
        this.#trouble(error instanceof Error ? error.message : String(error));
        this.#loop.wakeAfter(AGAIN, () => {
          if (!connection.isClosed() && this.#board.state === "down") this.#prepare();
        });
      },
    );
  }

  /** What is said again and again is told once. */
  #trouble(message: string): void {
    if (message === this.#lastTrouble) return;
    this.#lastTrouble = message;
    this.#options.onTrouble?.(message);
  }

  #rewound(bucket: string): void {
    const said = `The bucket ${bucket} of NATS was put back to an older state: its revisions begin`;
    this.#trouble(`${said} again, and who watches it lists it anew`);
    for (const [watch, place] of this.#watches) if (place === bucket) watch.forget();
  }

  /** Asks, and says when no answer comes. */
  #watchWords(connection: NatsConnection): void {
    const staleAfter = this.#options.staleAfter ?? usualStaleAfter;
    this.#timer = this.#loop.wakeAfter(staleAfter / 3, () => {
      if (this.#isClosed) return;
      const quiet = monotonicNow() - this.#lastWord;
      if (quiet >= GIVE_UP * staleAfter && this.#board.state !== "down") {
        connection.reconnect().catch(() => {});
      } else if (quiet >= staleAfter && this.#board.state === "up") this.#board.set("stale");
      connection.rtt().then(
        () => {
          this.#lastWord = monotonicNow();
          if (this.#board.state === "stale") this.#board.set("up");
        },
        // It was lost meanwhile, which is told by the status.
        () => {},
      );
      this.#watchWords(connection);
    });
  }

  async get(bucket: string, key: string): Promise<Entry | undefined> {
    checkKey(bucket, key);
    this.#keeper.definition(bucket);
    const what = `get ${bucket} ${key}`;
    using _open = this.#open(what);
    const end = monotonicNow() + this.#deadline;
    for (;;) {
      const stream = await this.#whenUp(what, end);
      try {
        return await stream.get(bucket, key);
      } catch (error) {
        const isLost = error instanceof StoreError && error.problem.kind === "ambiguous";
        // A read that was lost is read again, as long as there is time.
        if (isLost && monotonicNow() < end && this.#board.state === "down") continue;
        throw unanswered(error);
      }
    }
  }

  put(bucket: string, key: string, value: string, options: PutOptions): Promise<Revision> {
    return this.#write({ bucket, key }, value, options);
  }

  delete(bucket: string, key: string, options: PutOptions): Promise<Revision> {
    return this.#write({ bucket, key }, undefined, options);
  }

  async #write(
    place: { readonly bucket: string; readonly key: string },
    value: string | undefined,
    options: PutOptions,
  ): Promise<Revision> {
    checkWrite({ ...place, value: value ?? "", options });
    const { bucket, key } = place;
    this.#keeper.definition(bucket);
    const what = `${value === undefined ? "delete" : "put"} ${bucket} ${key}`;
    using _open = this.#open(what);
    const stream = await this.#whenUp(what, monotonicNow() + this.#deadline);
    this.#keeper.checkWritable(bucket);
    let { expect } = options;
    for (let tries = 0; tries < MOST_TRIES; tries += 1) {
      const written = await stream.write(place, value, { writeId: options.writeId, expect });
      if ("revision" in written) {
        this.#keeper.saw({ ...place, revision: written.revision, writeId: options.writeId });
        return written.revision;
      }
      // It was not written; what follows only finds out why.
      const present = await readBack(stream, place);
      const admission = admit(present, options);
      if (admission.kind === "repetition") return admission.revision;
      if (admission.kind === "conflict") throw conflict(place, admission.received);
      // Its deletion is the revision that NATS knows for a key that is not there.
      expect = present?.revision ?? 0;
    }
    const said = `Cannot ${what}: it was changed ${MOST_TRIES} times meanwhile`;
    throw new StoreError(said, { kind: "unavailable" });
  }

  async *watch(
    bucket: string,
    pattern: string,
    { since, signal }: WatchOptions = {},
  ): AsyncGenerator<WatchEvent, void> {
    checkPattern(bucket, pattern);
    this.#keeper.definition(bucket);
    if (this.#watches.size >= natsLimits.watches) {
      const said = `The store has ${natsLimits.watches} watches, and takes no more`;
      throw new StoreError(said, { kind: "unavailable" });
    }
    if (signal?.aborted === true || this.#isClosed) return;
    const watch = new NatsWatch(
      { bucket, pattern, since },
      {
        loop: this.#loop,
        inboxPrefix: this.#options.inboxPrefix,
        consumerName: () => `hostler-${this.#name}-${++this.#consumers}`,
        look: (known) => this.#look(bucket, known),
        onTrouble: (message) => this.#trouble(message),
        onEntry: (entry) => this.#keeper.saw(entry),
      },
    );
    const begin = () => {
      const [connection, stream] = [this.#connection, this.#stream];
      if (connection === undefined || stream === undefined) return;
      if (this.#board.state !== "down") watch.begin(connection, stream);
    };
    const stop = () => watch.stop();
    this.#watches.set(watch, bucket);
    signal?.addEventListener("abort", stop, { once: true });
    begin();
    try {
      yield* watch.events(begin);
    } finally {
      signal?.removeEventListener("abort", stop);
      this.#watches.delete(watch);
      watch.stop();
    }
  }

  /** Counts a request until it is disposed. @throws StoreError refused */
  #open(what: string): Disposable {
    if (this.#requests >= natsLimits.openRequests) {
      const expected = `at most ${natsLimits.openRequests} open requests`;
      const problem = { kind: "refused", expected, received: "one more" } as const;
      throw new StoreError(`Cannot ${what}: too many requests wait for an answer`, problem);
    }
    this.#requests += 1;
    return {
      [Symbol.dispose]: () => {
        this.#requests -= 1;
      },
    };
  }

  async #look(
    bucket: string,
    since: Revision | undefined,
  ): Promise<{ readonly last: Revision; readonly vouched: boolean }> {
    const stream = this.#stream;
    if (stream === undefined) throw closedStore();
    const found = await this.#keeper.look(stream, bucket);
    if (found.isRewound) this.#rewound(bucket);
    const { last, first } = found;
    const vouched = since === undefined || this.#keeper.vouches(bucket, since, { first, last });
    return { last, vouched: vouched && !found.isRewound };
  }

  link(signal: AbortSignal): AsyncGenerator<LinkState, void> {
    return this.#board.follow(signal);
  }

  /** @throws StoreError unavailable, when it is not up before the end */
  async #whenUp(what: string, end: number): Promise<JetStream> {
    if (this.#isClosed) throw closedStore();
    if (this.#stream !== undefined && this.#board.state !== "down") return this.#stream;
    const over = new AbortController();
    const timer = this.#loop.wakeAt(end, () => over.abort());
    try {
      for await (const state of this.#board.follow(over.signal)) {
        if (this.#isClosed) throw closedStore();
        if (state !== "down" && this.#stream !== undefined) return this.#stream;
      }
    } finally {
      timer[Symbol.dispose]();
    }
    throw new StoreError(`Cannot ${what}: NATS cannot be reached`, { kind: "unavailable" });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#timer?.[Symbol.dispose]();
    for (const watch of this.#watches.keys()) watch.stop();
    this.#stream?.lost();
    this.#board.set("down");
    await this.#connection?.close();
  }
}

export const natsLimits = {
  /** Watches of one store in one process: each is a consumer on the server. */
  watches: 4096,
  openRequests: limits.openRequests,
} as const;

/** What is there instead. A look that is lost says nothing of the write, which did not land. */
async function readBack(
  stream: JetStream,
  { bucket, key }: { readonly bucket: string; readonly key: string },
): Promise<Entry | undefined> {
  try {
    return await stream.get(bucket, key);
  } catch (error) {
    throw unanswered(error);
  }
}
