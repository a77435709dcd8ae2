import type { LinkState } from "../store.ts";

/** The state of a link, and whoever follows it: each is told the latest, none what lay between. */
export class LinkBoard {
  #state: LinkState;
  #changed = Promise.withResolvers<void>();

  constructor(state: LinkState) {
    this.#state = state;
  }

  get state(): LinkState {
    return this.#state;
  }

  set(state: LinkState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  /** The present state first, then each other one, until the signal. */
  async *follow(signal: AbortSignal): AsyncGenerator<LinkState, void> {
    const stopped = Promise.withResolvers<void>();
    const stop = () => stopped.resolve();
    signal.addEventListener("abort", stop, { once: true });
    try {
      let told: LinkState | undefined;
      while (!signal.aborted) {
        const changed = this.#changed.promise;
        const state = this.#state;
        if (state !== told) {
          told = state;
          yield state;
        } else await Promise.race([changed, stopped.promise]);
      }
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }
}
