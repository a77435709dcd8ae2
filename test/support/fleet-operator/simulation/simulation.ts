/**
 * A deterministic simulation of a fleet: the operator's own decisions and the agent's own
 * lifecycle, over hosts that lose power, agents and candidates that die, links that are cut, a
 * store that loses, doubles, delays, forgets and goes back, and an operator that is killed between
 * two writes. The same seed gives the same run.
 *
 * No commit is written without the candidate's own heartbeat, heard by the process that writes it.
 * No marker is written over another rollout's before what that one led to is durable.
 * No version runs as the canonical one that nobody committed. No rollout has more devices at once
 * on their way from the commit to the end than may be unavailable. After some time of trouble the
 * world becomes kind: then every rollout ends, and every device runs what it is to run.
 */
import { phaseOf } from "../../../../src/fleet/operator/lifecycle-device.ts";
import { meant } from "../../../../src/fleet/operator/lifecycle-slot.ts";
import type { OperatorSettings } from "../../../../src/fleet/operator/lifecycle-state.ts";
import { type Build, fleetBuckets, type Marker } from "../../../../src/fleet/protocol.ts";
import {
  type Amount,
  operatorLimits,
  type RolloutSpec,
} from "../../../../src/fleet/protocol-operator.ts";
import { SeededChance } from "../../chance.ts";
import { Agenda } from "../../simulation/agenda.ts";
import { type DeviceWorld, SimulatedDevice } from "./device.ts";
import { InvariantBroken } from "./invariants.ts";
import {
  keyOfCandidate,
  type OperatorFaults,
  type OperatorWorld,
  SimulatedOperator,
} from "./operator.ts";
import { type Release, releases } from "./releases.ts";
import { SimulatedStore } from "./store.ts";

export { InvariantBroken } from "./invariants.ts";

export interface FleetSimulationResult {
  readonly events: number;
  readonly done: number;
  readonly reverts: number;
  readonly holds: number;
  readonly powerCuts: number;
  readonly operatorDeaths: number;
  readonly rewinds: number;
  readonly forgotten: number;
  readonly lostAnswers: number;
  readonly conflicts: number;
  readonly commits: number;
  readonly paused: number;
  readonly mostUnavailable: number;
  /** Markers that were written over another rollout's. */
  readonly remembered: number;
}

const TRACE_LENGTH = 200;
const MINUTE = 60_000;

const settings: OperatorSettings = {
  silentAfter: 35_000,
  lostAfter: 120_000,
  probation: 15_000,
  settle: 70_000,
  planDelay: 1_000,
  planEvery: 15_000,
};

export interface FleetSimulationOptions {
  readonly seed: number;
  readonly devices: number;
  /** Minutes: of trouble, and then kind; and until the last rollout has ended. */
  readonly trouble: number;
  readonly calm: number;
  readonly end: number;
  readonly faults?: OperatorFaults;
}

export function simulateFleet(options: FleetSimulationOptions): FleetSimulationResult {
  const simulation = new Simulation(options);
  try {
    return simulation.run();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const trace = simulation.traced.slice(-TRACE_LENGTH).join("\n");
    const replay = `SIMULATION_SEED=${options.seed} replays it`;
    throw new Error(`${reason}\n${trace}\nseed ${options.seed}: ${reason}; ${replay}`, {
      cause: error,
    });
  }
}

class Simulation implements DeviceWorld, OperatorWorld {
  readonly chance: SeededChance;
  readonly store: SimulatedStore;
  readonly settings = settings;
  readonly faults: OperatorFaults;
  readonly traced: string[] = [];
  isKind = false;
  readonly #agenda: Agenda;
  readonly #trouble: number;
  readonly #calm: number;
  readonly #end: number;
  readonly #devices = new Map<string, SimulatedDevice>();
  readonly #names: readonly string[];
  readonly #operator: SimulatedOperator;
  /** DEVICE DIGEST of each commit that was ever written. */
  readonly #committed = new Set<string>();
  /** Whose marker a store has forgotten, or taken back, while it was under way. */
  readonly #orphans = new Set<string>();
  readonly #most = new Map<string, number>();
  #rollouts = 0;
  #drawn = 0;
  #counts = { events: 0, commits: 0, paused: 0, mostUnavailable: 0, remembered: 0 };

