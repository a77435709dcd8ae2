import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Logger } from "../../logging/logger.ts";
import { formatDuration, type Milliseconds, type MonotonicTime } from "../../units/units.ts";
import type { Store } from "../store.ts";

/** Before a store that is not reached is told of: a server that is started anew takes less. */
const TOLD_AFTER: Milliseconds = 5_000;

export interface SharedLinkParts {
  readonly store: Pick<Store, "link">;
  readonly servers: readonly string[];
  /** What is so meanwhile, for people: "no master acts by this one". */
  readonly meanwhile: string;
  readonly loop: Pick<EventLoop, "wakeAfter">;
  readonly logger: Pick<Logger, "info" | "warn">;
  now(): MonotonicTime;
  onFailure(failure: unknown): void;
}

/** Whether a store in NATS is reached: told once when it is not for a while. */
export class SharedLink {
  readonly #parts: SharedLinkParts;
  readonly #closed = new AbortController();
  #lostAt: MonotonicTime | undefined;
  #timer: Disposable | undefined;
  #isTold = false;

  constructor(parts: SharedLinkParts) {
    this.#parts = parts;
    this.#lose();
    this.#follow().catch((error: unknown) => parts.onFailure(error));
  }

  /** For how long it has not been reached; undefined while it is. */
  get lostFor(): Milliseconds | undefined {
    return this.#lostAt === undefined ? undefined : this.#parts.now() - this.#lostAt;
  }

  get where(): string {
    return this.#parts.servers.join(", ");
  }

  async #follow(): Promise<void> {
    for await (const state of this.#parts.store.link(this.#closed.signal)) {
      if (state === "up") this.#reach();
      else this.#lose();
    }
  }

  #reach(): void {
    this.#timer?.[Symbol.dispose]();
    this.#lostAt = undefined;
    if (this.#isTold) this.#parts.logger.info(`NATS is reached at ${this.where}`);
    this.#isTold = false;
  }

  #lose(): void {
    if (this.#lostAt !== undefined) return;
    const { loop, logger, now, meanwhile } = this.#parts;
    this.#lostAt = now();
    this.#timer = loop.wakeAfter(TOLD_AFTER, () => {
      this.#isTold = true;
      logger.warn(
        `NATS is not reached at ${this.where} for ${formatDuration(TOLD_AFTER)}: ${meanwhile}. ` +
          "Look at that server, and at [store] of the configuration (address, TLS, credentials)",
      );
    });
  }

  close(): void {
    this.#timer?.[Symbol.dispose]();
    this.#closed.abort();
  }
}
