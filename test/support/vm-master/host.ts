/**
 * A host of the simulation: a worker process that may die and come back while its VMMs go on, a
 * link that loses, doubles and delays, a power button, and a watchdog that resets it.
 */
import {
  type Assignment,
  type AssignmentPlace,
  masterLimits,
  type Report,
  type ReportAnswer,
  type ReportedMachine,
} from "../../../src/vm/protocol-master.ts";
import {
  type Command,
  type Desired,
  type ObservedMachine,
  reconcile,
} from "../../../src/vm/reconcile.ts";
import type { SeededChance } from "../chance.ts";
import { armed } from "./reports.ts";

/** What a host breaks on purpose, to prove that the simulation notices. */
export interface HostFaults {
  /** It removes what no list names. */
  readonly collectsUnnamed?: boolean;
  /** It feeds its watchdog, whatever the master says. */
  readonly ignoresLease?: boolean;
  /** It goes on with machines that are stale. */
  readonly ignoresStale?: boolean;
  /** It starts what may be another's before it was answered. */
  readonly startsUnheard?: boolean;
}

/** A machine as the worker has it on the disk: it outlives the process, and the boot. */
interface KeptMachine {
  spec: ObservedMachine["spec"] & object;
  power: "running" | "off" | "created" | "paused";
  owner: number;
  movable: boolean;
  guarded: boolean;
  phase: "preparing" | "running" | "failed" | "off" | "detached" | "removing";
  wanted: ObservedMachine["wanted"];
}

export interface World {
  readonly chance: SeededChance;
  now(): number;
  after(delay: number, act: () => void): void;
  trace(line: string): void;
  /** A VMM is there, or is there no more. */
  onVmm(name: string, host: string, change: 1 | -1): void;
  /** A worker removes what it holds, under that owner generation. */
  onRemoval(
    name: string,
    host: string,
    told: { readonly isNamed: boolean; readonly owner: number },
  ): void;
  /** Sends a request to the master; the answer comes, or does not. */
  askReport(host: string, report: Report, answered: (answer: ReportAnswer) => void): void;
  askAssignment(host: string, answered: (answer: Assignment) => void): void;
}

const MEBIBYTE = 1024 * 1024;
/** A worker reports at the latest after so many turns, as the real one does by its clock. */
const MOST_SILENT_TURNS = 10;

export class SimulatedHost {
  readonly name: string;
  readonly #world: World;
  readonly #faults: HostFaults;
  readonly hasWatchdog: boolean;
  isPowered = true;
  isLinked = true;
  #boot = 0;
  #run = 0;
  #isAlive = false;
  #sequence = 0;
  #silentTurns = 0;
  /** Kept on the disk. */
  readonly #machines = new Map<string, KeptMachine>();
  #assignment: Assignment | undefined;
  /** Owner generations that count no more; on the disk as well. */
  readonly #stale = new Map<string, number>();
  /** In memory of the process. */
  #isHeard = false;
  /** Kept for the boot: when the last answered report was sent. */
  #leaseFrom = Number.NEGATIVE_INFINITY;
  #watchdogArmed = false;
  #fedAt = 0;
  readonly #vmms = new Set<string>();

  constructor(
    name: string,
    around: { readonly world: World; readonly faults: HostFaults; readonly hasWatchdog: boolean },
  ) {
    this.name = name;
    this.#world = around.world;
    this.#faults = around.faults;
    this.hasWatchdog = around.hasWatchdog;
    this.#startWorker();
  }

  get isWorkerAlive(): boolean {
    return this.isPowered && this.#isAlive;
  }

  /** Of the process that lives, or lived last. */
  get run(): string {
    const digits = this.name.charCodeAt(this.name.length - 1).toString(16);
    return `${digits}${String(this.#run).padStart(32 - digits.length, "0")}`;
  }

  get vmms(): ReadonlySet<string> {
    return this.#vmms;
  }