  constructor(options: FleetSimulationOptions) {
    this.chance = new SeededChance(options.seed);
    this.faults = options.faults ?? {};
    this.#trouble = options.trouble * MINUTE;
    this.#calm = options.calm * MINUTE;
    this.#end = options.end * MINUTE;
    this.#agenda = new Agenda(20 * options.devices + 10_000);
    this.store = new SimulatedStore(this, () => this.now());
    this.store.onReset = () => this.#reset();
    this.#operator = new SimulatedOperator(this);
    this.#names = Array.from({ length: options.devices }, (_value, index) => `device-${index}`);
    this.store.watch((bucket, key, entry) => {
      if (bucket !== fleetBuckets.markers || entry === undefined) return;
      this.#devices.get(key)?.hearMarker(entry.value as Marker);
    });
  }

  now(): number {
    return this.#agenda.now;
  }

  after(delay: number, act: () => void): void {
    this.#agenda.after(delay, act);
  }

  trace(line: string): void {
    this.traced.push(`${this.now()} ${line}`);
    if (this.traced.length > 20 * TRACE_LENGTH) this.traced.splice(0, 10 * TRACE_LENGTH);
  }

  draw(): string {
    this.#drawn += 1;
    return this.#drawn.toString(16).padStart(32, "0");
  }

  isCommitted(device: string, { digest }: Build): boolean {
    return this.#committed.has(`${device} ${digest}`);
  }

  run(): FleetSimulationResult {
    for (const name of this.#names) {
      this.#devices.set(name, new SimulatedDevice(name, this, releases.first.build));
    }
    this.#operator.start();
    this.#personLater();
    this.#troubleLater();
    this.#pass(this.#trouble);
    this.#becomeKind();
    this.#pass(this.#calm);
    this.#finish();
    this.#pass(this.#end);
    this.#checkEnd();
    return this.#result();
  }

  #pass(time: number): void {
    const end = this.now() + time;
    while ((this.#agenda.nextTime ?? end) < end && this.#agenda.advance()) {
      this.#counts.events += 1;
    }
  }

  #result(): FleetSimulationResult {
    const devices = [...this.#devices.values()];
    const total = (count: (one: SimulatedDevice) => number) =>
      devices.reduce((sum, one) => sum + count(one), 0);
    return {
      ...this.#counts,
      done: total(({ counts }) => counts.done),
      reverts: total(({ counts }) => counts.reverts),
      holds: total(({ counts }) => counts.holds),
      powerCuts: total(({ counts }) => counts.boots),
      operatorDeaths: this.#operator.counts.deaths,
      rewinds: this.store.counts.rewinds,
      forgotten: this.store.counts.forgotten,
      lostAnswers: this.store.counts.lost,
      conflicts: this.#operator.counts.conflicts,
    };
  }

  // The world's troubles.

  #troubleLater(): void {
    const often = Math.max(50, 60_000 / this.#names.length);
    this.after(500 + this.chance.below(often * 8), () => {
      if (this.isKind) return;
      this.#makeTrouble();
      this.#troubleLater();
    });
  }

