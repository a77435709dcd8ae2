/**
 * A deterministic simulation of a cluster: the master's own decisions and the worker's own
 * reconciler, over hosts that lose power, workers that die while their VMMs go on, links that lose,
 * double and delay, a fence hook that fails or is slow, watchdogs, and a master that is killed
 * between two writes. The same seed gives the same run.
 *
 * At no moment two VMMs run for one machine. Nothing that was declared all the time is removed.
 * After some time of trouble the world becomes kind: then what is declared runs, once each, and a
 * second look writes nothing.
 */
import { step } from "../../../src/vm/master/lifecycle.ts";
import {
  type ClusterState,
  type MasterEffect,
  type MasterEvent,
  type MasterSettings,
  newWorker,
  nothingDeclared,
  type Step,
  type WorkerRecord,
} from "../../../src/vm/master/lifecycle-state.ts";
import { assignmentOf, statusOf } from "../../../src/vm/master/lifecycle-view.ts";
import type { Assignment, Report, ReportAnswer } from "../../../src/vm/protocol-master.ts";
import { SeededChance } from "../chance.ts";
import { Agenda } from "../simulation/agenda.ts";
import { type HostFaults, SimulatedHost, type World } from "./host.ts";
import { declare, machine } from "./reports.ts";

export interface MasterFaults extends HostFaults {
  /** A hook that failed counts as one that did not. */
  readonly believesFailedHook?: boolean;
  /** Silence counts as proof. */
  readonly trustsSilence?: boolean;
  /** A machine is given before it is taken: a killed master has done the wrong half. */
  readonly givesFirst?: boolean;
  /** A master that is started anew takes every worker's last report for one of its own start. */
  readonly forgetsRecords?: boolean;
}

export interface SimulationResult {
  readonly events: number;
  readonly moves: number;
  readonly masterDeaths: number;
  readonly workerDeaths: number;
  readonly powerCuts: number;
  readonly hooks: number;
  readonly crashes: number;
  readonly writes: number;
  readonly restores: number;
}

/** Something was that must never be. */
export class InvariantBroken extends Error {
  override readonly name = "InvariantBroken";
}

const TROUBLE_TIME = 400_000;
const CALM_TIME = 420_000;
const TRACE_LENGTH = 150;
const hostNames = ["rack-1", "rack-2", "rack-3", "rack-4"] as const;

