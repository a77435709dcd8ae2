import * as v from "valibot";
import type { EventLoop } from "../event-loop/event-loop.ts";
import type { Principal } from "../http/principal.ts";
import { defineWebSocket, type WebSocketRoute } from "../http/web-socket.ts";
import type { EmbeddedStore } from "../store/embedded-store.ts";
import { RoutedStore } from "../store/routed-store.ts";
import type { Store } from "../store/store.ts";
import { storePath } from "../store/wire/protocol.ts";
import { StoreConnection } from "../store/wire/store-connection.ts";
import type { Milliseconds } from "../units/units.ts";
import type { StoreRequest } from "./addition.ts";
import { presenceBucket } from "./options.ts";

/** Whoever speaks every 5 s at least, as clients of the store do, is heard within this. */
const WORD_TIME: Milliseconds = 10_000;

/** Whether whoever speaks may do this; each role that comes adds what is its hosts'. */
export function permits(principal: Principal, asked: StoreRequest): boolean {
  const { operation, bucket, place } = asked;
  // Of another host nobody learns here, and nobody speaks for another.
  if (principal.kind !== "host" || bucket !== presenceBucket.name) return false;
  return place === principal.name && operation !== "delete";
}

type Permits = (principal: Principal, asked: StoreRequest) => boolean;

/** The store, as hosts reach it in their sessions. */
export class StoreService {
  readonly #store: EmbeddedStore;
  /** What hosts ask: some of its buckets may be in another one. */
  readonly #served: Store;
  readonly #loop: EventLoop;
  readonly #onFailure: (failure: unknown) => void;
  readonly #onWord: (session: string) => void;
  readonly #permitsMore: Permits;
  /** By session: who waits for its next word. */
  readonly #listeners = new Map<string, Set<() => void>>();
  /** By session: connections that stand. */
  readonly #open = new Map<string, number>();

  constructor(
    store: EmbeddedStore,
    parts: {
      readonly loop: EventLoop;
      readonly onFailure: (failure: unknown) => void;
      /** Told of each word of a session. */
      readonly onWord: (session: string) => void;
      /** Beside what every host may. */
      readonly permitsMore?: Permits;
      readonly storeOf?: (bucket: string) => Store | undefined;
    },
  ) {
    this.#store = store;
    this.#served = new RoutedStore(store, parts.storeOf ?? (() => undefined));
    this.#loop = parts.loop;
    this.#onFailure = parts.onFailure;
    this.#onWord = parts.onWord;
    this.#permitsMore = parts.permitsMore ?? (() => false);
  }

  /** Whether a connection of this session says something from now on: its host lives. */
  answersPing(session: string): Promise<boolean> {
    if ((this.#open.get(session) ?? 0) === 0) return Promise.resolve(false);
    const heard = Promise.withResolvers<boolean>();
    const listeners = this.#listeners.get(session) ?? new Set();
    this.#listeners.set(session, listeners);
    const onWord = () => heard.resolve(true);
    listeners.add(onWord);
    const wake = this.#loop.wakeAfter(WORD_TIME, () => heard.resolve(false));
    return heard.promise.finally(() => {
      wake[Symbol.dispose]();
      listeners.delete(onWord);
      if (listeners.size === 0) this.#listeners.delete(session);
    });
  }

  route(): WebSocketRoute {
    return defineWebSocket({
      name: "store.connect",
      method: "GET",
      path: storePath,
      summary: "The store, for a host in its session",
      permission: "host",
      input: v.object({}),
      open: (socket, call) => {
        const { principal } = call;
        const session = principal.kind === "host" ? principal.session : "";
        this.#count(session, 1);
        const connection = new StoreConnection({
          store: this.#served,
          loop: this.#loop,
          incarnation: this.#store.incarnation,
          signal: call.signal,
          socket: {
            send: (text) => void socket.send(text),
            bufferedAmount: () => socket.queuedBytes,
            close: (code, reason) => socket.close(code, reason),
          },
          permits: (operation, bucket, place) => {
            const asked = { operation, bucket, place };
            return permits(principal, asked) || this.#permitsMore(principal, asked);
          },
          onFailure: this.#onFailure,
        });
        return {
          message: (data) => {
            this.#heard(session);
            connection.receive(data);
          },
          drain: () => connection.drained(),
          close: (_code, reason) => {
            this.#count(session, -1);
            connection.closed(reason);
          },
        };
      },
    });
  }

  #heard(session: string): void {
    this.#onWord(session);
    for (const listener of [...(this.#listeners.get(session) ?? [])]) listener();
  }

  #count(session: string, change: number): void {
    const count = (this.#open.get(session) ?? 0) + change;
    if (count === 0) this.#open.delete(session);
    else this.#open.set(session, count);
  }
}
