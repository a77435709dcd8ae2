import type { Milliseconds } from "../units/units.ts";
import type { PinnedTls } from "./pinned-connection.ts";

/** Idle connections that one client keeps: as many calls at once go without a handshake. */
const KEPT_CONNECTIONS = 4;

/**
 * How a call travels. "kept": by a connection that an earlier call left open, where there is one.
 * The server may close that at the moment when the call is sent; then nobody can tell whether it
 * was done. Bun's fetch repeats GET, PUT and DELETE by itself then, and no POST: measured on 1.4.5.
 * "own": by a connection that is opened for it and closed after it, on which nothing is repeated.
 */
export type Way = "kept" | "own";

/**
 * The connections of one client. No other client has a part in them, whatever it pins: a session
 * of Bun's shares its connections with nobody, and asks `checkServerIdentity` once for each.
 */
export class Connections implements Disposable {
  readonly #sessions: Readonly<Record<Way, Bun.FetchSession>>;

  /** @param options.idleTime rounded up to 4 s by Bun's timer, and up to 8 s later */
  constructor(options: {
    readonly tls: PinnedTls | undefined;
    readonly unix: string | undefined;
    readonly idleTime: Milliseconds;
  }) {
    const { tls, unix, idleTime } = options;
    const common = {
      ...(tls !== undefined && { tls: { ...tls, ca: [...tls.ca] } }),
      ...(unix !== undefined && { unix }),
    };
    const idleTimeout = Math.ceil(idleTime / 1_000);
    this.#sessions = {
      kept: new Bun.FetchSession({
        ...common,
        keepAlive: { idleTimeout, maxIdleSockets: KEPT_CONNECTIONS },
      }),
      own: new Bun.FetchSession({ ...common, keepAlive: false }),
    };
  }

  fetch(way: Way, url: URL, init: BunFetchRequestInit): Promise<Response> {
    return this.#sessions[way].fetch(url, init);
  }

  /** Closes what is idle; calls that are under way end as they would have. */
  [Symbol.dispose](): void {
    for (const session of Object.values(this.#sessions)) session.close();
  }
}
