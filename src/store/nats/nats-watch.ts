import {
  createInbox,
  type Msg,
  type NatsConnection,
  type Subscription,
} from "@nats-io/transport-node";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Milliseconds } from "../../units/units.ts";
import { type Entry, type Revision, StoreError, type WatchEvent } from "../store.ts";
import { limits } from "../wire/protocol.ts";
import { WatchQueue } from "../wire/watch-queue.ts";
import { filterOf, subjectOf } from "./bucket-stream.ts";
import { contentOf, type JetStream } from "./jet-stream.ts";

/** The server says so often that it is there; after three times as long we begin again. */
const HEARTBEAT: Milliseconds = 5_000;
const NANOSECONDS = 1_000_000;
/** What a consumer outlives its reader. */
const IDLE: Milliseconds = 30_000;
/** Between two tries to begin again while the link stands. */
const AGAIN: Milliseconds = 1_000;

export interface NatsWatchPlace {
  readonly bucket: string;
  readonly pattern: string;
  readonly since: Revision | undefined;
}

export interface NatsWatchOptions {
  readonly loop: EventLoop;
  readonly inboxPrefix: string | undefined;
  /** A name for a consumer, that no other has. */
  readonly consumerName: () => string;
  /** What the stream has: its last revision, and whether this one still holds. */
  readonly look: (since: Revision | undefined) => Promise<{ last: Revision; vouched: boolean }>;
  /** Told why it could not begin; it tries again. */
  readonly onTrouble: (message: string) => void;
  /** Each entry that came: the store remembers the latest. */
  readonly onEntry: (entry: Entry) => void;
}

/** A consumer, as long as the server has one for us. */
interface Consumer {
  readonly connection: NatsConnection;
  readonly subscription: Subscription;
  /** It lists what there is; else it tells what came after a revision. */
  readonly isFresh: boolean;
  /** Messages of it that came. */
  received: number;
  /** Messages that are to come before it is synced. Not known before the server has answered. */
  listing: number;
  /** All up to this revision was told when it is synced. */
  floor: Revision;
}

/**
 * One watch, as an ordered consumer (ADR-15, ADR-17): nothing is acknowledged; a gap in the
 * numbers, or a server that lost its consumer, has it begin again behind what it told last.
 */
