/** What an agent's driver is given: a disk in memory, and orders that a test answers. */
import type { Journal } from "../../../src/fleet/lifecycle-journal.ts";
import { decodeJournal, encodeJournal } from "../../../src/fleet/lifecycle-journal.ts";
import type { Links } from "../../../src/fleet/lifecycle-recovery.ts";
import type { Build, DeviceStatus, LastWords, RoleHealth } from "../../../src/fleet/protocol.ts";
import { type AgentParts, UpgradeAgent } from "../../../src/fleet/upgrade-agent.ts";
import { falseTimers } from "../false-timers.ts";
import { bootOne, instanceOf, oldBuild, older } from "./life.ts";

/** An order that was given, and is answered by the test. */
export interface Order {
  readonly what: string;
  readonly signal: AbortSignal | undefined;
  answer(value?: unknown): Promise<void>;
  refuse(error: Error): Promise<void>;
}

export class DrivenDevice {
  readonly timers = falseTimers();
  journal: string | undefined;
  links: Links = { current: oldBuild, previous: older };
  /** Thrown by the next write of the journal, or change of links. */
  journalError: Error | undefined;
  linkError: { readonly error: Error; readonly isThere: boolean } | undefined;
  readonly log: string[] = [];
  readonly statuses: DeviceStatus[] = [];
  readonly troubles: string[] = [];
  roles: { readonly look: (roles: readonly RoleHealth[]) => void; isOpen: boolean } | undefined;
  readonly #orders = new Map<string, Order>();
  #instances = 0;

  /** What `current` leads to is started. */
  start(self: Build = this.links.current, boot = bootOne): UpgradeAgent {
    return UpgradeAgent.open(this.#parts(self, boot));
  }

  /** The newest order of that name; it must have been given. */
  order(what: string): Order {
    const found = this.#orders.get(what);
    if (found === undefined) throw new Error(`no order ${what} among ${this.log.join(", ")}`);
    return found;
  }

  #ordered<T>(what: string, signal?: AbortSignal): Promise<T> {
    this.log.push(what);
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#orders.set(what, {
      ...{ what, signal },
      answer: async (value) => {
        resolve(value as T);
        await settled();
      },
      refuse: async (error) => {
        reject(error);
        await settled();
      },
    });
    return promise;
  }

  #parts(self: Build, boot: string): AgentParts {
    const { timers } = this;
    return {
      device: { architecture: "x64", libc: "glibc", executor: "systemd" },
      ...{ self, boot },
      installation: this.#installation(),
      versions: {
        check: (_marker, { signal }) => this.#ordered("check", signal),
        fetch: (_marker, { signal, onProgress }) => {
          onProgress({ bytes: 1, of_bytes: 2, fetched_bytes: 1, again_bytes: 0 });
          return this.#ordered("fetch", signal);
        },
        prove: (_marker, signal) => this.#ordered("prove", signal),
        hash: ({ version }) => this.#ordered(`hash ${version}`),
        findWayBack: ({ version }) => this.#ordered(`find ${version}`),
      },
      candidates: {
        start: () => this.#ordered<"ready" | LastWords>("start"),
        isThere: () => this.#ordered<boolean>("is there"),
        ended: () => this.#ordered<LastWords | null>("ended"),
        stop: () => this.#ordered<LastWords | null>("stop"),
        restartCanonical: () => this.#ordered<void>("restart"),
      },
      roles: { handOver: (build, look) => this.#handOver(build, look) },
      now: timers.now,
      wakeAfter: (wait, call) => timers.loop.wakeAfter(wait, call),
      nextInstance: () => {
        this.#instances += 1;
        return instanceOf(this.#instances);
      },
      onStatus: (status) => {
        const written = decodeJournal(this.journal ?? "");
        const step = written.kind === "ok" ? written.journal.step : 0;
        if (step !== status.step) throw new Error(`${status.step} is told, and ${step} written`);
        this.statuses.push(status);
      },
      onTrouble: (message) => this.troubles.push(message),
    };
  }

  #installation(): AgentParts["installation"] {
    return {
      readJournal: () =>
        this.journal === undefined ? { kind: "absent" } : decodeJournal(this.journal),
      writeJournal: (journal) => this.#write(journal),
      readLinks: () => this.links,
      swap: (links) => this.#change("swap", links),
      swapBack: (links) => this.#change("swap back", links),
      collect: (keep) => {
        this.log.push(`collect ${keep.map(({ version }) => version).join(" ")}`);
      },
    };
  }

  #write(journal: Journal): void {
    const error = this.journalError;
    if (error !== undefined) throw error;
    this.journal = encodeJournal(journal);
    this.log.push(`note ${journal.life.phase}`);
  }

  #change(what: string, { current, previous }: Links): void {
    const failure = this.linkError;
    this.linkError = undefined;
    if (failure?.isThere !== false) this.links = { current, previous };
    this.log.push(what);
    if (failure !== undefined) throw failure.error;
  }

  #handOver(build: Build, look: (roles: readonly RoleHealth[]) => void): Disposable {
    this.log.push(`hand over ${build.version}`);
    const roles = { look, isOpen: true };
    this.roles = roles;
    return {
      [Symbol.dispose]: () => {
        roles.isOpen = false;
      },
    };
  }
}

/** What was resolved is told: an answer passes a few promises on its way. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
}
