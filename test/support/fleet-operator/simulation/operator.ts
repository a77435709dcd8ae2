/** An operator's process over a simulated store: it reads back what it does not know, and dies. */
import { newFleet, step } from "../../../../src/fleet/operator/lifecycle.ts";
import { noPast } from "../../../../src/fleet/operator/lifecycle-past.ts";
import type {
  DeviceEvent,
  FleetEffect,
  FleetEvent,
  FleetState,
  OperatorSettings,
  RolloutRecord,
  Step,
} from "../../../../src/fleet/operator/lifecycle-state.ts";
import {
  type DeviceStatus,
  fleetBuckets,
  type Heartbeat,
  type Marker,
} from "../../../../src/fleet/protocol.ts";
import { type Labels, operatorLimits } from "../../../../src/fleet/protocol-operator.ts";
import type { SeededChance } from "../../chance.ts";
import type { SimulatedEntry, SimulatedStore } from "./store.ts";

export interface OperatorFaults {
  /** A device that is heard at all is taken for its candidate. */
  readonly mistakesCanonical?: boolean;
  /** What is not answered is waited for, and not read back. */
  readonly forgetsLost?: boolean;
  /** A rollout has more places than it should. */
  readonly givesMorePlaces?: boolean;
  /** What becomes of a device is not kept for the rollout that gave it. */
  readonly forgetsPast?: boolean;
}

export interface OperatorWorld {
  readonly chance: SeededChance;
  readonly store: SimulatedStore;
  readonly isKind: boolean;
  readonly settings: OperatorSettings;
  readonly faults: OperatorFaults;
  now(): number;
  after(delay: number, act: () => void): void;
  trace(line: string): void;
  draw(): string;
  /** Before a write is sent; what is wrong with it is thrown. */
  onMarker(device: string, marker: Marker, operator: SimulatedOperator): void;
}

type WriteEffect = Extract<FleetEffect, { readonly write: unknown }>;

const buckets = {
  "write-marker": fleetBuckets.markers,
  "write-labels": fleetBuckets.labels,
  "write-rollout": fleetBuckets.rollouts,
} as const;

/** Nobody else has room in it. */
const fullPast = Array.from({ length: operatorLimits.past }, (_value, index) => ({
  ...{ device: `ghost-${index}`, standing: "failed", reason: "", by: null },
}));

const RETRY = 2_000;
const INCARNATION = "incarnation";

export class SimulatedOperator {
  state: FleetState | undefined;
  /** Heartbeats of candidates that this process has heard as they were sent. */
  readonly heard = new Set<string>();
  readonly counts = { deaths: 0, writes: 0, conflicts: 0, readBacks: 0 };
  readonly #world: OperatorWorld;
  #life = 0;
  #wakeAt: number | undefined;

  constructor(world: OperatorWorld) {
    this.#world = world;
    world.store.watch((bucket, key, entry) => {
      if (this.state !== undefined && entry !== undefined) this.#hear(bucket, key, entry, false);
    });
  }

  start(): void {
    if (this.state !== undefined) return;
    const { store, settings } = this.#world;
    this.#life += 1;
    this.heard.clear();
    const { incarnation } = store;
    const known = store.get(fleetBuckets.operator, INCARNATION)?.value ?? incarnation;
    const settlesAt = known === incarnation ? undefined : this.#world.now() + settings.settle;
    this.state = newFleet(this.#world.now(), settlesAt);
    this.#world.trace(
      `operator ${this.#life}${settlesAt === undefined ? "" : ", of an older store"}`,
    );
    const writeId = this.#world.draw();
    store.put(fleetBuckets.operator, INCARNATION, { value: incarnation, writeId });
    this.#list();
    this.tell({ kind: "opened" });
  }

