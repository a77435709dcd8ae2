import type { EventLoop } from "../event-loop/event-loop.ts";
import { HttpClient } from "../http/client.ts";
import type { PinnedTls } from "../http/pinned-connection.ts";
import {
  type HostIdentity,
  type HostRefusalKind,
  HostRefused,
  type HostSession,
} from "../identity/host.ts";
import { storePath } from "../store/wire/protocol.ts";
import { RemoteStore } from "../store/wire/remote-store.ts";
import type { Milliseconds } from "../units/units.ts";
import { hostlerVersion } from "../units/version.ts";
import type { HostSide } from "./host-side.ts";

/** How often what the authority announces of its certificates is asked for. */
const REFRESH_EVERY: Milliseconds = 300_000;

/** What another attempt cannot mend: a person has to. */
const lasting: readonly HostRefusalKind[] = [
  "host-revoked",
  "key-revoked",
  "key-unknown",
  "not-enrolled",
  "other-authority",
];

export function isLasting(error: unknown): error is HostRefused {
  return error instanceof HostRefused && lasting.includes(error.kind);
}

export interface HostStoreParts {
  readonly identity: HostIdentity;
  readonly loop: EventLoop;
  /** How a connection in a session is held to certificates that were seen; looked at without. */
  readonly tlsOf?: HostSide["tlsOf"];
  /** How long a session may take to be opened; see RemoteLinkOptions. */
  readonly credentialsTime?: Milliseconds;
  /** Of the first time that announcements are asked for in a session; `REFRESH_EVERY` without. */
  readonly firstRefresh?: Milliseconds;
  /** A session was opened. */
  onOpen(session: HostSession): void;
  /** An attempt, or a look at announcements, has failed; another one follows. */
  onFailure(reason: string): void;
  /** No session was opened for an attempt. @returns how long to wait, when longer than usual */
  onRefused?(error: unknown): Milliseconds | undefined;
}

async function lookAt({ address, pins }: Pick<HostSession, "address" | "pins">) {
  const client = new HttpClient({ url: address, pins });
  await client.connect();
  return client.tls;
}

/** The store of a host's authority: for each attempt of its link a session of its own. */
export class HostStore implements AsyncDisposable {
  readonly #parts: HostStoreParts;
  #tls: PinnedTls | undefined;
  /** For the first attempt of the link, when it was opened before. */
  #ahead: HostSession | undefined;
  #store: RemoteStore | undefined;
  #refresh: Disposable | undefined;
  #isClosed = false;

  constructor(parts: HostStoreParts) {
    this.#parts = parts;
  }

  /** A session ahead of the link. @throws HostRefused, FileRefused, HttpUnreachable */
  async openAhead(): Promise<HostSession> {
    this.#ahead = await this.#open();
    return this.#ahead;
  }

  /** @param address "https://NAME:PORT"; it is tried for ever */
  connect(address: string): RemoteStore {
    const tls = () => this.#tls;
    const { credentialsTime } = this.#parts;
    const store = new RemoteStore(this.#parts.loop, {
      ...(credentialsTime !== undefined && { credentialsTime }),
      address: `${address.replace(/^https/, "wss")}${storePath}`,
      program: `hostler ${hostlerVersion}`,
      headers: () => this.#credentials(),
      get tls() {
        return tls();
      },
      onFailure: (reason) => this.#parts.onFailure(reason),
      waitAfter: (error) => this.#parts.onRefused?.(error),
    });
    this.#store = store;
    return store;
  }

  async #credentials(): Promise<Readonly<Record<string, string>>> {
    const { bearer } = this.#ahead ?? (await this.#open());
    this.#ahead = undefined;
    return { authorization: `Bearer ${bearer}` };
  }

  async #open(): Promise<HostSession> {
    const { identity, onOpen, firstRefresh = REFRESH_EVERY } = this.#parts;
    const session = await identity.openSession();
    this.#tls = await (this.#parts.tlsOf ?? lookAt)(session);
    onOpen.call(this.#parts, session);
    this.#refreshAfter(firstRefresh, session);
    return session;
  }

  #refreshAfter(wait: Milliseconds, session: HostSession): void {
    this.#refresh?.[Symbol.dispose]();
    if (this.#isClosed) return;
    const { loop, identity } = this.#parts;
    this.#refresh = loop.wakeAfter(wait, () => {
      this.#refreshAfter(REFRESH_EVERY, session);
      identity
        .refresh(session)
        .catch((error: unknown) => this.#parts.onFailure((error as Error).message));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#refresh?.[Symbol.dispose]();
    await this.#store?.[Symbol.asyncDispose]();
  }
}
