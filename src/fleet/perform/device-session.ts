import { openHost } from "../../authority/host-side.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { HttpClient } from "../../http/client.ts";
import type { PinnedTls } from "../../http/pinned-connection.ts";
import { type HostIdentity, HostRefused } from "../../identity/host.ts";
import { storePath } from "../../store/wire/protocol.ts";
import { RemoteStore } from "../../store/wire/remote-store.ts";
import type { Milliseconds } from "../../units/units.ts";
import { hostlerVersion } from "../../units/version.ts";

/** How often what the authority announces of its certificates is asked for. */
const REFRESH_EVERY: Milliseconds = 300_000;

export interface SessionHearer {
  /** A session was opened. */
  onOpen(session: string): void;
  /** An attempt has failed, and another one follows. */
  onFailure(reason: string): void;
  /** Survived, and should be mended. */
  onTrouble(message: string): void;
}

/**
 * The store of the authority at which this host is enrolled, in sessions of the host. Unlike a
 * person's session it waits for an authority that is away, from the first attempt on: what an agent
 * has to do on its host it does without one.
 */
export class DeviceSession implements AsyncDisposable {
  /** The name under which this host is enrolled. */
  readonly device: string;
  readonly store: RemoteStore;
  readonly #identity: HostIdentity;
  readonly #loop: EventLoop;
  readonly #hearer: SessionHearer;
  #tls: PinnedTls | undefined;
  #refresh: Disposable | undefined;
  #isClosed = false;

  /**
   * @param folder of the identity
   * @throws HostRefused where this host is not enrolled; FileRefused
   */
  constructor(loop: EventLoop, folder: string, hearer: SessionHearer) {
    const identity = openHost(folder, (message) => hearer.onTrouble(message));
    const journal = identity.journal();
    if (journal === undefined) throw notEnrolled(folder);
    this.#identity = identity;
    this.#loop = loop;
    this.#hearer = hearer;
    this.device = journal.host;
    const tls = () => this.#tls;
    this.store = new RemoteStore(loop, {
      address: `${journal.address.replace(/^https/, "wss")}${storePath}`,
      program: `hostler ${hostlerVersion}`,
      headers: () => this.#open(),
      get tls() {
        return tls();
      },
      onFailure: (reason) => hearer.onFailure(reason),
    });
  }

  /** For each attempt of the link a session of its own. */
  async #open(): Promise<Readonly<Record<string, string>>> {
    const session = await this.#identity.openSession();
    const { address, pins, bearer } = session;
    const client = new HttpClient({ url: address, pins });
    await client.connect();
    this.#tls = client.tls;
    this.#hearer.onOpen(session.session);
    this.#refreshLater(() => this.#identity.refresh(session));
    return { authorization: `Bearer ${bearer}` };
  }

  #refreshLater(refresh: () => Promise<void>): void {
    this.#refresh?.[Symbol.dispose]();
    if (this.#isClosed) return;
    this.#refresh = this.#loop.wakeAfter(REFRESH_EVERY, () => {
      this.#refreshLater(refresh);
      refresh().catch((error: unknown) => this.#hearer.onFailure((error as Error).message));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#refresh?.[Symbol.dispose]();
    await this.store[Symbol.asyncDispose]();
  }
}

const notEnrolled = (folder: string) =>
  new HostRefused(
    "not-enrolled",
    `Cannot be an agent: expected an enrolled host, received none in ${folder}. Make a token ` +
      "where the operator is (hostler identity token create HOST), and enrol this host with it: " +
      "hostler identity enrol.",
  );
