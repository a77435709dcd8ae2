/** A fleet under `step`, whose store takes every write at once, and devices that a test plays. */

import { newFleet, step } from "../../../src/fleet/operator/lifecycle.ts";
import { phaseOf } from "../../../src/fleet/operator/lifecycle-device.ts";
import { meant } from "../../../src/fleet/operator/lifecycle-slot.ts";
import type {
  DeviceState,
  FleetEffect,
  FleetEvent,
  FleetState,
  Happening,
  OperatorSettings,
  RolloutRecord,
} from "../../../src/fleet/operator/lifecycle-state.ts";
import { rolloutView } from "../../../src/fleet/operator/lifecycle-view.ts";
import type { Build, DeviceStatus, Marker } from "../../../src/fleet/protocol.ts";
import type {
  DevicePhase,
  RolloutSpec,
  RolloutView,
} from "../../../src/fleet/protocol-operator.ts";
import { builds, heartbeatOf, hex, statusOf } from "./device-life.ts";

export const operatorSettings: OperatorSettings = {
  silentAfter: 35_000,
  lostAfter: 120_000,
  probation: 15_000,
  settle: 70_000,
  planDelay: 1_000,
  planEvery: 15_000,
};

export function specOf(change: Partial<RolloutSpec> = {}): RolloutSpec {
  return {
    version: builds.new.version,
    builds: [{ architecture: "x64", libc: "glibc", digest: builds.new.digest }],
    manifest: "signed",
    sources: ["https://artifacts.example/hostler"],
    rate: null,
    limits: { staging_ms: 600_000, commit_ms: 120_000, canonical_ms: 60_000 },
    select: { devices: null, labels: {} },
    waves: [],
    soak_ms: 0,
    max_unavailable: { by: "count", count: 100 },
    failures_percent: 0,
    windows: [],
    ...change,
  };
}

/** A Thursday, 12:00 UTC. */
export const noon = 12 * 3_600_000;

export class FleetLife {
  now = 1_000_000;
  wall = noon;
  state: FleetState;
  readonly told: Happening[] = [];
  /** Of the last call that was refused. */
  refusal = "";
  hint = "";
  /** While it is false, writes wait in `waiting`. */
  lands = true;
  readonly waiting: FleetEffect[] = [];
  #revision = 10;
  #transactions = 0;
  readonly #sequences = new Map<string, number>();

  constructor(settlesAt?: number) {
    this.state = newFleet(this.now, settlesAt);
    this.tell({ kind: "opened" });
  }

  tell(event: FleetEvent): this {
    const life = this;
    const outcome = step(this.state, event, {
      now: this.now,
      wall: this.wall,
      settings: operatorSettings,
      get nextTransaction() {
        life.#transactions += 1;
        return String(life.#transactions).padStart(32, "0");
      },
    });
    this.refusal = outcome.refusal?.message ?? "";
    this.hint = outcome.refusal?.hint ?? "";
    this.state = outcome.state;
    for (const effect of outcome.effects) this.#perform(effect);
    return this;
  }

  #perform(effect: FleetEffect): void {
    if (effect.kind === "tell") this.told.push(effect.happening);
    else if (this.lands) this.land(effect);
    else this.waiting.push(effect);
  }

  land(effect: FleetEffect): void {
    const revision = this.#next();
    if (effect.kind === "write-marker") {
      this.tell({ kind: "device", device: effect.device, event: { kind: "written", revision } });
    }
    if (effect.kind === "write-labels") {
      this.tell({ kind: "labels-written", device: effect.device, revision });
    }
    if (effect.kind === "write-rollout") {
      this.tell({ kind: "rollout-written", rollout: effect.rollout, revision });
    }
  }

