import { randomBytes } from "node:crypto";
import * as v from "valibot";
import type { EmbeddedStore } from "../store/embedded-store.ts";
import { presenceBucket } from "./options.ts";
import { type Presence, presenceSchema } from "./protocol.ts";

/** The last word of each host, as long as it is that host's. */
export class PresenceBook {
  readonly #store: EmbeddedStore;
  readonly #isLive: (host: string) => boolean;
  readonly #onTrouble: (message: string) => void;
  readonly #forgetting = new Set<Promise<void>>();

  constructor(
    store: EmbeddedStore,
    around: {
      /** Whether the host is enrolled, and not revoked. */
      readonly isLive: (host: string) => boolean;
      readonly onTrouble: (message: string) => void;
    },
  ) {
    this.#store = store;
    this.#isLive = around.isLive;
    this.#onTrouble = around.onTrouble;
  }

  /** Who had this name is gone: what it said last is nobody's. Whoever asks waits for it. */
  forget(host: string): void {
    const forgetting = this.#forget(host)
      .catch((error: Error) =>
        this.#onTrouble(`cannot forget ${host}'s last word: ${error.message}`),
      )
      .finally(() => this.#forgetting.delete(forgetting));
    this.#forgetting.add(forgetting);
  }

  async of(hosts: readonly string[]) {
    await this.settled();
    const found = await Promise.all(hosts.map((host) => this.#of(host)));
    return found.filter((presence) => presence !== undefined);
  }

  /** Returns when nothing is being forgotten any more. */
  async settled(): Promise<void> {
    await Promise.all(this.#forgetting);
  }

  async #forget(host: string): Promise<void> {
    const entry = await this.#store.get(presenceBucket.name, host);
    if (entry?.operation !== "put") return;
    const writeId = randomBytes(16).toString("hex");
    await this.#store.delete(presenceBucket.name, host, { writeId });
  }

  async #of(host: string) {
    if (!this.#isLive(host)) return undefined;
    const entry = await this.#store.get(presenceBucket.name, host);
    if (entry?.operation !== "put") return undefined;
    const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), presenceSchema), entry.value);
    // What a host writes of itself is its own word: one that cannot be read is left out.
    return parsed.success ? { host, time: entry.time, ...(parsed.output as Presence) } : undefined;
  }
}
