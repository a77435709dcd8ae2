/**
 * A device of the fleet's bench: its identity, session, link and agent are the product's own. What
 * it would have on a disk it has in memory; what it fetches, proves and starts is there at once.
 */
import { randomBytes } from "node:crypto";
import { bootClockNow } from "../../src/event-loop/clock.ts";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import { DeviceLink, HeartbeatLink } from "../../src/fleet/device-link.ts";
import type { Journal } from "../../src/fleet/lifecycle-journal.ts";
import { DeviceSession } from "../../src/fleet/perform/device-session.ts";
import { type Build, fleetBuckets, type RoleHealth } from "../../src/fleet/protocol.ts";
import { type AgentCandidates, UpgradeAgent } from "../../src/fleet/upgrade-agent.ts";
import type { Store } from "../../src/store/store.ts";

/** What every device runs before the rollout. */
export const firstBuild: Build = { version: "1.0.0", digest: "a".repeat(64) };
const boot = "00000000-0000-4000-8000-000000000001";
/** As the agent's own. */
const LOOK_EVERY = 5_000;

export interface DeviceHearer {
  /** A heartbeat was acknowledged so many milliseconds after it was written. */
  onBeat(taken: number): void;
  /** The link was lost, or could not be had. */
  onFailure(reason: string): void;
  onTrouble(message: string): void;
}

const newInstance = () => randomBytes(16).toString("hex");

export class SimulatedDevice implements AsyncDisposable {
  readonly #loop: EventLoop;
  readonly #hearer: DeviceHearer;
  readonly #session: DeviceSession;
  readonly #store: Store;
  #links: { current: Build; previous: Build | null } = { current: firstBuild, previous: null };
  #journal: Journal | undefined;
  #candidate: { readonly instance: string; readonly link: Disposable; end(): void } | undefined;
  #canonical: Disposable | undefined;

  /** @param folder of its identity, where it is enrolled */
  constructor(loop: EventLoop, folder: string, hearer: DeviceHearer) {
    this.#loop = loop;
    this.#hearer = hearer;
    this.#session = new DeviceSession(loop, folder, {
      onOpen: () => {},
      onFailure: (reason) => hearer.onFailure(reason),
      onTrouble: (message) => hearer.onTrouble(message),
    });
    this.#store = timed(this.#session.store, (taken) => hearer.onBeat(taken));
    this.#start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#candidate?.end();
    this.#canonical?.[Symbol.dispose]();
    await this.#session[Symbol.asyncDispose]();
  }

  /** The canonical agent, of what `current` leads to. */
  #start(): void {
    const self = this.#links.current;
    const onTrouble = (message: string, cause: unknown) =>
      this.#hearer.onTrouble(`${message}: ${String(cause)}`);
    let link: DeviceLink | undefined;
    const agent = UpgradeAgent.open({
      ...{ self, boot, onTrouble },
      device: { architecture: "x64", libc: "glibc", executor: "supervise" },
      installation: {
        readJournal: () =>
          this.#journal === undefined ? { kind: "absent" } : { kind: "ok", journal: this.#journal },
        writeJournal: (journal) => {
          this.#journal = journal;
        },
        readLinks: () => this.#links,
        swap: (links) => {
          this.#links = links;
        },
        swapBack: (links) => {
          this.#links = links;
        },
        collect: () => {},
      },
      versions: {
        check: async () => ({ floor: null, metadataVersion: 1 }),
        fetch: async () => {},
        prove: async () => {},
        hash: async () => {},
        findWayBack: async () => {},
      },
      candidates: this.#candidates(),
      roles: {
        handOver: (_build, onLook) => {
          const look = () => {
            wake = this.#loop.wakeAfter(LOOK_EVERY, look);
            onLook([roleOf(self)]);
          };
          let wake = this.#loop.wakeAfter(0, look);
          return { [Symbol.dispose]: () => wake[Symbol.dispose]() };
        },
      },
      now: () => Math.floor(bootClockNow()),
      wakeAfter: (wait, call) => this.#loop.wakeAfter(wait, call),
      nextInstance: newInstance,
      onStatus: (status) => {
        link?.beatEvery(agent.pace.every);
        link?.tellStatus(status);
      },
    });
    link = new DeviceLink({
      ...this.#parts(self, { instance: newInstance(), transaction: null }),
      onHeard: () => agent.tell({ kind: "heard", who: "canonical" }),
      onMarker: (marker) => agent.tell({ kind: "marker", marker }),
      onCandidateHeard: (instance) => agent.tell({ kind: "heard", who: "candidate", instance }),
    });
    link.tellStatus(agent.status);
    const ending = link;
    this.#canonical = {
      [Symbol.dispose]: () => {
        agent[Symbol.dispose]();
        ending[Symbol.dispose]();
      },
    };
  }

  #candidates(): AgentCandidates {
    const waiting = new Map<string, () => void>();
    const stop = async (instance: string) => {
      if (this.#candidate?.instance === instance) this.#candidate.end();
      waiting.get(instance)?.();
      return null;
    };
    return {
      start: async ({ marker, instance }) => {
        this.#candidate?.end();
        const { transaction, build, limits } = marker;
        const parts = this.#parts(build, { instance, transaction });
        const link = new HeartbeatLink(
          { ...parts, onHeard: () => {} },
          "candidate",
          limits.heartbeat_ms,
        );
        const end = () => {
          link[Symbol.dispose]();
          this.#candidate = undefined;
        };
        this.#candidate = { instance, link, end };
        return "ready";
      },
      isThere: async (instance) => this.#candidate?.instance === instance,
      ended: async (instance) => {
        const { promise, resolve } = Promise.withResolvers<void>();
        waiting.set(instance, resolve);
        await promise;
        return null;
      },
      stop,
      restartCanonical: async () => {
        this.#canonical?.[Symbol.dispose]();
        this.#start();
      },
    };
  }

  #parts(build: Build, who: { readonly instance: string; readonly transaction: string | null }) {
    const heartbeat = { ...who, ...build, boot, roles: [roleOf(build)] };
    return {
      ...{ store: this.#store, loop: this.#loop, device: this.#session.device },
      heartbeat: () => heartbeat,
      onTrouble: (message: string, cause: unknown) =>
        this.#hearer.onTrouble(`${message}: ${String(cause)}`),
    };
  }
}

const roleOf = ({ digest }: Build): RoleHealth => ({
  ...{ role: "fleet agent", digest, healthy: true, reason: null },
});

/** A store whose heartbeats are timed, from the call to the acknowledgement. */
function timed(store: Store, onBeat: (taken: number) => void): Store {
  const put: Store["put"] = async (bucket, key, value, options) => {
    if (bucket !== fleetBuckets.heartbeats) return await store.put(bucket, key, value, options);
    const begun = performance.now();
    const revision = await store.put(bucket, key, value, options);
    onBeat(performance.now() - begun);
    return revision;
  };
  return new Proxy(store, {
    get: (inner, name) => {
      if (name === "put") return put;
      const value = Reflect.get(inner, name) as unknown;
      return typeof value === "function" ? value.bind(inner) : value;
    },
  });
}
