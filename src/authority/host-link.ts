import { randomBytes } from "node:crypto";
import { EventLoop } from "../event-loop/event-loop.ts";
import { startWorker } from "../event-loop/worker-factory.ts";
import type { HostIdentity } from "../identity/host.ts";
import { StoreError } from "../store/store.ts";
import type { RemoteStore } from "../store/wire/remote-store.ts";
import type { Milliseconds } from "../units/units.ts";
import { hostlerVersion } from "../units/version.ts";
import { HostStore, isLasting } from "./host-store.ts";
import { presenceBucket } from "./options.ts";
import { readBootId } from "./perform.ts";
import type { Presence } from "./protocol.ts";

/** What happens to a host's link with its authority. */
export type HostLinkEvent =
  | {
      readonly event: "open";
      readonly host: string;
      readonly session: string;
      readonly key: string;
    }
  | { readonly event: "link"; readonly state: "up" | "down" | "stale" }
  | { readonly event: "trouble"; readonly reason: string };

/** How often a host says that it is there. */
const WORD_EVERY: Milliseconds = 10_000;
/** Events that wait for a reader; over it the oldest go. */
const EVENTS_LIMIT = 1_000;

/**
 * A host in its session: the store of its authority, as long as the authority lets it. A link that
 * is lost is made anew, with a session of its own; a refusal that lasts ends it.
 */
export class HostLink implements AsyncDisposable {
  readonly #loop = new EventLoop(startWorker);
  readonly #sessions: HostStore;
  readonly #timers = new Map<string, Disposable>();
  readonly #events: HostLinkEvent[] = [];
  #wake = () => {};
  #failure: Error | undefined;
  #host = "";

  constructor(identity: HostIdentity) {
    this.#loop.onFailure((failure) => this.#fail(failure as Error));
    this.#sessions = new HostStore({
      ...{ identity, loop: this.#loop, firstRefresh: 0 },
      onOpen: ({ host, session, key }) => {
        this.#host = host;
        this.#tell({ event: "open", host, session, key });
      },
      onFailure: (reason) => this.#tell({ event: "trouble", reason }),
      onRefused: (error) => {
        if (isLasting(error)) this.#fail(error);
        return undefined;
      },
    });
  }

  /** What happens, until the signal ends it. @throws HostRefused when the authority says no */
  async *run(signal: AbortSignal): AsyncGenerator<HostLinkEvent> {
    // The first attempt is the caller's: a host that is not enrolled has nothing to wait for.
    const { address } = await this.#sessions.openAhead();
    if (signal.aborted) return;
    const store = this.#sessions.connect(address);
    const onAbort = () => this.#wake();
    signal.addEventListener("abort", onAbort);
    void this.#followLink(store, signal);
    try {
      while (!signal.aborted) {
        for (const event of this.#events.splice(0)) yield event;
        if (this.#failure !== undefined) throw this.#failure;
        const news = Promise.withResolvers<void>();
        this.#wake = news.resolve;
        if (this.#events.length === 0 && !signal.aborted) await news.promise;
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #followLink(store: RemoteStore, signal: AbortSignal): Promise<void> {
    for await (const state of store.link(signal)) {
      this.#tell({ event: "link", state });
      if (state === "up") this.#every("word", WORD_EVERY, () => this.#say(store));
      else this.#timers.get("word")?.[Symbol.dispose]();
    }
  }

  async #say(store: RemoteStore): Promise<void> {
    const presence: Presence = { boot: readBootId(), version: hostlerVersion };
    const writeId = randomBytes(16).toString("hex");
    await store.put(presenceBucket.name, this.#host, JSON.stringify(presence), { writeId });
  }

  /** Now, and then each time when so much time has passed after it was done. */
  #every(name: string, wait: Milliseconds, act: () => Promise<void>): void {
    this.#timers.get(name)?.[Symbol.dispose]();
    const next = () => {
      this.#timers.set(
        name,
        this.#loop.wakeAfter(wait, () => this.#every(name, wait, act)),
      );
    };
    next();
    act().catch((error: unknown) => {
      // The link says by itself that it is down.
      if (error instanceof StoreError && error.problem.kind === "unavailable") return;
      this.#tell({ event: "trouble", reason: (error as Error).message });
    });
  }

  #tell(event: HostLinkEvent): void {
    this.#events.push(event);
    if (this.#events.length > EVENTS_LIMIT) this.#events.shift();
    this.#wake();
  }

  #fail(failure: Error): void {
    this.#failure ??= failure;
    this.#wake();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#timers.values()) timer[Symbol.dispose]();
    await this.#sessions[Symbol.asyncDispose]();
    this.#loop[Symbol.dispose]();
  }
}
