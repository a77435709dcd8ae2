/** A device that follows the agent's own lifecycle, over a host that is simulated. */
import { deadlineOf, step } from "../../../../src/fleet/lifecycle.ts";
import type { Journal } from "../../../../src/fleet/lifecycle-journal.ts";
import { recover } from "../../../../src/fleet/lifecycle-recovery.ts";
import type { AgentEffect, AgentEvent, AgentState } from "../../../../src/fleet/lifecycle-state.ts";
import { statusOf } from "../../../../src/fleet/lifecycle-status.ts";
import {
  type Build,
  candidateKey,
  canonicalKey,
  type DeviceStatus,
  fleetBuckets,
  HEARTBEAT_EVERY,
  type Heartbeat,
  type LastWords,
  type Marker,
} from "../../../../src/fleet/protocol.ts";
import type { SeededChance } from "../../chance.ts";
import { InvariantBroken } from "./invariants.ts";
import { type Release, releaseOf } from "./releases.ts";
import type { SimulatedStore } from "./store.ts";

export interface DeviceWorld {
  readonly chance: SeededChance;
  readonly store: SimulatedStore;
  readonly isKind: boolean;
  now(): number;
  after(delay: number, act: () => void): void;
  trace(line: string): void;
  draw(): string;
  /** A commit of this was written by some operator. */
  isCommitted(device: string, build: Build): boolean;
}

/** Milliseconds that a piece of work on the host takes, and as much again by chance. */
const WORK = 500;
const RETRY = 3_000;

interface Agent {
  state: AgentState;
  readonly running: Running;
}

interface Running {
  readonly release: Release;
  readonly instance: string;
  sequence: number;
}

export class SimulatedDevice {
  readonly name: string;
  isLinked = true;
  readonly counts = { boots: 0, deaths: 0, done: 0, reverts: 0, holds: 0 };
  readonly #world: DeviceWorld;
  readonly #disk: { current: Build; previous: Build | null; journal: Journal | undefined };
  #agent: Agent | undefined;
  #candidate: (Running & { readonly transaction: string }) | undefined;
  /** What has to be told still. */
  #untold: DeviceStatus | undefined;
  #isTelling = false;

  constructor(name: string, world: DeviceWorld, build: Build) {
    this.name = name;
    this.#world = world;
    this.#disk = { current: build, previous: null, journal: undefined };
    this.#startLater(world.chance.below(HEARTBEAT_EVERY));
  }

  get state(): AgentState | undefined {
    return this.#agent?.state;
  }

  get current(): Build {
    return this.#disk.current;
  }

  // What a test does to it.

  cutPower(): void {
    this.counts.boots += 1;
    this.#candidate = undefined;
    this.#agent = undefined;
    this.#startLater(2_000 + this.#world.chance.below(60_000));
  }

  killAgent(): void {
    this.counts.deaths += 1;
    this.#agent = undefined;
    this.#startLater(1_000);
  }

  killCandidate(): void {
    const instance = this.#candidate?.instance;
    if (instance === undefined) return;
    this.#candidate = undefined;
    this.#gone(instance, wordsOf("ended by SIGKILL"));
  }

  link(isLinked: boolean): void {
    if (this.isLinked === isLinked) return;
    this.isLinked = isLinked;
    if (isLinked) this.resynchronize();
  }