export function simulateCluster(options: {
  readonly seed: number;
  readonly faults?: MasterFaults;
}): SimulationResult {
  const simulation = new Simulation(options.seed, options.faults ?? {});
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

/** What a store has of a master. */
interface Disk {
  desired: ClusterState["desired"];
  workers: Map<string, WorkerRecord>;
  /** Never taken back, by a restored backup either. */
  revision: number;
  incarnation: number;
  /** In which owner generations were reserved last. */
  reservedIn: number;
}

/** A restored store's revisions begin so far above all others. */
const RESTORE_JUMP = 1_000_000;

class Simulation implements World {
  readonly chance: SeededChance;
  readonly traced: string[] = [];
  readonly #faults: MasterFaults;
  readonly #agenda = new Agenda(20_000);
  readonly #hosts = new Map<string, SimulatedHost>();
  readonly #disk: Disk = {
    ...{ desired: nothingDeclared, workers: new Map(), revision: 1 },
    ...{ incarnation: 1, reservedIn: 1 },
  };
  #backup: Pick<Disk, "desired" | "workers" | "reservedIn"> | undefined;
  readonly #settings: MasterSettings;
  #state: ClusterState | undefined;
  /** Hooks of a master that was killed go on, and nobody hears of them. */
  #life = 0;
  /** Of each machine: where VMMs of it run. */
  readonly #running = new Map<string, Set<string>>();
  /** Declared in every declaration so far. */
  readonly #always = new Set<string>();
  readonly #movable = new Set<string>();
  /** Processes that a master has heard, each with that master's life. */
  readonly #heardRuns = new Set<string>();
  #isKind = false;
  /** When the master is woken next. */
  #wakeAt: number | undefined;
  #counts = {
    events: 0,
    moves: 0,
    masterDeaths: 0,
    workerDeaths: 0,
    powerCuts: 0,
    hooks: 0,
    crashes: 0,
    writes: 0,
    restores: 0,
  };

  constructor(seed: number, faults: MasterFaults) {
    this.chance = new SeededChance(seed);
    this.#faults = faults;
    this.#settings = {
      silentAfter: 15_000,
      lostAfter: 40_000,
      hasHook: this.chance.happens(0.5),
      hookRetry: 10_000,
      longestHookRetry: 60_000,
    };
  }

  now(): number {
    return this.#agenda.now;
  }

  after(delay: number, act: () => void): void {
    this.#agenda.after(delay, act);
  }

  trace(line: string): void {
    this.traced.push(`${this.now()} ${line}`);
  }

  run(): SimulationResult {
    this.#startMaster();
    for (const name of hostNames) {
      const hasWatchdog = this.chance.happens(0.5);
      const around = { world: this, faults: this.#faults, hasWatchdog };
      this.#hosts.set(name, new SimulatedHost(name, around));
    }
    this.#applyLater();
    this.#troubleLater();
    this.#pass(TROUBLE_TIME);
    this.#becomeKind();
    this.#pass(CALM_TIME);
    this.#checkEnd();
    return this.#counts;
  }

  #pass(time: number): void {
    const end = this.now() + time;
    while ((this.#agenda.nextTime ?? end) < end && this.#agenda.advance()) {
      this.#counts.events += 1;
    }
  }

  // The world's troubles.

  #troubleLater(): void {
    this.after(500 + this.chance.below(8_000), () => {
      if (this.#isKind) return;
      this.#makeTrouble();
      this.#troubleLater();
    });
  }

  #makeTrouble(): void {
    const host = this.#hosts.get(this.chance.pick(hostNames));
    if (host === undefined) return;
    const vmms = [...host.vmms];
    switch (this.chance.below(7)) {
      case 0:
        this.#counts.workerDeaths += 1;
        host.killWorker();
        this.after(this.chance.below(150_000), () => host.startWorker());
        return;
      case 1:
        this.#counts.powerCuts += 1;
        host.cutPower();
        this.after(2_000 + this.chance.below(150_000), () => host.powerOn());
        return;
      case 2:
      case 3:
        this.trace(`${host.name}: link down`);
        host.isLinked = false;
        this.after(this.chance.below(250_000), () => {
          host.isLinked = true;
        });
        return;
      case 4:
        this.#killMaster();
        return;
      case 5:
        if (vmms.length > 0) this.#counts.crashes += 1;
        if (vmms.length > 0) host.crashVmm(this.chance.pick(vmms));
        return;
      default:
        if (vmms.length > 0) host.hangVmm(this.chance.pick(vmms));
        this.#confirmLost();
    }
  }

  /** A person who has seen that a host is off, and says so. */
  #confirmLost(): void {
    for (const { name, standing } of this.#state?.workers.values() ?? []) {
      if (standing === "lost" && this.#hosts.get(name)?.isPowered === false) {
        this.#take({ kind: "confirm", worker: name });
      }
    }
  }

  #becomeKind(): void {
    this.#isKind = true;
    this.trace("the world is kind from now on");
    if (this.#state === undefined) this.#startMaster();
    for (const host of this.#hosts.values()) {
      host.isLinked = true;
      host.powerOn();
      host.startWorker();
    }
    this.after(150_000, () => {
      for (const host of this.#hosts.values()) {
        host.powerOn();
        host.startWorker();
      }
    });
  }

  // The declarations.

  #applyLater(): void {
    this.#apply();
    this.after(20_000 + this.chance.below(120_000), () => {
      if (!this.#isKind) this.#applyLater();
    });
  }

  #apply(): void {
    const fixed = Array.from({ length: 3 }, (_, index) => machine(`fixed-${index}`, { cpu: 2 }));
    const moving = Array.from({ length: 5 }, (_, index) =>
      machine(`move-${index}`, {
        cpu: 1 + (index % 3),
        placement: { movable: true, spread: { group: "move" } },
      }),
    );
    const fleeting = Array.from({ length: 4 }, (_, index) =>
      machine(`fleeting-${index}`, { placement: { movable: this.chance.happens(0.5) } }),
    ).filter(() => this.chance.happens(0.5));
    for (const { name, placement } of [...fixed, ...moving, ...fleeting]) {
      if (!name.startsWith("fleeting")) this.#always.add(name);
      if (name.startsWith("fleeting") || placement?.movable === true) this.#movable.add(name);
    }
    this.#take(declare([...fixed, ...moving, ...fleeting]));
  }

  // The master.

  #startMaster(): void {
    const { desired, workers } = this.#disk;
    const placed = new Map(
      [...workers].flatMap(([name, { machines }]) =>
        Object.keys(machines).map((one) => [one, name] as const),
      ),
    );
    const isForgetful = this.#faults.forgetsRecords === true;
    this.#state = {
      incarnation: String(this.#disk.incarnation).padStart(32, "0"),
      started: this.now(),
      desired,
      workers: isForgetful
        ? new Map()
        : new Map([...workers].map(([name, record]) => [name, newWorker(name, record)])),
      placed: isForgetful ? new Map() : placed,
      unplaced: new Map(),
      numbers: { next: 0, end: 0 },
      isRestored: this.#disk.reservedIn !== this.#disk.incarnation,
    };
    this.#life += 1;
    this.trace(`master ${this.#life}`);
    this.#take({ kind: "place" });
  }

  #killMaster(): void {
    if (this.#state === undefined) return;
    this.#counts.masterDeaths += 1;
    this.trace("master killed");
    this.#wakeAt = undefined;
    this.#state = undefined;
    this.#backUpOrRestore();
    this.after(this.chance.below(60_000), () => {
      if (this.#state === undefined) this.#startMaster();
    });
  }

  /** A person does either while the master is away. */
  #backUpOrRestore(): void {
    const { desired, workers, reservedIn } = this.#disk;
    if (this.#backup === undefined) {
      const isWhole = workers.size === hostNames.length && this.chance.happens(0.5);
      if (isWhole) this.#backup = { desired, workers: new Map(workers), reservedIn };
      return;
    }
    if (!this.chance.happens(0.2)) return;
    this.trace("an older backup is restored");
    this.#counts.restores += 1;
    Object.assign(this.#disk, { ...this.#backup, workers: new Map(this.#backup.workers) });
    this.#disk.incarnation += 1;
    this.#disk.revision += RESTORE_JUMP;
  }

  /** Decides, writes, and does; undefined when the master is away, or died meanwhile. */
  #take(event: MasterEvent): Step | undefined {
    if (this.#state === undefined) return undefined;
    const outcome = step(this.#state, event, { now: this.now(), settings: this.#settings });
    if (outcome.refusal !== undefined) return outcome;
    if (!this.#write(outcome.effects)) return undefined;
    this.#countMoves(this.#state, outcome.state);
    this.#state = outcome.state;
    for (const effect of outcome.effects) this.#perform(effect);
    this.#wake(outcome.wakeAt);
    return outcome;
  }

  /** @returns false when the master was killed between two writes */
  #write(effects: readonly MasterEffect[]): boolean {
    const writes = effects.filter(({ kind }) => kind.startsWith("write"));
    for (const effect of this.#faults.givesFirst === true ? writes.toReversed() : writes) {
      if (!this.#isKind && this.chance.happens(writes.length > 1 ? 0.08 : 0.02)) {
        this.#killMaster();
        return false;
      }
      this.#counts.writes += 1;
      this.#disk.revision += 1;
      if (effect.kind === "write-desired") this.#disk.desired = effect.declaration;
      if (effect.kind === "write-worker") this.#disk.workers.set(effect.worker, effect.record);
    }
    return true;
  }

  #perform(effect: MasterEffect): void {
    if (effect.kind === "say") this.trace(`master: ${effect.message}`);
    if (effect.kind === "run-hook") this.#runHook(effect);
    if (effect.kind !== "reserve-numbers") return;
    this.#disk.revision += 1;
    this.#disk.reservedIn = this.#disk.incarnation;
    const next = this.#disk.revision * 64;
    this.#take({ kind: "numbers", numbers: { next, end: next + 64 } });
  }

  /** It cuts the power or not, and says so or not: a success is always true. */
  #runHook({ worker, attempt }: { readonly worker: string; readonly attempt: number }): void {
    this.#counts.hooks += 1;
    const life = this.#life;
    const works = this.chance.happens(this.#isKind ? 1 : 0.6);
    const tells = works && this.chance.happens(0.8);
    this.after(500 + this.chance.below(10_000), () => {
      const host = this.#hosts.get(worker);
      if (works) {
        host?.cutPower();
        this.after(5_000 + this.chance.below(100_000), () => host?.powerOn());
      }
      this.after(this.chance.below(8_000), () => {
        if (life !== this.#life) return;
        const failure = tells ? undefined : "no answer";
        const believed = this.#faults.believesFailedHook === true ? undefined : failure;
        this.#take({ kind: "hook-ended", worker, attempt, failure: believed });
      });
    });
  }

  #wake(at: number | undefined): void {
    if (at === undefined || at === this.#wakeAt) return;
    this.#wakeAt = at;
    this.after(Math.max(0, at - this.now()), () => {
      if (at !== this.#wakeAt || this.#state === undefined) return;
      this.#wakeAt = undefined;
      this.#trustSilence();
      this.#take({ kind: "time" });
    });
  }

  #trustSilence(): void {
    if (this.#faults.trustsSilence !== true) return;
    for (const { name, standing } of this.#state?.workers.values() ?? []) {
      if (standing === "lost") this.#take({ kind: "confirm", worker: name });
    }
  }

  #countMoves(before: ClusterState, after: ClusterState): void {
    for (const [name, worker] of after.placed) {
      const from = before.placed.get(name) ?? worker;
      if (from === worker) continue;
      this.#counts.moves += 1;
      // Of what a restored backup gave to who does not have it, nothing is anywhere.
      if (!this.#movable.has(name) && !before.isRestored)
        throw new InvariantBroken(`${name} moved, and may not`);
    }
  }

  // What workers ask.

  askReport(host: string, report: Report, answered: (answer: ReportAnswer) => void): void {
    const life = this.#life;
    this.#send(host, () => {
      // Its session ended with the master, and nobody else's request comes by it.
      if (life !== this.#life) return;
      // What a process sent before it was ever heard comes before what its successor sends.
      const run = `${life} ${report.run}`;
      const isCurrent = this.#hosts.get(host)?.run === report.run;
      if (!isCurrent && !this.#heardRuns.has(run)) return;
      this.#heardRuns.add(run);
      const answer = this.#take({ kind: "report", worker: host, report })?.answer;
      if (answer?.kind === "answered") this.#send(host, () => answered(answer));
    });
  }

  askAssignment(host: string, answered: (answer: Assignment) => void): void {
    this.#send(host, () => {
      if (this.#state === undefined || this.#state.isRestored) return;
      const answer = assignmentOf(this.#state, host);
      this.#send(host, () => answered(answer));
    });
  }

  /** A message is lost, doubled, late, or comes. */
  #send(host: string, deliver: () => void): void {
    const isUp = () => this.#hosts.get(host)?.isLinked !== false;
    const times = this.#isKind ? 1 : this.chance.pick([0, 1, 1, 1, 1, 1, 1, 2]);
    for (let time = 0; time < times; time += 1) {
      const isLate = !this.#isKind && this.chance.happens(0.05);
      const delay = isLate ? this.chance.below(90_000) : this.chance.below(300);
      if (!isUp()) return;
      this.after(delay, () => {
        if (isLate || isUp()) deliver();
      });
    }
  }

  // What must never be.

  onVmm(name: string, host: string, change: 1 | -1): void {
    const hosts = this.#running.get(name) ?? new Set();
    this.#running.set(name, hosts);
    if (change === 1) hosts.add(host);
    else hosts.delete(host);
    this.trace(`${name} ${change === 1 ? "runs" : "ended"} at ${host}`);
    if (hosts.size > 1)
      throw new InvariantBroken(`${name} runs twice: at ${[...hosts].join(" and ")}`);
  }

  onRemoval(
    name: string,
    host: string,
    { isNamed, owner }: { readonly isNamed: boolean; readonly owner: number },
  ): void {
    this.trace(`${host}: removes ${name}`);
    if (!isNamed) throw new InvariantBroken(`${host} removed ${name}, and no list names it`);
    // What is left over of one that moved is no more than that.
    const isPresent = this.#disk.workers.get(host)?.machines[name]?.owner_generation === owner;
    if (this.#always.has(name) && isPresent)
      throw new InvariantBroken(`${name} was removed, and is declared`);
  }

  #checkEnd(): void {
    const state = this.#state;
    if (state === undefined) throw new InvariantBroken("The master is away in the end");
    const { machines, convergence_percent } = statusOf(state, {
      now: this.now(),
      hasHook: this.#settings.hasHook,
    });
    for (const { name, status, worker, reason } of machines) {
      if (status !== "running") throw new InvariantBroken(`${name} is ${status}: ${reason}`);
      const hosts = [...(this.#running.get(name) ?? [])];
      if (hosts.length !== 1 || hosts[0] !== worker) {
        throw new InvariantBroken(
          `${name} runs at ${hosts.join(", ")}, and is to run at ${worker}`,
        );
      }
    }
    if (convergence_percent !== 100)
      throw new InvariantBroken(`${convergence_percent} % as declared`);
    // What a restored backup has never heard of is left alone.
    for (const [name, hosts] of this.#counts.restores > 0 ? [] : this.#running) {
      if (hosts.size > 0 && !state.desired.machines.has(name))
        throw new InvariantBroken(`${name} runs on`);
    }
    const before = this.#counts.writes;
    this.#take({ kind: "place" });
    this.#pass(60_000);
    if (this.#counts.writes !== before) throw new InvariantBroken("A second look wrote something");
  }
}
