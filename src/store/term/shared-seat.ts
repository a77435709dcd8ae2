import { hostname } from "node:os";
import { bootClockNow, monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { ProblemError } from "../../http/problem.ts";
import type { Logger } from "../../logging/logger.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import type { SharedStoreConfiguration } from "../nats/configuration.ts";
import type { NatsStore } from "../nats/nats-store.ts";
import { openPlace } from "../nats/open-place.ts";
import { SharedLink } from "../nats/shared-link.ts";
import { patienceFor } from "../put-once.ts";
import { type BucketDefinition, type Store, StoreError } from "../store.ts";
import { type SeenTerm, type TermWitness, termLimits } from "./lifecycle-term.ts";
import { TermKeeper, type TermPlace } from "./term-keeper.ts";
import { noteWitness, readWitness } from "./witness.ts";

/** What an ending process waits for a store that may be away. */
const STOP_TIME: Milliseconds = 3_000;

/** What a seat stands on. */
export interface SeatGround {
  /** This host's own, which remembers how far it has seen the shared one. */
  readonly store: Pick<Store, "get" | "put">;
  readonly loop: EventLoop;
  readonly logger: Logger;
  readonly onFailure: (failure: unknown) => void;
  /** The process ends, refused, to be started anew. */
  readonly end: (reason: string) => void;
}

/** Of a role, in words for people. */
export interface SeatWords {
  /** "master": what stands by, or acts. */
  readonly role: string;
  /** "the cluster": what it acts for. */
  readonly whole: string;
  /** "no master acts by this one; workers keep what they have": while NATS is away. */
  readonly meanwhile: string;
  /** What the server shows its people: "hostler vm master". */
  readonly program: string;
}

/** What acts; it stops before its term is released. */
export interface SeatHolder {
  stop(): Promise<void>;
}

/** What whoever is to act is opened with. */
export interface Seat {
  readonly store: NatsStore;
  readonly held: SeenTerm;
  readonly isActing: () => boolean;
}

export interface SharedSeatParts<Holder extends SeatHolder> {
  readonly ground: SeatGround;
  readonly shared: SharedStoreConfiguration;
  readonly words: SeatWords;
  readonly buckets: readonly BucketDefinition[];
  /** Of the entry that says who acts, in the shared store. */
  readonly term: TermPlace;
  /** Where this host's own store remembers how far it has seen the shared one. */
  readonly witness: TermPlace;
  /** Called once, when this one may act. @throws StoreError, or an error with an exit code */
  readonly open: (seat: Seat) => Promise<Holder>;
}

/**
 * One of several processes of a role over NATS: it stands by until it may act, and ends when it may
 * no more, to be started anew and stand by.
 */
export class SharedSeat<Holder extends SeatHolder> {
  readonly #parts: SharedSeatParts<Holder>;
  readonly #store: NatsStore;
  readonly #keeper: TermKeeper;
  readonly #link: SharedLink;
  #holder: Holder | undefined;

  /** @throws FileRefused, StoreError for what the configuration names and cannot be used */
  static async open<Holder extends SeatHolder>(
    parts: SharedSeatParts<Holder>,
  ): Promise<SharedSeat<Holder>> {
    return new SharedSeat(parts, await readWitness(parts.ground.store, parts.witness));
  }

  private constructor(parts: SharedSeatParts<Holder>, witness: TermWitness | undefined) {
    const { ground, shared, words } = parts;
    const { loop, logger } = ground;
    this.#parts = parts;
    this.#store = openPlace(loop, shared, {
      ...{ replicas: shared.replicas, program: words.program, role: "owner" },
      buckets: parts.buckets,
      onTrouble: (message) => logger.warn(message),
    });
    this.#store.ready().catch((error: Error) => ground.end(error.message));
    this.#keeper = new TermKeeper({
      ...{ store: this.#store, place: parts.term, witness },
      holder: shared.name ?? hostname(),
      now: bootClockNow,
      wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
      patience: (duration) => patienceFor(loop, duration),
      noteWitness: (seen) => this.#note(seen),
      onBegin: (held) => this.#begin(held),
      onEnd: (reason) => ground.end(`this ${words.role} acts no more: ${reason}`),
      onFailure: ground.onFailure,
    });
    const servers = shared.servers.join(", ");
    logger.info(`stands by: follows in NATS which ${words.role} acts, at ${servers}`);
    this.#link = new SharedLink({
      store: this.#store,
      ...{ servers: shared.servers, loop, logger, now: monotonicNow },
      meanwhile: words.meanwhile,
      onFailure: ground.onFailure,
    });
    this.#keeper.start();
  }

  /** It is there while this one stands by, too. */
  get store(): NatsStore {
    return this.#store;
  }

  get isActing(): boolean {
    return this.#holder !== undefined && this.#keeper.isActing;
  }

  /** What acts; undefined while it stands by. */
  get holder(): Holder | undefined {
    return this.isActing ? this.#holder : undefined;
  }

  /** @throws ProblemError */
  acting(): Holder {
    if (this.holder !== undefined) return this.holder;
    const { lostFor, where } = this.#link;
    const { role } = this.#parts.words;
    if (lostFor !== undefined) {
      throw new ProblemError(
        "unavailable",
        `This ${role} stands by: NATS is not reached at ${where}`,
        {
          expected: "a NATS server that answers",
          received: `none for ${formatDuration(lostFor)}`,
          hint: `Look at that server, and at [store] of the ${role}'s configuration`,
        },
      );
    }
    const { holder } = this.#keeper;
    const who = holder === undefined ? "which one acts is not known yet" : `${holder} acts`;
    throw new ProblemError("unavailable", `This ${role} stands by: ${who}`, {
      expected: `the ${role} that acts for ${this.#parts.words.whole}`,
      received: "another one",
      hint: `Ask that one; when it is gone, another acts within ${TAKEOVER_SECONDS} s`,
    });
  }

  async #note(seen: TermWitness): Promise<void> {
    const { ground, witness } = this.#parts;
    try {
      await noteWitness(ground.store, witness, seen);
    } catch (error) {
      ground.logger.warn(
        `what was seen of the shared store is not noted: ${(error as Error).message}`,
      );
    }
  }

  #begin(held: SeenTerm): void {
    this.#open(held).catch((error: unknown) => {
      const { ground, words } = this.#parts;
      // The store is away again, or another one was quicker: as a term that is over.
      if (error instanceof StoreError) {
        ground.end(`this ${words.role} cannot act: ${error.message}`);
      } else if (error instanceof Error && "exitCode" in error) ground.end(error.message);
      else ground.onFailure(error);
    });
  }

  async #open(held: SeenTerm): Promise<void> {
    const { ground, words, open } = this.#parts;
    const isActing = () => this.#keeper.isActing;
    this.#holder = await open({ store: this.#store, held, isActing });
    const { term, holder } = held.entry;
    ground.logger.info(`acts for ${words.whole}: term ${term}, as ${holder}`);
  }

  async stop(): Promise<void> {
    // What waits for a store that is away is let go of with it.
    using _limit = this.#parts.ground.loop.wakeAfter(STOP_TIME, () => void this.#close());
    await this.#holder?.stop();
    await this.#keeper.release();
    await this.#close();
  }

  async #close(): Promise<void> {
    this.#keeper.close();
    this.#link.close();
    await this.#store[Symbol.asyncDispose]();
  }
}

const TAKEOVER_SECONDS = (termLimits.term + termLimits.margin) / 1_000;
