import { limits } from "./protocol.ts";

/** What an authority tells of, as it happens. No event holds a secret. */
export type IdentityHappening =
  | { readonly kind: "host-enrolled"; readonly host: string; readonly key: string }
  | { readonly kind: "host-rotating"; readonly host: string; readonly key: string }
  | { readonly kind: "host-rotated"; readonly host: string; readonly key: string }
  | { readonly kind: "host-revoked"; readonly host: string }
  | {
      readonly kind: "host-clone";
      readonly host: string;
      readonly boots: readonly string[];
      readonly how: string;
    }
  | { readonly kind: "host-acknowledged"; readonly host: string }
  | { readonly kind: "host-removed"; readonly host: string }
  | { readonly kind: "token-created"; readonly token: string; readonly host: string }
  | { readonly kind: "token-revoked"; readonly token: string; readonly host: string }
  /** Another key than the one that used it has it. */
  | {
      readonly kind: "token-stolen";
      readonly token: string;
      readonly host: string;
      readonly key: string;
      readonly from: string;
    }
  | {
      readonly kind: "session-opened";
      readonly host: string;
      readonly session: string;
      readonly from: string;
    }
  | {
      readonly kind: "session-ended";
      readonly host: string;
      readonly session: string;
      readonly reason: string;
    }
  | { readonly kind: "operator-added"; readonly operator: string }
  | { readonly kind: "operator-rotated"; readonly operator: string }
  | { readonly kind: "operator-revoked"; readonly operator: string }
  | { readonly kind: "certificate-announced"; readonly pin: string }
  | { readonly kind: "certificate-finished"; readonly pin: string };

export type IdentityEvent = IdentityHappening & {
  /** From 1, without gaps, as long as the authority's process lives. */
  readonly sequence: number;
  /** Milliseconds since 1970 by the authority's clock: for people. */
  readonly time: number;
};

/** The last events, for those who come late, and those who are told as it happens. */
export class IdentityEventBook {
  /** New in each process, so that nobody goes on in another one's numbers. */
  readonly #run: string;
  readonly #wall: () => number;
  readonly #listeners = new Set<(event: IdentityEvent) => void>();
  #events: IdentityEvent[] = [];
  #sequence = 0;

  constructor(run: string, wall: () => number) {
    this.#run = run;
    this.#wall = wall;
  }

  add(happening: IdentityHappening): void {
    this.#sequence += 1;
    const event = { ...happening, sequence: this.#sequence, time: this.#wall() };
    if (this.#events.length >= 2 * limits.events) this.#events = this.#events.slice(-limits.events);
    this.#events.push(event);
    for (const listener of [...this.#listeners]) listener(event);
  }

  listen(listener: (event: IdentityEvent) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  idOf(event: IdentityEvent): string {
    return `${this.#run}-${event.sequence}`;
  }

  /** Kept events after an id; all of them for an id of another process. */
  after(id: string | undefined): readonly IdentityEvent[] {
    const [, run, sequence] = /^(.+)-(\d{1,15})$/.exec(id ?? "") ?? [];
    const kept = this.#events.slice(-limits.events);
    return run === this.#run ? kept.filter((event) => event.sequence > Number(sequence)) : kept;
  }

  /** What was kept after an id, then what happens, until the signal ends it. */
  async *follow(id: string | undefined, signal: AbortSignal): AsyncGenerator<IdentityEvent> {
    let waiting = this.after(id);
    let last = this.#sequence - waiting.length;
    let wake = () => {};
    using _listening = this.listen(() => wake());
    const onAbort = () => wake();
    signal.addEventListener("abort", onAbort);
    try {
      while (!signal.aborted) {
        for (const event of waiting) {
          last = event.sequence;
          yield event;
          if (signal.aborted) return;
        }
        // Nothing waits for a slow reader but its place: it reads on in the book.
        waiting = this.#events.filter((event) => event.sequence > last);
        if (waiting.length > 0) continue;
        const news = Promise.withResolvers<void>();
        wake = news.resolve;
        await news.promise;
        waiting = this.#events.filter((event) => event.sequence > last);
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }
}