  killWorker(): void {
    if (!this.isWorkerAlive) return;
    this.#world.trace(`${this.name}: worker killed`);
    this.#isAlive = false;
  }

  startWorker(): void {
    if (!this.isPowered || this.#isAlive) return;
    this.#startWorker();
  }

  /** All VMMs end with it. */
  cutPower(): void {
    if (!this.isPowered) return;
    this.#world.trace(`${this.name}: power off`);
    this.isPowered = false;
    this.#isAlive = false;
    for (const name of [...this.#vmms]) this.#endVmm(name);
  }

  powerOn(): void {
    if (this.isPowered) return;
    this.isPowered = true;
    this.#boot += 1;
    this.#watchdogArmed = false;
    this.#leaseFrom = Number.NEGATIVE_INFINITY;
    for (const machine of this.#machines.values()) {
      if (machine.phase !== "removing") machine.phase = "off";
    }
    this.#startWorker();
  }

  crashVmm(name: string): void {
    if (!this.#vmms.has(name)) return;
    this.#endVmm(name);
    const machine = this.#machines.get(name);
    if (machine !== undefined && machine.phase === "running") machine.phase = "off";
  }

  /** Nothing answers for a while: the worker leaves the machine alone. */
  hangVmm(name: string): void {
    const machine = this.#machines.get(name);
    if (machine?.phase !== "running") return;
    machine.phase = "detached";
    this.#world.after(5_000 + this.#world.chance.below(20_000), () => {
      if (machine.phase === "detached") machine.phase = this.#vmms.has(name) ? "running" : "off";
    });
  }

  #startWorker(): void {
    this.#isAlive = true;
    this.#run += 1;
    this.#sequence = 0;
    this.#isHeard = false;
    const run = this.#run;
    this.#world.trace(`${this.name}: worker ${run} of boot ${this.#boot}`);
    if (this.hasWatchdog && !this.#watchdogArmed) {
      this.#watchdogArmed = true;
      this.#fedAt = this.#world.now();
      this.#watch(this.#boot);
    }
    // What no VMM has any more has ended while nobody looked.
    for (const [name, machine] of this.#machines) {
      if (machine.phase === "removing") this.#remove(name);
      else if (machine.phase !== "off") machine.phase = this.#vmms.has(name) ? "running" : "off";
    }
    this.#turn(run);
  }

  /** Every second of a worker's life. */
  #turn(run: number): void {
    if (!this.#isAlive || run !== this.#run) return;
    const { chance } = this.#world;
    this.#silentTurns += 1;
    const isDue = this.#sequence === 0 || this.#silentTurns >= MOST_SILENT_TURNS;
    if (isDue || chance.happens(0.3)) this.#report(run);
    this.#keepLease();
    this.#reconcile();
    if (this.#watchdogArmed && this.#mayFeed()) this.#fedAt = this.#world.now();
    this.#world.after(800 + chance.below(400), () => this.#turn(run));
  }

  /** Duty 7. */
  #mayFeed(): boolean {
    if (this.#faults.ignoresLease === true) return true;
    const hasGuarded = [...this.#vmms].some((name) => this.#machines.get(name)?.guarded === true);
    return !hasGuarded || this.#isLeased();
  }

  #isLeased(): boolean {
    return this.#world.now() < this.#leaseFrom + masterLimits.leaseTime;
  }

  /** Some workers end such machines themselves; others leave it to the watchdog. */
  #keepLease(): void {
    if (this.#isLeased() || this.#faults.ignoresLease === true) return;
    if (this.name.endsWith("1")) return;
    for (const [name, machine] of this.#machines) {
      if (machine.guarded && this.#vmms.has(name)) {
        this.#endVmm(name);
        machine.phase = "off";
      }
    }
  }

  #watch(boot: number): void {
    this.#world.after(1_000, () => {
      if (!this.isPowered || boot !== this.#boot) return;
      if (this.#world.now() < this.#fedAt + armed.timeout_ms) {
        this.#watch(boot);
        return;
      }
      this.#world.trace(`${this.name}: reset by its watchdog`);
      this.cutPower();
      this.#world.after(3_000, () => this.powerOn());
    });
  }

