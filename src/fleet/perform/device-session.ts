import { openHostSide } from "../../authority/host-side.ts";
import { HostStore, isLasting } from "../../authority/host-store.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { HostRefused } from "../../identity/host.ts";
import type { RemoteStore } from "../../store/wire/remote-store.ts";
import type { Milliseconds } from "../../units/units.ts";

/** Between two attempts of a host that is refused until a person mends it: doubled each time. */
const refusedWaits = { first: 30_000, longest: 600_000 } as const;

/**
 * To open a session. When an operator comes back its whole fleet asks at once, and is answered
 * together: were each given up after ten seconds, none of thousands would come to its end.
 */
const OPEN_TIME: Milliseconds = 60_000;

export interface SessionHearer {
  /** A session was opened. */
  onOpen(session: string): void;
  /** An attempt has failed, and another one follows. */
  onFailure(reason: string): void;
  /** The operator refuses this host, until somebody mends that; it is asked again all the same. */
  onRefused?(reason: string, wait: Milliseconds): void;
  /** Survived, and should be mended. */
  onTrouble(message: string): void;
}

/**
 * The store of the authority at which this host is enrolled, in sessions of the host. Unlike a
 * person's session it waits for an authority that is away, from the first attempt on: what an agent
 * has to do on its host it does without one. One that refuses it is asked again, ever later.
 */
export class DeviceSession implements AsyncDisposable {
  /** The name under which this host is enrolled. */
  readonly device: string;
  readonly store: RemoteStore;
  readonly #sessions: HostStore;
  readonly #hearer: SessionHearer;
  #refusedWait: Milliseconds = refusedWaits.first;

  /**
   * @param folder of the identity
   * @throws HostRefused where this host is not enrolled; FileRefused
   */
  constructor(loop: EventLoop, folder: string, hearer: SessionHearer) {
    const { identity, tlsOf } = openHostSide(folder, (message) => hearer.onTrouble(message));
    const journal = identity.journal();
    if (journal === undefined) throw notEnrolled(folder);
    this.#hearer = hearer;
    this.device = journal.host;
    this.#sessions = new HostStore({
      ...{ identity, loop, tlsOf, credentialsTime: OPEN_TIME },
      onOpen: ({ session }) => {
        this.#refusedWait = refusedWaits.first;
        hearer.onOpen(session);
      },
      onFailure: (reason) => hearer.onFailure(reason),
      onRefused: (error) => this.#refused(error),
    });
    this.store = this.#sessions.connect(journal.address);
  }

  /** A person may let it in again under the same key, or put its files back. */
  #refused(error: unknown): Milliseconds | undefined {
    if (!isLasting(error)) return undefined;
    const wait = this.#refusedWait;
    this.#refusedWait = Math.min(2 * wait, refusedWaits.longest);
    this.#hearer.onRefused?.(error.message, wait);
    return wait;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sessions[Symbol.asyncDispose]();
  }
}

const notEnrolled = (folder: string) =>
  new HostRefused(
    "not-enrolled",
    `Cannot be an agent: expected an enrolled host, received none in ${folder}. Make a token ` +
      "where the operator is (hostler identity token create HOST), and enroll this host with it: " +
      "hostler fleet enroll.",
  );
