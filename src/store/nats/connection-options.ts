import type { NodeConnectionOptions } from "@nats-io/transport-node";
import type { Milliseconds } from "../../units/units.ts";
import { refused } from "../store.ts";
import { authenticatorOf, type Credentials } from "./credentials.ts";
import { isLoopbackServer } from "./server-address.ts";

/** Where NATS is, and who we are to it. */
export interface NatsAddress {
  /** "tls://host:4222", or "nats://127.0.0.1:4222": without TLS on loopback alone. */
  readonly servers: readonly string[];
  readonly credentials: Credentials;
  /** PEM texts. Its absence is the system's own list of authorities. */
  readonly tls?: {
    readonly ca?: string;
    readonly certificate?: string;
    readonly key?: string;
  };
  /** What subjects of answers begin with, where permissions set it apart: "_INBOX_name". */
  readonly inboxPrefix?: string;
  /** Shown by the server to its people. */
  readonly program?: string;
}

/** Waits between attempts: doubled each time up to the cap, each varied by a fifth. */
const FIRST_WAIT: Milliseconds = 50;
const LONGEST_WAIT: Milliseconds = 5_000;
const JITTER = 0.2;
/** While there was no connection yet, whose status would tell of each attempt. */
const BEFORE_FIRST: Milliseconds = 500;

/** The waits between attempts. The client asks for one several times in an attempt. */
export class ReconnectWaits {
  #failures = 0;
  #wait: Milliseconds = vary(BEFORE_FIRST);

  get wait(): Milliseconds {
    return this.#wait;
  }

  /** The connection stands. */
  stood(): void {
    this.#failures = 0;
    this.#wait = vary(FIRST_WAIT);
  }

  /** An attempt begins: the next one waits for longer. */
  attempt(): void {
    this.#failures = Math.min(this.#failures + 1, 30);
    this.#wait = vary(Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures));
  }
}

function vary(wait: Milliseconds): Milliseconds {
  return wait * (1 + JITTER * (2 * Math.random() - 1));
}

const CONNECT_TIME: Milliseconds = 10_000;
/** Stale links are looked for by ourselves; this is for what we may miss. */
const PING: Milliseconds = 60_000;

/** @throws StoreError refused, FileRefused */
export function optionsOf(
  address: NatsAddress,
  waits: ReconnectWaits,
  onTrouble: (message: string) => void,
): NodeConnectionOptions {
  const { servers, credentials, tls, inboxPrefix, program } = address;
  if (servers.length === 0) throw refused("an address of a NATS server", "none");
  const isPlain = servers.every(isLoopbackServer) && tls === undefined;
  const remote = servers.find(
    (server) => !isLoopbackServer(server) && !server.startsWith("tls://"),
  );
  if (remote !== undefined) throw refused("tls:// off loopback", remote.slice(0, 200));
  const authenticator = authenticatorOf(credentials, onTrouble);
  return {
    servers: [...servers],
    ...(program !== undefined && { name: program }),
    ...(authenticator !== undefined && { authenticator }),
    ...(inboxPrefix !== undefined && { inboxPrefix }),
    tls: isPlain
      ? null
      : {
          ...(tls?.ca !== undefined && { ca: tls.ca }),
          ...(tls?.certificate !== undefined && { cert: tls.certificate }),
          ...(tls?.key !== undefined && { key: tls.key }),
          // The client hands it to node:tls as it is, which its types do not know.
          ...({ minVersion: "TLSv1.3" } as object),
        },
    maxReconnectAttempts: -1,
    waitOnFirstConnect: true,
    // Credentials may be mended, or the server's list of them.
    ignoreAuthErrorAbort: true,
    reconnectDelayHandler: () => waits.wait,
    timeout: CONNECT_TIME,
    pingInterval: PING,
    maxPingOut: 3,
    noAsyncTraces: true,
    // What a server says of its fellows has no TLS address that was checked.
    ignoreClusterUpdates: true,
  };
}