  /** What the store has is read anew, and what this device knows is told anew. */
  resynchronize(): void {
    if (this.#agent === undefined) return;
    this.#tellStatus(this.#agent.state);
    this.#world.after(this.#world.chance.below(200), () => {
      const entry = this.#world.store.get(fleetBuckets.markers, this.name);
      if (entry !== undefined && this.isLinked) this.hearMarker(entry.value as Marker);
    });
  }

  hearMarker(marker: Marker): void {
    if (this.isLinked) this.#tell({ kind: "marker", marker });
  }

  // Its life.

  get #context() {
    const world = this.#world;
    return {
      now: world.now(),
      executor: "systemd",
      get nextInstance() {
        return world.draw();
      },
    } as const;
  }

  get #boot(): string {
    return `00000000-0000-4000-8000-${String(this.counts.boots).padStart(12, "0")}`;
  }

  #startLater(delay: number): void {
    const { boots, deaths } = this.counts;
    this.#world.after(delay, () => {
      const isOther = boots !== this.counts.boots || deaths !== this.counts.deaths;
      if (!isOther && this.#agent === undefined) this.#start();
    });
  }

  #start(): void {
    const { current, previous, journal } = this.#disk;
    const found = {
      journal:
        journal === undefined ? ({ kind: "absent" } as const) : { kind: "ok" as const, journal },
      links: { current, previous },
      self: current,
      boot: this.#boot,
    };
    const recovered = recover(found, this.#context);
    if (recovered.kind === "refused") throw new InvariantBroken(recovered.reason);
    const running = { release: releaseOf(current), instance: this.#world.draw(), sequence: 0 };
    this.#agent = { state: recovered.state, running };
    this.#perform(recovered.effects);
    this.#beat("canonical", running.instance);
    this.resynchronize();
    this.#watchDeadline();
  }

  #tell(event: AgentEvent, to = this.#agent): void {
    const agent = this.#agent;
    if (agent === undefined || to !== agent) return;
    const before = agent.state.life.phase;
    const { state, effects } = step(agent.state, event, this.#context);
    agent.state = state;
    const { phase } = state.life;
    if (before !== phase) {
      this.#world.trace(`${this.name}: ${before} → ${phase}`);
      if (phase === "done") this.counts.done += 1;
      if (phase === "held") this.counts.holds += 1;
      if (phase === "reverting") this.counts.reverts += 1;
    }
    this.#perform(effects);
    this.#watchDeadline();
  }

  #watchDeadline(): void {
    const agent = this.#agent;
    const deadline = agent === undefined ? undefined : deadlineOf(agent.state);
    if (agent === undefined || deadline === undefined) return;
    this.#world.after(Math.max(1, deadline - this.#world.now()), () => {
      if (agent === this.#agent && deadlineOf(agent.state) === deadline) {
        this.#tell({ kind: "time" }, agent);
      }
    });
  }

  #perform(effects: readonly AgentEffect[]): void {
    const agent = this.#agent;
    for (const effect of effects) {
      if (agent === undefined || agent !== this.#agent) return;
      if (effect.kind === "note") {
        this.#disk.journal = effect.journal;
        this.#tellStatus(agent.state);
      } else this.#carryOut(effect);
    }
  }

  #carryOut(effect: Exclude<AgentEffect, { readonly kind: "note" }>): void {
    const answer = answerOf(effect);
    if (answer !== undefined) this.#later(answer);
    switch (effect.kind) {
      case "start-candidate":
        this.#startCandidate(effect.marker, effect.instance);
        break;
      case "find-candidate":
        if (this.#candidate?.instance !== effect.instance) this.#gone(effect.instance, null);
        break;
      case "stop-candidate":
        if (this.#candidate?.instance === effect.instance) this.#candidate = undefined;
        this.#gone(effect.instance, wordsOf("exited with 0"));
        break;
      case "swap":
      case "swap-back":
        this.#lead(effect.current, effect.previous);
        break;
      case "restart-canonical":
        this.#agent = undefined;
        this.#startLater(WORK);
        break;
      case "hand-over":
        this.#lookAtRoles(this.#agent);
        break;
      default:
    }
  }

  #lead(current: Build, previous: Build | null): void {
    const isOld = this.#disk.previous?.digest === current.digest;
    if (!isOld && !this.#world.isCommitted(this.name, current)) {
      throw new InvariantBroken(`${this.name} runs ${current.version}, which nobody committed`);
    }
    this.#disk.current = current;
    this.#disk.previous = previous;
  }

  #later(event: AgentEvent): void {
    const agent = this.#agent;
    const delay = WORK + this.#world.chance.below(WORK);
    this.#world.after(delay, () => this.#tell(event, agent));
  }

  #startCandidate({ build, transaction }: Marker, instance: string): void {
    const release = releaseOf(build);
    const isBad = release.badIn > 0 && this.#world.chance.happens(release.badIn);
    this.#candidate = { release, instance, transaction, sequence: 0 };
    this.#world.after(WORK, () => {
      if (this.#candidate?.instance !== instance) return;
      if (isBad && release.fails === "crashes") {
        this.#candidate = undefined;
        this.#gone(instance, wordsOf("exited with 1"));
        return;
      }
      this.#tell({ kind: "candidate-ready", instance });
      if (!isBad || release.fails !== "silent") this.#beat("candidate", instance);
    });
  }

  #gone(instance: string, lastWords: LastWords | null): void {
    this.#later({ kind: "candidate-ended", instance, lastWords });
  }

  #lookAtRoles(agent: Agent | undefined): void {
    this.#world.after(1_000, () => {
      if (agent === undefined || agent !== this.#agent) return;
      const { release } = agent.running;
      const healthy = !(release.fails === "mute" && release.badIn > 0);
      const { digest } = release.build;
      const role = { role: "vm", digest: healthy ? digest : null, healthy, reason: null };
      this.#tell({ kind: "roles", roles: [role] }, agent);
      const { phase } = agent.state.life;
      if (["swapped", "canonical", "reverting"].includes(phase)) this.#lookAtRoles(agent);
    });
  }

  #beat(who: "canonical" | "candidate", instance: string): void {
    const running = who === "canonical" ? this.#agent?.running : this.#candidate;
    if (running?.instance !== instance) return;
    if (this.isLinked) {
      running.sequence += 1;
      const heartbeat: Heartbeat = {
        protocol: 1,
        instance,
        ...running.release.build,
        transaction: who === "candidate" ? (this.#candidate?.transaction ?? null) : null,
        boot: this.#boot,
        sequence: running.sequence,
        roles: [],
      };
      const key = who === "canonical" ? canonicalKey(this.name) : candidateKey(this.name);
      this.#world.after(1 + this.#world.chance.below(50), () => {
        if (!this.isLinked) return;
        const write = { value: heartbeat, writeId: this.#world.draw() };
        this.#world.store.put(fleetBuckets.heartbeats, key, write);
        if (who === "canonical") this.#tell({ kind: "heard", who });
        else this.#tell({ kind: "heard", who, instance });
      });
    }
    this.#world.after(HEARTBEAT_EVERY, () => this.#beat(who, instance));
  }

  // What it tells.

  #tellStatus(state: AgentState): void {
    const device = { architecture: "x64", libc: "glibc", executor: "systemd" } as const;
    this.#untold = statusOf(state, device);
    if (!this.#isTelling) this.#tellOn();
  }

  #tellOn(): void {
    const status = this.#untold;
    if (status === undefined || !this.isLinked || this.#agent === undefined) {
      this.#isTelling = false;
      return;
    }
    this.#isTelling = true;
    this.#untold = undefined;
    const write = { value: status, writeId: this.#world.draw() };
    this.#world.store.ask(fleetBuckets.statuses, this.name, write, (answer) => {
      if (answer.kind === "landed") {
        this.#tellOn();
        return;
      }
      this.#untold ??= status;
      this.#world.after(RETRY, () => this.#tellOn());
    });
  }
}

/** Of work that this host never fails at. */
function answerOf(effect: AgentEffect): AgentEvent | undefined {
  switch (effect.kind) {
    case "check": {
      const { ticket, floor, metadataVersion } = effect;
      return { kind: "accepted", ticket, floor, metadataVersion };
    }
    case "fetch":
      return { kind: "fetched", ticket: effect.ticket };
    case "prove":
      return { kind: "proved", ticket: effect.ticket };
    case "hash":
      return { kind: "intact", ticket: effect.ticket };
    case "find-way-back":
      return { kind: "way-back", ticket: effect.ticket };
    case "swap":
    case "swap-back":
      return { kind: "swapped", ticket: effect.ticket };
    default:
      return undefined;
  }
}

const wordsOf = (ending: string): LastWords => ({
  ...{ ending, log: "" },
  ...{ processor_seconds: null, memory_peak_bytes: null },
});