  #report(run: number): void {
    this.#sequence += 1;
    this.#silentTurns = 0;
    const sentAt = this.#world.now();
    this.#world.askReport(this.name, this.#reportNow(), (answer) => {
      if (!this.#isAlive || run !== this.#run) return;
      this.#isHeard = true;
      this.#leaseFrom = Math.max(this.#leaseFrom, sentAt);
      this.#hearStale(answer);
      if (JSON.stringify(answer.assignment) !== JSON.stringify(this.#place())) this.#ask(run);
    });
  }

  #hearStale({ stale }: ReportAnswer): void {
    if (this.#faults.ignoresStale === true) return;
    for (const { name, owner_generation } of stale) {
      this.#stale.set(name, Math.max(owner_generation, this.#stale.get(name) ?? 0));
      const machine = this.#machines.get(name);
      // The answer may be older than what it has by now.
      if (machine === undefined || machine.owner > owner_generation) continue;
      this.#world.trace(`${this.name}: ${name} is stale`);
      if (this.#vmms.has(name)) this.#endVmm(name);
      this.#machines.delete(name);
    }
  }

  #ask(run: number): void {
    this.#world.askAssignment(this.name, (answer) => {
      if (!this.#isAlive || run !== this.#run || this.#isOlder(answer)) return;
      this.#assignment = answer;
      for (const { spec, owner_generation, movable, fencing } of answer.machines) {
        const machine = this.#machines.get(spec.name);
        if (machine?.owner !== owner_generation) continue;
        machine.movable = movable;
        machine.guarded = fencing === "watchdog";
      }
      this.#reconcile();
    });
  }

  /** Duty 3. */
  #isOlder(answer: Assignment): boolean {
    const last = this.#assignment;
    if (last === undefined || last.incarnation !== answer.incarnation) return false;
    return answer.generation < last.generation || answer.revision < last.revision;
  }

  #place(): AssignmentPlace | null {
    if (this.#assignment === undefined) return null;
    const { incarnation, generation, revision } = this.#assignment;
    return { incarnation, generation, revision };
  }

  #desired(): Desired {
    const { machines = [], generation = 0 } = this.#assignment ?? {};
    const own = machines.filter(
      ({ spec, owner_generation }) => owner_generation > (this.#stale.get(spec.name) ?? 0),
    );
    return { generation, machines: own.map(({ spec, power }) => ({ spec, power })) };
  }

  #observe(): ObservedMachine[] {
    return [...this.#machines].map(([name, machine]) => ({
      name,
      phase: machine.phase,
      wanted: machine.wanted,
      declaredPower: machine.power,
      spec: machine.spec,
      owner: "declared",
      reason: undefined,
    }));
  }

  #reconcile(): void {
    if (this.#assignment === undefined) return;
    for (const command of reconcile(this.#desired(), this.#observe()).commands) {
      this.#perform(command);
    }
    for (const given of this.#assignment.machines) {
      const machine = this.#machines.get(given.spec.name);
      if (machine === undefined || machine.phase === "removing") continue;
      // Duty 5: under a higher number it is another machine.
      if (machine.owner < given.owner_generation) this.#remove(given.spec.name);
      else if (machine.phase === "off" && this.#mayStart(machine)) this.#start(given.spec.name);
    }
  }

  #perform(command: Command): void {
    const { name } = command;
    if (command.kind === "create") {
      const given = this.#assignment?.machines.find(({ spec }) => spec.name === name);
      if (given === undefined) return;
      this.#machines.set(name, {
        spec: given.spec,
        power: given.power,
        owner: given.owner_generation,
        movable: given.movable,
        guarded: given.fencing === "watchdog",
        phase: "off",
        wanted: given.power,
      });
      return;
    }
    if (command.kind !== "delete") return;
    const machine = this.#machines.get(name);
    const removal = this.#assignment?.removals.find((one) => one.name === name);
    const isNamed = removal !== undefined && machine !== undefined;
    if (command.reason === "extra" && this.#faults.collectsUnnamed !== true) {
      // Duty 2.
      if (!isNamed || machine.owner > removal.owner_generation) return;
    }
    if (machine !== undefined && command.reason === "extra") {
      this.#world.onRemoval(name, this.name, { isNamed, owner: machine.owner });
    }
    this.#remove(name);
  }

  /** Duties 6 and 7. */
  #mayStart({ movable, guarded }: KeptMachine): boolean {
    if (this.#faults.startsUnheard === true) return true;
    if (movable && !this.#isHeard) return false;
    return !guarded || this.#isLeased();
  }

  #start(name: string): void {
    const machine = this.#machines.get(name);
    if (machine === undefined) return;
    machine.phase = "preparing";
    const [run, boot] = [this.#run, this.#boot];
    this.#world.after(100 + this.#world.chance.below(3_000), () => {
      const isSame = this.#machines.get(name) === machine && machine.phase === "preparing";
      if (!this.isPowered || boot !== this.#boot || run !== this.#run || !this.#isAlive) return;
      if (!isSame) return;
      if (!this.#mayStart(machine)) {
        machine.phase = "off";
        return;
      }
      machine.phase = "running";
      this.#vmms.add(name);
      this.#world.onVmm(name, this.name, 1);
    });
  }

  #remove(name: string): void {
    const machine = this.#machines.get(name);
    if (machine === undefined) return;
    machine.phase = "removing";
    machine.wanted = "absent";
    const boot = this.#boot;
    const run = this.#run;
    this.#world.after(50 + this.#world.chance.below(1_500), () => {
      if (!this.isPowered || boot !== this.#boot || run !== this.#run || !this.#isAlive) return;
      if (this.#machines.get(name) !== machine) return;
      if (this.#vmms.has(name)) this.#endVmm(name);
      this.#machines.delete(name);
    });
  }

  #endVmm(name: string): void {
    this.#vmms.delete(name);
    this.#world.onVmm(name, this.name, -1);
  }

  #reportNow(): Report {
    const desired = this.#desired();
    const { standings, convergencePercent } = reconcile(desired, this.#observe());
    const byName = new Map(standings.map((standing) => [standing.name, standing]));
    const machines = [...this.#machines].map(([name, machine]): ReportedMachine => {
      const standing = byName.get(name);
      return {
        name,
        owner_generation: machine.owner,
        phase: machine.phase,
        standing: standing?.status ?? "left-alone",
        reason: standing?.reason ?? null,
        drift: [],
        processors: machine.spec.cpu ?? 1,
        memory_bytes: (machine.spec.memoryMb ?? 512) * MEBIBYTE,
        metrics: null,
      };
    });
    const used = machines.reduce((sum, { processors }) => sum + (processors ?? 0), 0);
    const memory = machines.reduce((sum, { memory_bytes }) => sum + (memory_bytes ?? 0), 0);
    const total = { processors: 16, memory_bytes: 16_384 * MEBIBYTE };
    const digits = this.name.charCodeAt(this.name.length - 1).toString(16);
    const boot = `${digits}`.padStart(8, "0");
    return {
      version: 1,
      boot: `${boot}-0000-0000-0000-${String(this.#boot).padStart(12, "0")}`,
      run: this.run,
      sequence: this.#sequence,
      program: "simulated",
      observed: this.#place(),
      convergence_percent: convergencePercent,
      total,
      free: {
        processors: Math.max(0, total.processors - used),
        memory_bytes: Math.max(0, total.memory_bytes - memory),
      },
      labels: { zone: this.name.endsWith("3") ? "west" : "east" },
      watchdog: this.#watchdogArmed ? armed : null,
      machines,
    };
  }
}