  #next(): number {
    this.#revision += 1;
    return this.#revision;
  }

  /** Time passes, and whoever is named is heard all the while. */
  pass(time: number, ...alive: readonly string[]): this {
    const end = this.now + time;
    while (this.now < end) {
      const passed = Math.min(10_000, end - this.now);
      this.now += passed;
      this.wall += passed;
      for (const name of alive) this.heard(name);
      this.tell({ kind: "time" });
    }
    return this;
  }

  #sequence(key: string): number {
    const next = (this.#sequences.get(key) ?? 0) + 1;
    this.#sequences.set(key, next);
    return next;
  }

  heard(name: string): this {
    const current = this.state.devices.get(name)?.status?.value.current;
    return this.runs(name, current ?? builds.old);
  }

  /** It is heard, as this build. */
  runs(name: string, build: Build): this {
    const heartbeat = heartbeatOf({ sequence: this.#sequence(name), ...build });
    const event = { kind: "canonical", heartbeat, revision: this.#next(), listed: false } as const;
    return this.tell({ kind: "device", device: name, event });
  }

  says(name: string, change: Partial<DeviceStatus> = {}): this {
    const status = statusOf({ step: this.#sequence(`${name} step`), ...change });
    const event = { kind: "status", status, revision: this.#next(), listed: false } as const;
    return this.tell({ kind: "device", device: name, event });
  }

  /** They are there, and run the old version. */
  arrive(...names: readonly string[]): this {
    for (const name of names) this.says(name).heard(name);
    return this;
  }

  /** Its candidate is heard. */
  candidate(name: string): this {
    const { transaction, build } = this.marker(name);
    const heartbeat = heartbeatOf({
      ...{ transaction, ...build, instance: hex("c", 32) },
      sequence: this.#sequence(`${name} candidate`),
    });
    const event = { kind: "candidate", heartbeat, revision: this.#next(), listed: false } as const;
    return this.tell({ kind: "device", device: name, event });
  }

  /** It says how far it is with what it was told. */
  at(name: string, phase: DeviceStatus["phase"], change: Partial<DeviceStatus> = {}): this {
    const { transaction, build } = this.marker(name);
    return this.says(name, {
      ...{ phase, transaction, candidate: { ...build, instance: hex("c", 32) } },
      ...(phase === "done" && { current: build, previous: builds.old }),
      ...change,
    });
  }

  /** Its candidate runs, and was heard for long enough. */
  proves(...names: readonly string[]): this {
    for (const name of names) this.at(name, "cutover-ready").candidate(name);
    this.pass(operatorSettings.probation, ...names);
    for (const name of names) this.candidate(name);
    return this;
  }

  /** From told to done. */
  completes(...names: readonly string[]): this {
    this.proves(...names);
    for (const name of names) this.at(name, "canonical").at(name, "done");
    return this.pass(2_000, ...names);
  }

  fails(name: string): this {
    this.at(name, "aborted", { cause: "candidate", reason: "exited with 1", candidate: null });
    return this.pass(2_000, name);
  }

  device(name: string): DeviceState {
    const device = this.state.devices.get(name);
    if (device === undefined) throw new Error(`There is no device ${name}`);
    return device;
  }

  marker(name: string): Marker {
    const marker = meant(this.device(name).marker);
    if (marker === undefined) throw new Error(`${name} has no marker`);
    return marker;
  }

  phase(name: string): DevicePhase {
    return phaseOf(this.device(name));
  }

  /** The devices that are in one of these phases. */
  in(...phases: readonly DevicePhase[]): string[] {
    const names = [...this.state.devices].filter((one) => phases.includes(phaseOf(one)));
    return names.map(({ name }) => name).sort();
  }

  begin(name: string, change: Partial<RolloutSpec> = {}): this {
    return this.tell({ kind: "create", name, spec: specOf(change) });
  }

  record(name: string): RolloutRecord {
    const rollout = this.state.rollouts.get(name);
    const record = rollout === undefined ? undefined : meant(rollout.record);
    if (record === undefined) throw new Error(`There is no rollout ${name}`);
    return record;
  }

  view(name: string): RolloutView {
    const rollout = this.state.rollouts.get(name);
    const view = rollout === undefined ? undefined : rolloutView(rollout);
    if (view === undefined) throw new Error(`There is no rollout ${name}`);
    return view;
  }

  waits(name: string): string {
    return this.state.rollouts.get(name)?.waitsFor ?? "";
  }
}

export const names = (count: number, prefix = "box"): string[] =>
  Array.from({ length: count }, (_value, index) => `${prefix}-${index}`);