  #makeTrouble(): void {
    const device = this.#devices.get(this.chance.pick(this.#names));
    if (device === undefined) return;
    switch (this.chance.below(8)) {
      case 0:
        device.cutPower();
        break;
      case 1:
        device.killAgent();
        break;
      case 2:
        device.killCandidate();
        break;
      case 3:
      case 4:
        device.link(false);
        this.after(this.chance.below(400_000), () => device.link(true));
        break;
      case 5:
        if (this.chance.happens(0.3)) this.#operator.kill();
        break;
      case 6:
        if (this.chance.happens(0.2)) this.#storeTrouble();
        break;
      default:
        if (this.chance.happens(0.3)) this.store.backUp();
    }
  }

  /** A store is put back while its operator is stopped; one that was killed forgets. */
  #storeTrouble(): void {
    if (this.chance.happens(0.5)) this.#operator.kill();
    const before = this.#underWay();
    if (this.#operator.state !== undefined || this.chance.happens(0.5)) this.store.forget();
    else this.store.rewind();
    for (const [device, transaction] of before) {
      const entry = this.store.get(fleetBuckets.markers, device)?.value as Marker | undefined;
      if (entry?.transaction !== transaction || entry.commit === null)
        this.#orphans.add(transaction);
    }
  }

  #reset(): void {
    this.#operator.reset();
    for (const device of this.#devices.values()) if (device.isLinked) device.resynchronize();
  }

  #becomeKind(): void {
    this.isKind = true;
    this.trace("the world is kind from now on");
    for (const device of this.#devices.values()) device.link(true);
    this.#operator.start();
    this.after(100_000, () => this.#operator.start());
  }

  // Somebody who rolls out, looks, and changes their mind.

  #personLater(): void {
    this.after(20_000 + this.chance.below(240_000), () => {
      if (!this.isKind) this.#changeSomething();
      this.#seeToPaused();
      this.#personLater();
    });
  }

  #changeSomething(): void {
    const open = this.#rolloutsIn("running", "paused");
    const rollout = open.length === 0 ? undefined : this.chance.pick(open);
    const choice = this.chance.below(6);
    if (rollout === undefined || choice < 2) this.#create();
    else if (choice === 2) this.#operator.tell({ kind: "pause", rollout, reason: "a look" });
    else if (choice === 3) this.#operator.tell({ kind: "abort", rollout, reason: "no more" });
    else {
      const device = this.chance.pick(this.#names);
      const labels: Record<string, string> = this.chance.happens(0.5) ? { site: "lab" } : {};
      this.#operator.tell({ kind: "label", device, labels });
    }
  }

  #rolloutsIn(...phases: readonly string[]): string[] {
    return [...(this.#operator.state?.rollouts.values() ?? [])].flatMap(({ name, record }) =>
      phases.includes(meant(record)?.phase ?? "") ? [name] : [],
    );
  }

  #create(release: Release = this.chance.pick(goodAndBad)): void {
    if (this.#operator.state === undefined) return;
    this.#rollouts += 1;
    const name = `rollout-${this.#rollouts}`;
    const count = 1 + this.chance.below(Math.ceil(this.#names.length / 3));
    this.#most.set(name, count);
    const canaries: Amount = { by: "count", count: 1 + this.chance.below(3) };
    const part: Amount = { by: "percent", percent: 10 + this.chance.below(80) };
    const spec = specOf(release, {
      waves: this.chance.pick([[], [canaries], [canaries, part]]),
      max_unavailable: {
        by: "count",
        count: this.faults.givesMorePlaces === true ? 2 * count : count,
      },
      failures_percent: this.chance.pick([0, 20]),
      soak_ms: this.chance.pick([0, 30_000]),
      select: {
        devices: this.chance.happens(0.2) ? this.#names.slice(0, this.#names.length / 2 + 1) : null,
        labels: this.chance.happens(0.2) ? { site: "lab" } : {},
      },
    });
    this.#operator.tell({ kind: "create", name, spec });
  }

  #seeToPaused(): void {
    for (const rollout of this.#rolloutsIn("paused")) {
      this.#counts.paused += 1;
      const record = this.#operator.state?.rollouts.get(rollout)?.record;
      const digest = (record && meant(record))?.spec.builds[0]?.digest;
      const isGood = goodOnes.some(({ build }) => build.digest === digest);
      if (isGood) this.#operator.tell({ kind: "resume", rollout, retry: true });
      else this.#operator.tell({ kind: "abort", rollout, reason: "it is bad" });
    }
  }

  /** One last version for all, and whoever fails is tried again. */
  #finish(): void {
    for (const rollout of this.#rolloutsIn("running", "paused")) {
      this.#operator.tell({ kind: "abort", rollout, reason: "the last one comes" });
    }
    this.#most.set("last", Math.ceil(this.#names.length / 5));
    const spec = specOf(releases.last, {
      waves: [
        { by: "count", count: 1 },
        { by: "percent", percent: 50 },
      ],
      max_unavailable: { by: "percent", percent: 20 },
      failures_percent: 0,
      soak_ms: 0,
    });
    this.#operator.tell({ kind: "create", name: "last", spec });
  }

  // What must never be.

  /** @returns devices with a commit that they have taken up and not ended, with its transaction */
  #underWay(): Map<string, string> {
    const found = new Map<string, string>();
    for (const { name, state } of this.#devices.values()) {
      const life = state?.life;
      if (life === undefined || !("marker" in life)) continue;
      if (committedPhases.includes(life.phase)) found.set(name, life.marker.transaction);
    }
    return found;
  }

  onMarker(device: string, marker: Marker, operator: SimulatedOperator): void {
    const { commit, build, transaction, rollout } = marker;
    const present = this.store.get(fleetBuckets.markers, device)?.value as Marker | undefined;
    if (commit === null) {
      this.#checkRemembered(device, { present, next: marker }, operator);
      return;
    }
    const isAgain = present?.transaction === transaction && present.commit !== null;
    const isNew = !this.#committed.has(`${device} ${transaction}`);
    if (isNew && !isAgain) {
      const seen = keyOfCandidate(device, {
        ...{ protocol: 1, ...build, transaction, instance: commit.instance },
        ...{ boot: "", sequence: 1 },
      });
      if (!operator.heard.has(seen)) {
        throw new InvariantBroken(`${device} is committed, and its candidate was not heard`);
      }
      this.#counts.commits += 1;
    }
    this.#committed.add(`${device} ${transaction}`);
    this.#committed.add(`${device} ${build.digest}`);
    this.#checkUnavailable(rollout?.name);
  }

  /** What the rollout before it did with this device, in what the store has acknowledged. */
  #checkRemembered(
    device: string,
    { present, next }: { readonly present: Marker | undefined; readonly next: Marker },
    { state }: SimulatedOperator,
  ): void {
    const before = present?.rollout?.name;
    if (before === undefined || before === next.rollout?.name) return;
    const record = state?.rollouts.get(before)?.record;
    const known = state?.devices.get(device);
    // Of one that the store has forgotten, or brought back, nobody knows.
    if (record?.stored === undefined || known?.marker.stored?.transaction !== present?.transaction)
      return;
    const end = known?.status?.value;
    if (end?.transaction !== present?.transaction) return;
    const kept = record.stored.past.named.find((one) => one.device === device);
    const isCrowded = this.#names.length > operatorLimits.past;
    if (kept === undefined && isCrowded && record.stored.past.named.length >= operatorLimits.past)
      return;
    if (kept === undefined) {
      throw new InvariantBroken(`${before} has forgotten what it did with ${device}`);
    }
    if ((end?.phase === "done") !== (kept.standing === "done")) {
      throw new InvariantBroken(`${before} has ${device} as ${kept.standing}, it is ${end?.phase}`);
    }
    this.#counts.remembered += 1;
  }

  /** By what devices and the store have, whatever the operator believes. */
  #checkUnavailable(rollout: string | undefined): void {
    if (rollout === undefined) return;
    let unavailable = 0;
    for (const { name, state } of this.#devices.values()) {
      const life = state?.life;
      if (life === undefined || !("marker" in life)) continue;
      const { marker, phase } = life;
      const isUnderWay = committedPhases.includes(phase) && marker.rollout?.name === rollout;
      if (isUnderWay && !this.#orphans.has(marker.transaction)) unavailable += 1;
      const entry = this.store.get(fleetBuckets.markers, name)?.value as Marker | undefined;
      const isComing = entry?.transaction === marker.transaction && entry.commit !== null;
      if (!isUnderWay && isComing && entry.rollout?.name === rollout) unavailable += 1;
    }
    const most = this.#most.get(rollout) ?? 0;
    this.#counts.mostUnavailable = Math.max(this.#counts.mostUnavailable, unavailable);
    if (unavailable > most) {
      throw new InvariantBroken(`${unavailable} devices of ${rollout} at once; ${most} may`);
    }
  }

  #checkEnd(): void {
    const { state } = this.#operator;
    if (state === undefined) throw new InvariantBroken("The operator is away in the end");
    for (const device of this.#devices.values()) {
      const phase = device.state?.life.phase;
      if (device.current.digest !== releases.last.build.digest) {
        throw new InvariantBroken(`${device.name} runs ${device.current.version}, it is ${phase}`);
      }
      const known = state.devices.get(device.name);
      const seen = known === undefined ? "unknown" : phaseOf(known);
      if (seen !== "done") throw new InvariantBroken(`${device.name} is ${seen} to its operator`);
    }
    for (const rollout of state.rollouts.values()) {
      const phase = meant(rollout.record)?.phase;
      if (phase !== "complete" && phase !== "aborted") {
        throw new InvariantBroken(`${rollout.name} is ${phase} in the end: ${rollout.waitsFor}`);
      }
    }
    const { writes } = this.#operator.counts;
    this.#pass(5 * MINUTE);
    if (this.#operator.counts.writes !== writes) {
      throw new InvariantBroken("a second look wrote something");
    }
  }
}

const committedPhases: readonly string[] = ["commit-seen", "swapped", "canonical", "reverting"];

const goodOnes = [releases.good, releases.better, releases.last];
const goodAndBad = [
  ...[releases.good, releases.better, releases.good, releases.better],
  ...[releases.crashing, releases.silent, releases.mute],
];

function specOf(
  { build }: Release,
  change: Partial<RolloutSpec> & Pick<RolloutSpec, "max_unavailable">,
): RolloutSpec {
  return {
    version: build.version,
    builds: [{ architecture: "x64", libc: "glibc", digest: build.digest }],
    manifest: "signed",
    sources: ["https://artifacts.example/hostler"],
    rate: null,
    limits: { staging_ms: 120_000, commit_ms: 60_000, canonical_ms: 60_000 },
    select: { devices: null, labels: {} },
    waves: [],
    soak_ms: 0,
    failures_percent: 0,
    windows: [],
    ...change,
  };
}