  /** All that the store has, as a first list tells it. */
  #list(): void {
    const { store } = this.#world;
    for (const bucket of Object.values(fleetBuckets)) {
      for (const [key, entry] of store.list(bucket)) this.#hear(bucket, key, entry, true);
    }
  }

  kill(): void {
    if (this.state === undefined) return;
    this.counts.deaths += 1;
    this.#world.trace("operator killed");
    this.state = undefined;
    this.#wakeAt = undefined;
    this.#world.after(this.#world.chance.below(90_000), () => this.start());
  }

  /** The store says that all of it comes anew. */
  reset(): void {
    if (this.state === undefined) return;
    const { store } = this.#world;
    this.#list();
    const { devices = [], rollouts = new Map() } = this.state ?? {};
    for (const { name, marker } of devices) {
      if (marker.stored === undefined) continue;
      if (store.get(fleetBuckets.markers, name) !== undefined) continue;
      this.#tellDevice(name, { kind: "found", value: undefined, revision: 0 });
    }
    for (const [name, { record }] of rollouts) {
      if (record.stored === undefined) continue;
      if (store.get(fleetBuckets.rollouts, name) !== undefined) continue;
      this.tell({ kind: "rollout-found", rollout: name, value: undefined, revision: 0 });
    }
  }

  #hear(bucket: string, key: string, entry: SimulatedEntry, listed: boolean): void {
    const { value, revision } = entry;
    switch (bucket) {
      case fleetBuckets.statuses:
        return void this.#tellDevice(key, {
          ...{ kind: "status", status: value as DeviceStatus, revision, listed },
        });
      case fleetBuckets.heartbeats:
        return void this.#hearHeartbeat(key, entry, listed);
      case fleetBuckets.markers:
        if (!listed) return;
        return void this.#tellDevice(key, { kind: "found", value: value as Marker, revision });
      case fleetBuckets.labels:
        if (!listed) return;
        return void this.tell({
          ...{ kind: "labels-found", device: key, value: value as Labels, revision },
        });
      case fleetBuckets.rollouts:
        if (!listed) return;
        return void this.tell({
          ...{ kind: "rollout-found", rollout: key, value: value as RolloutRecord, revision },
        });
      default:
    }
  }

  #hearHeartbeat(key: string, entry: SimulatedEntry, listed: boolean): void {
    const heartbeat = entry.value as Heartbeat;
    const at = key.lastIndexOf(".");
    const [device, who] = [key.slice(0, at), key.slice(at + 1) as "canonical" | "candidate"];
    if (who === "candidate" && !listed) this.heard.add(keyOfCandidate(device, heartbeat));
    const { revision } = entry;
    this.#tellDevice(device, { kind: who, heartbeat, revision, listed });
    if (who === "canonical" && this.#world.faults.mistakesCanonical === true) {
      const { transaction = null, candidate = null } =
        this.state?.devices.get(device)?.status?.value ?? {};
      if (candidate?.instance == null) return;
      const { version, digest, instance } = candidate;
      const mistaken = { ...heartbeat, version, digest, instance, transaction };
      this.#tellDevice(device, { kind: "candidate", heartbeat: mistaken, revision, listed });
    }
  }

  #tellDevice(device: string, event: DeviceEvent): void {
    this.tell({ kind: "device", device, event });
  }

  tell(event: FleetEvent): Step | undefined {
    if (this.state === undefined) return undefined;
    const world = this.#world;
    const outcome = step(this.state, event, {
      now: world.now(),
      wall: world.now(),
      settings: world.settings,
      get nextTransaction() {
        return world.draw();
      },
    });
    this.state = outcome.state;
    if (world.faults.forgetsPast === true) this.#forgetPast();
    for (const effect of outcome.effects) this.#perform(effect);
    this.#wake(outcome.wakeAt);
    return outcome;
  }

  /** As though all of them had been counted, and none named. */
  #forgetPast(): void {
    for (const { record } of this.state?.rollouts.values() ?? []) {
      const { stored } = record;
      if (stored !== undefined) Object.assign(stored, { past: { ...noPast, named: fullPast } });
    }
  }

  #perform(effect: FleetEffect): void {
    if (effect.kind === "tell") this.#world.trace(`operator: ${effect.happening.message}`);
    if (!("write" in effect) || this.state === undefined) return;
    this.counts.writes += 1;
    if (effect.kind === "write-marker" && effect.write.value !== undefined) {
      this.#world.onMarker(effect.device, effect.write.value, this);
    }
    const { chance, isKind } = this.#world;
    // Killed before it is sent, or after.
    const fate = isKind ? 1 : chance.random();
    if (fate > 0.004) this.#send(effect, this.#world.draw());
    if (fate < 0.008) this.kill();
  }

  /** One write id for all its tries, until it is known what came of it. */
  #send(effect: WriteEffect, writeId: string): void {
    const { store } = this.#world;
    const bucket = buckets[effect.kind];
    const key = effect.kind === "write-rollout" ? effect.rollout : effect.device;
    const { value, expect } = effect.write;
    const life = this.#life;
    store.ask(bucket, key, { value, writeId, expect }, (answer) => {
      if (life !== this.#life || this.state === undefined) return;
      switch (answer.kind) {
        case "landed":
          this.#landed(effect, answer.revision);
          break;
        case "conflict":
          this.counts.conflicts += 1;
          this.#found(effect, answer.entry);
          break;
        case "lost":
          if (this.#world.faults.forgetsLost !== true) this.#readBack(effect, writeId);
      }
    });
  }

  #readBack(effect: WriteEffect, writeId: string): void {
    const { store } = this.#world;
    const life = this.#life;
    this.#world.after(RETRY, () => {
      if (life !== this.#life || this.state === undefined) return;
      this.counts.readBacks += 1;
      const key = effect.kind === "write-rollout" ? effect.rollout : effect.device;
      const there = store.get(buckets[effect.kind], key);
      if (there?.writeId === writeId) this.#landed(effect, there.revision);
      else this.#send(effect, writeId);
    });
  }

  #landed(effect: WriteEffect, revision: number): void {
    if (effect.kind === "write-marker") {
      this.#tellDevice(effect.device, { kind: "written", revision });
    } else if (effect.kind === "write-rollout") {
      this.tell({ kind: "rollout-written", rollout: effect.rollout, revision });
    } else this.tell({ kind: "labels-written", device: effect.device, revision });
  }

  #found(effect: WriteEffect, entry: SimulatedEntry | undefined): void {
    const value = entry?.value;
    const revision = entry?.revision ?? 0;
    if (effect.kind === "write-marker") {
      const marker = value as Marker | undefined;
      this.#tellDevice(effect.device, { kind: "found", value: marker, revision });
    } else if (effect.kind === "write-rollout") {
      const record = value as RolloutRecord | undefined;
      this.tell({ kind: "rollout-found", rollout: effect.rollout, value: record, revision });
    } else {
      const labels = value as Labels | undefined;
      this.tell({ kind: "labels-found", device: effect.device, value: labels, revision });
    }
  }

  #wake(at: number | undefined): void {
    if (at === undefined || at === this.#wakeAt) return;
    this.#wakeAt = at;
    this.#world.after(Math.max(0, at - this.#world.now()), () => {
      if (at !== this.#wakeAt) return;
      this.#wakeAt = undefined;
      this.tell({ kind: "time" });
    });
  }
}

export const keyOfCandidate = (device: string, heartbeat: Omit<Heartbeat, "roles">): string =>
  [device, heartbeat.instance, heartbeat.transaction, heartbeat.version, heartbeat.digest].join(
    " ",
  );