export class NatsWatch {
  readonly #place: NatsWatchPlace;
  readonly #options: NatsWatchOptions;
  readonly #queue = new WatchQueue({
    limit: limits.pendingBytes,
    onOverflow: () => this.#overflow(),
  });
  /** All up to it was told. */
  #since: Revision | undefined;
  #phase: "listing" | "following" | "overflown" | "ended" = "listing";
  #consumer: Consumer | undefined;
  #silence: Disposable | undefined;
  /** The latest attempt to begin; an earlier one gives up. */
  #attempt = 0;
  #again: Disposable | undefined;

  constructor(place: NatsWatchPlace, options: NatsWatchOptions) {
    this.#place = place;
    this.#options = options;
    this.#since = place.since;
  }

  /** Begins, or begins again: the connection stands, anew perhaps. */
  begin(connection: NatsConnection, stream: JetStream): void {
    if (this.#phase === "ended" || this.#phase === "overflown") return;
    this.#drop();
    const attempt = ++this.#attempt;
    this.#open(attempt, connection, stream).catch((error: unknown) => {
      if (attempt !== this.#attempt || this.#phase === "ended") return;
      // What no second try makes better.
      if (error instanceof StoreError && error.problem.kind === "denied") {
        this.#finish(error);
        return;
      }
      const isLost = error instanceof StoreError && error.problem.kind === "ambiguous";
      if (!isLost) this.#options.onTrouble(error instanceof Error ? error.message : String(error));
      // The server may be about to have it: whoever reconnects begins at once.
      this.#again = this.#options.loop.wakeAfter(AGAIN, () => this.begin(connection, stream));
    });
  }

  async #open(attempt: number, connection: NatsConnection, stream: JetStream): Promise<void> {
    const { last, vouched } = await this.#options.look(this.#since);
    if (attempt !== this.#attempt) return;
    if (!vouched) this.forget();
    const { bucket, pattern } = this.#place;
    const inbox = createInbox(this.#options.inboxPrefix);
    const since = this.#since;
    const subscription = connection.subscribe(inbox, {
      callback: (error, message) => {
        if (error !== null) this.#finish(new StoreError(error.message, { kind: "denied" }));
        else if (this.#consumer === consumer) this.#receive(consumer, message);
      },
    });
    const consumer: Consumer = {
      connection,
      subscription,
      isFresh: since === undefined,
      received: 0,
      listing: Number.POSITIVE_INFINITY,
      floor: Math.max(last, since ?? 0),
    };
    this.#consumer = consumer;
    this.#onSilence = () => this.begin(connection, stream);
    const total = await stream.consume(bucket, {
      name: this.#options.consumerName(),
      filter_subject: filterOf(bucket, pattern),
      deliver_subject: inbox,
      ...(since === undefined
        ? { deliver_policy: "last_per_subject" }
        : { deliver_policy: "by_start_sequence", opt_start_seq: since + 1 }),
      ack_policy: "none",
      max_deliver: 1,
      replay_policy: "instant",
      flow_control: true,
      idle_heartbeat: HEARTBEAT * NANOSECONDS,
      inactive_threshold: IDLE * NANOSECONDS,
      mem_storage: true,
      num_replicas: 1,
    });
    if (this.#consumer !== consumer) return;
    consumer.listing = total - consumer.received;
    this.#listen();
    if (consumer.listing <= 0) this.#synced(consumer);
  }

  #listen(): void {
    this.#silence?.[Symbol.dispose]();
    this.#silence = this.#options.loop.wakeAfter(3 * HEARTBEAT, () => this.#onSilence());
  }

  #onSilence: () => void = () => {};

  #receive(consumer: Consumer, message: Msg): void {
    this.#listen();
    if (message.headers?.code === 100) {
      this.#status(consumer, message);
      return;
    }
    const delivery = deliveryOf(message.reply ?? "");
    if (delivery === undefined) return;
    consumer.received += 1;
    if (delivery.number !== consumer.received) {
      this.#onSilence();
      return;
    }
    this.#entry(consumer, entryOf(this.#place.bucket, message, delivery));
    if (consumer.listing === 0) return;
    consumer.listing -= 1;
    if (consumer.listing <= 0 || delivery.pending === 0) this.#synced(consumer);
  }

  /** A heartbeat tells how many messages there were; a request of flow control is answered. */
  #status(consumer: Consumer, message: Msg): void {
    const stalled = message.headers?.get("Nats-Consumer-Stalled") ?? "";
    if (message.reply !== undefined && message.reply !== "") message.respond();
    else if (stalled !== "") consumer.connection.publish(stalled);
    const told = message.headers?.get("Nats-Last-Consumer") ?? "";
    if (told !== "" && Number(told) !== consumer.received) this.#onSilence();
  }

  #entry(consumer: Consumer, entry: Entry): void {
    consumer.floor = Math.max(consumer.floor, entry.revision);
    this.#options.onEntry(entry);
    // A stream tells in the order of revisions, its list too: this is where one can go on.
    this.#since = entry.revision;
    // A first list has no use for what is deleted.
    if (consumer.listing > 0 && consumer.isFresh && entry.operation === "delete") return;
    this.#queue.entry(entry);
  }

  #synced(consumer: Consumer): void {
    consumer.listing = 0;
    if (this.#phase === "listing") this.#queue.synced(consumer.floor);
    this.#phase = "following";
    this.#since = consumer.floor;
  }

  /** What was told does not hold: the next beginning lists all. */
  forget(): void {
    if (this.#phase === "ended") return;
    this.#since = undefined;
    this.#phase = "listing";
    this.#queue.reset();
  }

  #overflow(): void {
    this.#phase = "overflown";
    this.#drop();
  }

  /** Events, until it is stopped. @param resume begins again, after nobody took what came */
  async *events(resume: () => void): AsyncGenerator<WatchEvent, void> {
    for await (const event of this.#queue.events()) {
      if (event.kind === "reset" && this.#phase === "overflown") {
        this.#since = undefined;
        this.#phase = "listing";
        resume();
      }
      yield event;
    }
  }

  #drop(): void {
    this.#silence?.[Symbol.dispose]();
    this.#again?.[Symbol.dispose]();
    this.#consumer?.subscription.unsubscribe();
    this.#consumer = undefined;
  }

  #finish(failure?: Error): void {
    if (this.#phase === "ended") return;
    this.#phase = "ended";
    this.#attempt += 1;
    this.#drop();
    this.#queue.end(failure);
  }

  stop(): void {
    this.#finish();
  }
}

interface Delivery {
  readonly revision: Revision;
  readonly number: number;
  readonly time: Milliseconds;
  /** Messages behind it. */
  readonly pending: number;
}

/** $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>: ADR-15. */
export function deliveryOf(reply: string): Delivery | undefined {
  const words = reply.split(".");
  if (words[0] !== "$JS" || words[1] !== "ACK" || words.length < 9) return undefined;
  // With a domain and an account's hash before the stream, and a word of chance at the end.
  const begin = words.length >= 11 ? 7 : 5;
  const [revision, number, time, pending] = words.slice(begin, begin + 4).map(Number);
  if (revision === undefined || number === undefined) return undefined;
  if (time === undefined || pending === undefined) return undefined;
  if (![revision, number, pending].every(Number.isSafeInteger)) return undefined;
  return { revision, number, time: Math.floor(time / NANOSECONDS), pending };
}

function entryOf(bucket: string, message: Msg, { revision, time }: Delivery): Entry {
  const key = message.subject.slice(subjectOf(bucket, "").length);
  return { bucket, key, revision, ...contentOf(message), time };
}
