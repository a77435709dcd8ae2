/**
 * A deterministic simulation: the pure lifecycle and reconciler of a worker over simulated VMMs,
 * under a false clock. The worker is killed between its effects, VMMs crash, hang, answer late,
 * twice, or lie. The same seed gives the same run.
 *
 * After some time of trouble the world becomes kind; then what is declared must be, nothing else
 * may live, and a second pass of the reconciler must have nothing to do.
 */
import { deadlineOf, instanceOf, step, type Table } from "../../src/vm/lifecycle.ts";
import { decodeNote, encodeNote } from "../../src/vm/lifecycle-note.ts";
import {
  initialState,
  type MachineEffect,
  type MachineEvent,
  type MachineRules,
  type MachineState,
} from "../../src/vm/lifecycle-state.ts";
import {
  type Command,
  type Desired,
  eventOf,
  type ObservedMachine,
  reconcile,
} from "../../src/vm/reconcile.ts";
import { SeededChance } from "./chance.ts";
import { Agenda } from "./simulation/agenda.ts";
import { Host, type Vmm, type Written } from "./vm-simulation/host.ts";
import { makeRules, makeTroubles, type Troubles } from "./vm-simulation/troubles.ts";

export interface SimulationOptions {
  readonly seed: number;
  /** Another table of decisions, to prove that the simulation notices. */
  readonly table?: Table;
  readonly faults?: {
    /** The reconciler is told of machines as if all of them were sure. */
    readonly collectsDetached?: boolean;
    /** A worker that starts does not read what the one before it wrote. */
    readonly forgetsNotes?: boolean;
    /** A note is written after what it speaks of. */
    readonly notesLate?: boolean;
    /** Whoever is beside a machine's VMM is not ended. */
    readonly leavesBeside?: boolean;
    /** A worker that starts takes every VMM for dead. */
    readonly takesForDead?: boolean;
  };
}

export interface SimulationResult {
  readonly events: number;
  readonly spawns: number;
  readonly workerDeaths: number;
  readonly adoptions: number;
  readonly searches: number;
  readonly replacements: number;
  readonly detachments: number;
  readonly commands: number;
}

const TROUBLE_TIME = 60_000;
const AGENDA_LIMIT = 5_000;
const EVENTS_LIMIT = 100_000;
const TRACE_LENGTH = 120;
const PASSES = 40;
const names = ["alpha", "beta", "gamma"] as const;

/** Runs one seed. @throws Error with the seed and what happened last, when something is broken. */
export function simulate(options: SimulationOptions): SimulationResult {
  const simulation = new Simulation(options);
  try {
    return simulation.run();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const trace = simulation.trace.slice(-TRACE_LENGTH).join("\n");
    const replay = `SIMULATION_SEED=${options.seed} replays it`;
    throw new Error(`${reason}\n${trace}\nseed ${options.seed}: ${reason}; ${replay}`, {
      cause: error,
    });
  }
}

class Simulation {
  readonly trace: string[] = [];
  readonly counts = {
    ...{ spawns: 0, workerDeaths: 0, adoptions: 0, searches: 0, replacements: 0 },
    ...{ detachments: 0, commands: 0 },
  };
  readonly #options: SimulationOptions;
  readonly #chance: SeededChance;
  readonly #agenda = new Agenda(AGENDA_LIMIT);
  readonly #host = new Host((vmm, status) => this.#tellDeath(vmm, status));
  readonly #rules: MachineRules;
  /** What an operator, or the declaration, wanted last: who ends a guest must point at it. */
  readonly #wished = new Map<string, "there" | "ended">();
  #troubles: Troubles;
  /** What the worker has in memory; gone when it is killed. */
  #machines = new Map<string, MachineState>();
  /** The worker's number; undefined while none runs. */
  #worker: number | undefined;
  #workers = 0;
  /** Who is watched by the worker: its death is told. */
  #watched = new Set<string>();
  #desired: Desired = { generation: 0, machines: [] };
  #invocations = 0;
  #events = 0;

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.#chance = new SeededChance(options.seed);
    this.#troubles = makeTroubles(this.#chance);
    this.#rules = makeRules(this.#chance);
  }

  run(): SimulationResult {
    this.#startWorker();
    this.#declare();
    this.#planTrouble();
    this.#runUntil(() => this.#agenda.now >= TROUBLE_TIME);
    this.#becomeKind();
    this.#converge();
    this.#desired = { generation: this.#desired.generation + 1, machines: [] };
    this.#converge();
    this.#requireEmpty();
    return { ...this.counts, events: this.#events };
  }

  #note(line: string): void {
    this.trace.push(`${Math.round(this.#agenda.now)} ${line}`);
    if (this.trace.length > 4 * TRACE_LENGTH) this.trace.splice(0, 2 * TRACE_LENGTH);
  }

  #require(condition: boolean, rule: string): void {
    if (!condition) throw new Error(rule);
  }

  #runUntil(isOver: () => boolean): void {
    while (!isOver() && this.#agenda.advance()) {
      this.#events += 1;
      this.#require(this.#events < EVENTS_LIMIT, "it does not come to rest");
      for (const [id, held] of this.#host.captures) {
        const later = this.#host.living().some((vmm) => vmm.memory === held.memory);
        const isOld = held.memory.runs !== held.runs;
        this.#require(!isOld || later, `capture ${id} is older than its memory, which is gone`);
      }
    }
  }

  // The worker.

  #startWorker(): void {
    this.#workers += 1;
    this.#worker = this.#workers;
    this.#machines = new Map();
    this.#watched = new Set();
    this.#note(`worker ${this.#workers} starts`);
    for (const [name, { note }] of [...this.#host.disk]) {
      // Declared, and killed before anything was noted: nothing was done for it.
      if (note === undefined) this.#host.disk.delete(name);
      if (note === undefined || this.#options.faults?.forgetsNotes === true) continue;
      const vmm = this.#host.vmms.get(note.instance?.invocation ?? "");
      const isBlind = this.#options.faults?.takesForDead === true;
      const alive = vmm?.isAlive === true && !isBlind ? note.instance : undefined;
      if (alive !== undefined) {
        this.#watched.add(alive.invocation);
        this.counts.adoptions += 1;
      }
      this.#handle(name, { kind: "adopted", note, alive });
      if (this.#worker !== this.#workers) return;
    }
  }

  #killWorker(): void {
    if (this.#worker === undefined) return;
    this.#note("the worker is killed");
    this.counts.workerDeaths += 1;
    this.#worker = undefined;
    this.#agenda.after(this.#chance.below(3_000) + 1, () => {
      if (this.#worker === undefined) this.#startWorker();
    });
  }

  /** Later, if the same worker lives. */
  #later(most: number, act: () => void): void {
    const worker = this.#worker;
    this.#agenda.after(this.#chance.below(most) + 1, () => {
      if (this.#worker === worker && worker !== undefined) act();
    });
  }

  #handle(name: string, event: MachineEvent): void {
    if (this.#worker === undefined) return;
    const before = this.#machines.get(name) ?? initialState;
    const simulation = this;
    const { table } = this.#options;
    const outcome = step(
      before,
      event,
      {
        rules: this.#rules,
        now: this.#agenda.now,
        random: this.#chance.random(),
        get nextInvocation() {
          simulation.#invocations += 1;
          return `i${simulation.#invocations}`;
        },
      },
      table,
    );
    this.#machines.set(name, outcome.state);
    if (outcome.state !== before || outcome.effects.length > 0) {
      this.#note(`${name} ${JSON.stringify(event)} → ${outcome.state.phase}`);
    }
    if (outcome.state.phase === "detached" && before.phase !== "detached") {
      this.counts.detachments += 1;
    }
    const [first, ...rest] = outcome.effects;
    const isLate = this.#options.faults?.notesLate === true && first?.kind === "note";
    this.#performAll(name, isLate ? [...rest, first] : outcome.effects);
    this.#planDeadline(name);
  }

  #performAll(name: string, effects: readonly MachineEffect[]): void {
    const worker = this.#worker;
    for (const effect of effects) {
      if (this.#chance.happens(this.#troubles.killsWorker)) this.#killWorker();
      if (this.#worker !== worker) return;
      if (effect.kind !== "record") this.#note(`  ${JSON.stringify(effect).slice(0, 160)}`);
      this.#perform(name, effect);
      if (this.#chance.happens(this.#troubles.killsWorker)) this.#killWorker();
      if (this.#worker !== worker) return;
    }
  }

  #planDeadline(name: string): void {
    const state = this.#machines.get(name);
    const deadline = state === undefined ? undefined : deadlineOf(state);
    if (deadline === undefined || this.#worker === undefined) return;
    this.#require(deadline >= this.#agenda.now, `a deadline of ${name} lies in the past`);
    const worker = this.#worker;
    this.#agenda.after(deadline - this.#agenda.now, () => {
      const now = this.#machines.get(name);
      if (this.#worker !== worker || now === undefined || deadlineOf(now) !== deadline) return;
      this.#handle(name, { kind: "deadline" });
      const later = this.#machines.get(name);
      const next = later === undefined ? undefined : deadlineOf(later);
      const stays = this.#worker === worker && next !== undefined && next <= this.#agenda.now;
      this.#require(!stays, `a deadline of ${name} stays`);
    });
  }

  // What the worker's effects do to the host.

  #perform(name: string, effect: MachineEffect): void {
    switch (effect.kind) {
      case "note":
        this.#write(name, effect.note);
        break;
      case "prepare":
        this.#prepare(name, effect.invocation);
        break;
      case "abandon":
        this.#answerLater(name, {
          kind: "prepare-refused",
          invocation: effect.invocation,
          refusal: { message: "abandoned", code: "ECANCELED", lasts: false },
        });
        break;
      case "connect-network":
        this.#connectNetwork(name, effect.invocation);
        break;
      case "spawn":
        this.#spawn(name, effect);
        break;
      case "find":
        this.#find(name, effect.invocation);
        break;
      case "attach":
        this.#attach(name, effect);
        break;
      case "kill":
        this.#kill(name, effect.instance.invocation);
        break;
      case "end-beside":
        if (this.#options.faults?.leavesBeside !== true) this.#kill(name, effect.invocation);
        this.#answerLater(name, { kind: "beside-ended", invocation: effect.invocation });
        break;
      case "clear":
        this.#clear(name, effect);
        break;
      case "forget-capture":
        this.#forget(name, effect.capture);
        break;
      case "discard":
        this.#discard(name);
        break;
      case "record":
        break;
      case "send":
      case "receive":
      case "abandon-send":
      case "hand-over":
      case "confirm":
        throw new Error(
          `${name}: nobody asked for a migration: two hosts have a test of their own`,
        );
      default:
        this.#order(name, effect);
    }
  }

  #answerLater(name: string, event: MachineEvent, most = 100): void {
    const { late, doubled } = this.#troubles;
    const time = this.#chance.happens(late) ? 25_000 : most;
    this.#later(time, () => this.#handle(name, event));
    if (this.#chance.happens(doubled)) this.#later(2 * time, () => this.#handle(name, event));
  }

  #write(name: string, note: NonNullable<Written["note"]>): void {
    const written = this.#host.disk.get(name);
    if (written === undefined) throw new Error(`${name} is noted, and was not declared`);
    const read = decodeNote(encodeNote(note));
    if (read.kind !== "ok") throw new Error(`a note of ${name} cannot be read`);
    written.note = read.note;
    if (note.stage === "removed") this.#host.disk.delete(name);
  }

  #prepare(name: string, invocation: string): void {
    this.#require(this.#host.livingOf(name).length === 0, `${name} is prepared, and lives`);
    if (this.#chance.happens(this.#troubles.refuses)) {
      const refusal = { message: "no space left", code: "ENOSPC", lasts: false };
      this.#answerLater(name, { kind: "prepare-refused", invocation, refusal });
      return;
    }
    this.#host.prepared.add(name);
    this.#answerLater(name, { kind: "prepared", invocation }, 2_000);
  }

  #connectNetwork(name: string, invocation: string): void {
    if (this.#chance.happens(this.#troubles.refuses)) {
      const refusal = { message: "no address is free", code: undefined, lasts: false };
      this.#answerLater(name, { kind: "network-refused", invocation, refusal });
      return;
    }
    this.#answerLater(name, { kind: "network-ready", invocation });
  }

  #spawn(name: string, effect: Extract<MachineEffect, { kind: "spawn" }>): void {
    const { invocation, beginning } = effect;
    const note = this.#host.disk.get(name)?.note;
    const isBeside = beginning.kind === "beside";
    const isNoted = isBeside
      ? note?.beside === invocation
      : note?.stage === "starting" && note.invocation === invocation;
    this.#require(isNoted, "noted first");
    this.#require(this.#host.prepared.has(name), `${name} is spawned without its files`);
    this.counts.spawns += 1;
    if (this.#chance.happens(this.#troubles.refuses)) {
      const refusal = { message: "no such program", code: "ENOENT", lasts: false };
      this.#answerLater(name, { kind: "spawn-refused", invocation, refusal });
      return;
    }
    if (beginning.kind === "beside") this.counts.replacements += 1;
    const bare = beginning.kind === "incoming" ? "incoming" : "created";
    const vmm =
      beginning.kind === "beside"
        ? this.#host.spawn(name, invocation, {
            guest: "incoming",
            beside: beginning.former.invocation,
          })
        : this.#host.spawn(name, invocation, {
            guest: this.#chance.pick(["empty", bare] as const),
          });
    const isLost = this.#chance.happens(this.#troubles.loses);
    if (!isLost) this.#tellSpawned(name, vmm, "spawned");
    if (this.#chance.happens(this.#troubles.crashes)) this.#crashLater(vmm, 200);
  }

  /** Whoever is told is watched from then on: a death before it is told right after. */
  #tellSpawned(name: string, vmm: Vmm, kind: "spawned" | "found"): void {
    const { invocation, processId } = vmm;
    const time = this.#chance.happens(this.#troubles.late) ? 25_000 : 50;
    this.#later(time, () => {
      const isNew = !this.#watched.has(invocation);
      this.#watched.add(invocation);
      this.#handle(name, { kind, invocation, processId, startTicks: processId });
      if (isNew && !vmm.isAlive) this.#tellDeath(vmm, undefined);
    });
  }

  #find(name: string, invocation: string): void {
    this.counts.searches += 1;
    const vmm = this.#host.vmms.get(invocation);
    if (vmm?.isAlive === true) this.#tellSpawned(name, vmm, "found");
    else this.#answerLater(name, { kind: "not-found", invocation });
  }

  #tellDeath(vmm: Vmm, status: number | undefined): void {
    this.#note(`  VMM ${vmm.invocation} of ${vmm.name} is dead`);
    if (!this.#watched.has(vmm.invocation)) return;
    const ending = status === undefined ? undefined : ({ kind: "exited", status } as const);
    const { invocation, name } = vmm;
    this.#later(20, () => this.#handle(name, { kind: "died", invocation, ending }));
  }

  #crashLater(vmm: Vmm, most: number): void {
    this.#agenda.after(this.#chance.below(most) + 1, () => this.#host.end(vmm, 1));
  }

  #attach(name: string, effect: Extract<MachineEffect, { kind: "attach" }>): void {
    const { invocation } = effect.instance;
    const { ticket } = effect;
    const refusal = { message: "connection refused", code: "ECONNREFUSED", lasts: false };
    const time = this.#chance.happens(this.#troubles.late) ? 10_000 : 50;
    const vmm = this.#host.vmms.get(invocation);
    if (vmm !== undefined) vmm.connections += 1;
    this.#later(time, () => {
      const answers = vmm?.isAlive === true && !vmm.isHung;
      if (!answers || this.#chance.happens(this.#troubles.refuses)) {
        if (this.#chance.happens(0.5)) return;
        this.#handle(name, { kind: "attach-refused", invocation, ticket, refusal });
        return;
      }
      const captured = effect.capture !== undefined && this.#host.captures.has(effect.capture);
      const { guest } = vmm;
      this.#handle(name, { kind: "attached", invocation, ticket, guest, captured });
    });
  }

  /** An order over the connection: it may be carried out and its answer lost. */
  #order(
    name: string,
    effect: Extract<MachineEffect, { ticket: number }> & { kind: Exclude<string, "attach"> },
  ): void {
    const { kind, ticket } = effect;
    if (kind === "attach") return;
    const { invocation } = effect.instance;
    const refusal = { message: `${kind} is refused`, code: undefined, lasts: false };
    const worker = this.#worker;
    const connection = this.#host.vmms.get(invocation)?.connections;
    this.#agenda.after(this.#chance.below(40) + 1, () => {
      const vmm = this.#host.vmms.get(invocation);
      if (vmm === undefined || !vmm.isAlive || vmm.isHung) return;
      // What is captured is written by the worker that asked for it, over that connection.
      const isOurs = this.#worker === worker && vmm.connections === connection;
      if (!isOurs && (kind === "capture" || kind === "snapshot")) return;
      const isRefused = this.#chance.happens(this.#troubles.refuses);
      const isDone = !isRefused && this.#carryOut(name, vmm, effect);
      if (this.#chance.happens(this.#troubles.loses)) return;
      const isTaken = kind === "snapshot" && this.#host.captures.has(effect.capture);
      const taken = isTaken ? ("taken" as const) : ("kept" as const);
      const answer = { invocation, ticket, call: kind };
      const event: MachineEvent = isDone
        ? { kind: "done", ...answer, machine: taken }
        : { kind: "refused", ...answer, refusal };
      this.#answerLater(name, event, 20);
    });
  }

  #carryOut(name: string, vmm: Vmm, effect: Extract<MachineEffect, { ticket: number }>): boolean {
    switch (effect.kind) {
      case "create":
        if (vmm.guest !== "empty" && vmm.guest !== "created") return false;
        vmm.guest = "created";
        return true;
      case "boot":
        if (vmm.guest !== "created") return false;
        this.#host.boot(vmm);
        return true;
      case "pause":
        if (vmm.guest !== "running") return vmm.guest === "paused";
        vmm.guest = "paused";
        return true;
      case "resume":
        if (vmm.guest !== "paused") return vmm.guest === "running";
        this.#host.resume(vmm);
        return true;
      case "press-power-button":
        if (vmm.guest !== "running") return false;
        if (this.#chance.happens(0.7)) this.#turnOff(vmm, 3_000);
        return true;
      case "quit":
        this.#requireMayEnd(name, vmm);
        this.#host.end(vmm, 0);
        return true;
      case "snapshot":
        // Some hypervisors write it while they keep the machine.
        return this.#chance.happens(0.5) || this.#capture(vmm, effect.capture);
      case "capture":
        return this.#capture(vmm, effect.capture);
      case "restore":
        return this.#restore(name, vmm, effect.capture);
      default:
        throw new Error(`${effect.kind} is no order`);
    }
  }

  #turnOff(vmm: Vmm, most: number): void {
    this.#agenda.after(this.#chance.below(most) + 1, () => {
      if (!vmm.isAlive || vmm.guest !== "running") return;
      vmm.guest = "off";
      if (this.#chance.happens(0.3)) this.#host.end(vmm, 0);
      else this.#tell(vmm, { kind: "guest-off", by: "guest", invocation: vmm.invocation });
    });
  }

  /** What a VMM says by itself. */
  #tell(vmm: Vmm, event: MachineEvent): void {
    if (vmm.isHung || this.#chance.happens(this.#troubles.loses)) return;
    this.#answerLater(vmm.name, event, 50);
  }

  #capture(vmm: Vmm, id: string): boolean {
    const { memory } = vmm;
    if (vmm.guest !== "paused" || memory === undefined) return false;
    this.#host.captures.set(id, { memory, runs: memory.runs });
    // One of the hypervisors ends by itself when it has given its machine away.
    if (this.#chance.happens(0.3)) this.#host.end(vmm, 0);
    return true;
  }

  #restore(name: string, vmm: Vmm, id: string): boolean {
    const held = this.#host.captures.get(id);
    if (vmm.guest !== "incoming" && vmm.guest !== "empty") return false;
    if (held === undefined) {
      const event = { kind: "capture-lost", capture: id, reason: "nobody holds it" } as const;
      this.#answerLater(name, event);
      return false;
    }
    this.#require(held.memory.runs === held.runs, `${name} is given a state that is old`);
    const other = this.#host.livingOf(name).find(({ memory }) => memory === held.memory);
    this.#require(other === undefined, `${name} is given what ${other?.invocation} still has`);
    vmm.memory = held.memory;
    vmm.restoredFrom = id;
    vmm.guest = "paused";
    return true;
  }

  /** A guest is ended only for a wish, a fault of its own, or when its state is held. */
  #requireMayEnd(name: string, vmm: Vmm): void {
    const hasGuest = vmm.guest === "running" || vmm.guest === "paused";
    const mayEnd = !hasGuest || vmm.isGuilty || this.#host.isSafe(vmm);
    const isWished = this.#wished.get(name) === "ended";
    this.#require(mayEnd || isWished, `${name} is ended by mistake`);
  }

  #kill(name: string, invocation: string): void {
    const vmm = this.#host.vmms.get(invocation);
    if (vmm?.isAlive !== true) return;
    this.#requireMayEnd(name, vmm);
    this.#host.end(vmm, undefined);
  }

  #clear(name: string, effect: Extract<MachineEffect, { kind: "clear" }>): void {
    const { invocation } = effect.instance;
    const vmm = this.#host.vmms.get(invocation);
    this.#require(vmm?.isAlive !== true, `the living ${invocation} is cleared`);
    if (vmm !== undefined) vmm.isCleared = true;
    const { capture } = effect;
    const captured = capture !== undefined && this.#host.captures.has(capture);
    this.#answerLater(name, { kind: "cleared", invocation, captured });
  }

  /** What was captured is the machine, where no VMM has it. */
  #forget(name: string, id: string): void {
    this.#later(5, () => this.#handle(name, { kind: "forgotten", capture: id }));
    const held = this.#host.captures.get(id);
    if (held === undefined) return;
    const isLast = !this.#host.isSomewhere(id, held);
    const isWished = this.#wished.get(name) === "ended";
    this.#require(!isLast || isWished, `capture ${id} is dropped, and no VMM has ${name}`);
    this.#host.captures.delete(id);
  }

  #discard(name: string): void {
    this.#require(this.#host.livingOf(name).length === 0, `${name} is discarded, and lives`);
    this.#require(this.#wished.get(name) === "ended", `${name} is discarded, and is wanted`);
    if (this.#chance.happens(this.#troubles.refuses)) {
      const refusal = { message: "device busy", code: "EBUSY", lasts: false };
      this.#answerLater(name, { kind: "discard-refused", refusal });
      return;
    }
    this.#host.prepared.delete(name);
    this.#answerLater(name, { kind: "discarded" });
  }

  // Who wants something.

  #wish(name: string, event: MachineEvent): void {
    if (this.#worker === undefined) return;
    if (event.kind === "delete" || event.kind === "shutdown") this.#wished.set(name, "ended");
    const phase = this.#phaseOf(name);
    this.#handle(name, event);
    // A start does not make innocent what was wished before and is under way.
    const isOver = !["stopping", "clearing", "detached"].includes(phase);
    const isWanted = this.#machines.get(name)?.wanted === "running";
    if (event.kind === "create" || (event.kind === "boot" && isOver && isWanted)) {
      this.#wished.set(name, "there");
    }
  }

  #phaseOf(name: string): MachineState["phase"] {
    return this.#machines.get(name)?.phase ?? "absent";
  }

  #declare(): void {
    const chosen = names.filter(() => this.#chance.happens(0.8));
    this.#desired = {
      generation: this.#desired.generation + 1,
      machines: chosen.map((name) => ({
        spec: { name, kernelPath: "/kernel", cpu: this.#chance.happens(0.8) ? 1 : 2 },
        power: this.#chance.pick(["running", "running", "running", "paused", "created", "off"]),
      })),
    };
    this.#reconcile();
  }

  #observe(): ObservedMachine[] {
    const isBlind = this.#options.faults?.collectsDetached === true;
    return [...this.#machines].map(([name, { phase, wanted, reason }]) => {
      const written = this.#host.disk.get(name);
      return {
        ...{ name, wanted, reason, spec: written?.spec },
        phase: isBlind && phase === "detached" ? ("failed" as const) : phase,
        declaredPower: written?.declaredPower,
        owner: "declared" as const,
      };
    });
  }

  #reconcile(): readonly Command[] {
    if (this.#worker === undefined) return [];
    const worker = this.#worker;
    const { commands } = reconcile(this.#desired, this.#observe());
    for (const command of commands) {
      if (this.#worker !== worker) break;
      this.#command(command);
    }
    return commands;
  }

  #command(command: Command): void {
    const { name } = command;
    this.counts.commands += 1;
    this.#note(`${name}: the reconciler says ${command.kind}`);
    const phase = this.#phaseOf(name);
    this.#require(phase !== "detached" && phase !== "uncertain", `${name} is ${phase}, and told`);
    if (command.kind === "create") {
      const { spec, power } = command.machine;
      this.#host.disk.set(name, { spec, declaredPower: power, note: undefined });
    }
    const power = this.#desired.machines.find(({ spec }) => spec.name === name)?.power;
    const written = this.#host.disk.get(name);
    if (command.kind === "adjust") {
      if (written !== undefined) this.#host.disk.set(name, { ...written, spec: command.spec });
      return;
    }
    // No machine of this host came from another one.
    this.#require(command.kind !== "adopt", `${name} is adopted by its declaration`);
    if (command.kind === "adopt") return;
    if (written !== undefined && command.kind === "power") written.declaredPower = power;
    this.#wish(name, eventOf(command));
  }

  // Trouble.

  #planTrouble(): void {
    this.#agenda.after(this.#chance.below(2 * this.#troubles.interval) + 1, () => {
      if (this.#agenda.now >= TROUBLE_TIME) return;
      if (this.#chance.happens(0.1)) this.#declare();
      else if (this.#chance.happens(0.4)) this.#reconcile();
      else if (this.#chance.happens(0.45)) this.#operate();
      else if (this.#chance.happens(0.2)) this.#poll();
      else this.#makeTrouble();
      this.#planTrouble();
    });
  }

  #operate(): void {
    const name = this.#chance.pick(names);
    const kind = this.#chance.pick([
      ...(["boot", "pause", "resume", "replace", "replace", "replace", "snapshot"] as const),
      "shutdown",
    ]);
    if (!this.#host.disk.has(name)) return;
    if (kind === "shutdown") this.#wish(name, { kind, hurry: this.#chance.happens(0.3) });
    else if (kind === "snapshot") this.#wish(name, { kind, snapshot: "today" });
    else this.#wish(name, { kind });
  }

  #makeTrouble(): void {
    const living = this.#host.living();
    if (living.length === 0) return;
    const vmm = this.#chance.pick(living);
    const { invocation } = vmm;
    const trouble = this.#chance.pick([
      ...(["crash", "hang", "hang", "off", "panic", "lost", "lost", "by-hand"] as const),
      ...(["lie", "stale", "worker", "reset"] as const),
    ]);
    this.#note(`trouble: ${trouble} of ${vmm.name} ${invocation}`);
    if (trouble === "crash") this.#host.end(vmm, this.#chance.pick([0, 1, undefined]));
    else if (trouble === "hang") this.#hang(vmm);
    else if (trouble === "off") this.#turnOff(vmm, 1);
    else if (trouble === "worker") this.#killWorker();
    else if (trouble === "lost") {
      this.#later(5, () =>
        this.#handle(vmm.name, { kind: "connection-lost", invocation, reason: "end of stream" }),
      );
    } else if (trouble === "panic") this.#panic(vmm);
    else if (trouble === "by-hand") this.#steerByHand(vmm);
    else if (trouble === "reset") this.#tell(vmm, { kind: "guest-reset", invocation });
    else if (trouble === "lie") this.#lie(vmm);
    else this.#sayStale(vmm.name);
  }

  #hang(vmm: Vmm): void {
    vmm.isHung = true;
    this.#agenda.after(this.#chance.below(40_000) + 1, () => {
      vmm.isHung = false;
    });
  }

  /** With the metrics; the answer may be of a moment before the last order. */
  #poll(): void {
    for (const [name, state] of this.#machines) {
      const instance = instanceOf(state);
      const vmm = this.#host.vmms.get(instance?.invocation ?? "");
      if (vmm?.isAlive !== true || vmm.isHung) continue;
      const { invocation, guest } = vmm;
      this.#later(50, () => this.#handle(name, { kind: "observed", invocation, guest }));
    }
  }

  #panic(vmm: Vmm): void {
    if (vmm.guest !== "running") return;
    vmm.isGuilty = true;
    this.#tell(vmm, { kind: "guest-panic", invocation: vmm.invocation });
  }

  #steerByHand(vmm: Vmm): void {
    const { invocation } = vmm;
    if (vmm.isHung) return;
    if (vmm.guest === "running") {
      vmm.guest = "paused";
      this.#tell(vmm, { kind: "paused", invocation });
    } else if (vmm.guest === "paused" && !this.#host.isSafe(vmm)) {
      this.#host.resume(vmm);
      this.#tell(vmm, { kind: "resumed", invocation });
    }
  }

  /** Says something that is not so; what follows is its own fault. */
  #lie(vmm: Vmm): void {
    const { invocation } = vmm;
    const kind = this.#chance.pick(["booted", "paused", "resumed", "guest-off", "guest-panic"]);
    if (kind === "guest-off" || kind === "guest-panic") vmm.isGuilty = true;
    if (kind === "guest-off") this.#tell(vmm, { kind, by: "guest", invocation });
    else this.#tell(vmm, { kind, invocation });
  }

  /** Words of instances that are gone, or never were. */
  #sayStale(name: string): void {
    const dead = [...this.#host.vmms.values()].filter((vmm) => !vmm.isAlive);
    const invocation = dead.length > 0 ? this.#chance.pick(dead).invocation : "unheard-of";
    const refusal = { message: "stale", code: undefined, lasts: true };
    const ticket = this.#chance.below(5);
    this.#handle(
      name,
      this.#chance.pick<MachineEvent>([
        { kind: "guest-off", by: "guest", invocation },
        { kind: "guest-panic", invocation },
        { kind: "died", invocation, ending: undefined },
        { kind: "cleared", invocation, captured: true },
        { kind: "not-found", invocation },
        { kind: "connection-lost", invocation, reason: "stale" },
        { kind: "attached", invocation, ticket, guest: "empty", captured: true },
        { kind: "refused", invocation, ticket, call: "boot", refusal },
        { kind: "spawn-refused", invocation, refusal },
        { kind: "capture-lost", capture: "unheard-of", reason: "stale" },
      ]),
    );
  }

  // The end.

  #becomeKind(): void {
    this.#note("the world becomes kind");
    this.#troubles = makeTroubles(undefined);
    for (const vmm of this.#host.living()) vmm.isHung = false;
    if (this.#worker === undefined) this.#startWorker();
    this.#runUntil(() => false);
    this.#poll();
    this.#runUntil(() => false);
    // A new declaration: what operators and guests wanted meanwhile does not stand against it.
    for (const written of this.#host.disk.values()) written.declaredPower = undefined;
    for (const name of this.#machines.keys()) {
      if (this.#phaseOf(name) === "failed") this.#wish(name, { kind: "boot" });
    }
    this.#runUntil(() => false);
  }

  #converge(): void {
    for (let pass = 0; pass < PASSES; pass += 1) {
      const commands = this.#reconcile();
      this.#runUntil(() => false);
      if (commands.length === 0) break;
      this.#require(pass < PASSES - 1, "the reconciler does not come to an end");
    }
    const { commands, convergencePercent, standings } = reconcile(this.#desired, this.#observe());
    this.#require(commands.length === 0, "a second pass has something to do");
    const isHard = standings.some(({ status }) => status !== "converged" && status !== "drifted");
    this.#require(!isHard, `not converged: ${JSON.stringify(standings)}`);
    const drifted = standings.filter(({ status }) => status === "drifted");
    // What has run is not ended to be as new.
    const isFine = drifted.every(({ name }) => this.#powerOf(name) === "created");
    this.#require(isFine, `drifted: ${JSON.stringify(drifted)}`);
    this.#require(convergencePercent === 100 || drifted.length > 0, `${convergencePercent} %`);
    this.#requireAsDeclared();
  }

  #powerOf(name: string): string | undefined {
    return this.#desired.machines.find(({ spec }) => spec.name === name)?.power;
  }

  /** Nobody was lost, nobody lives whom nobody knows. */
  #requireAsDeclared(): void {
    for (const vmm of this.#host.living()) {
      const state = this.#machines.get(vmm.name);
      const known = state === undefined ? undefined : instanceOf(state);
      this.#require(known?.invocation === vmm.invocation, `nobody knows ${vmm.invocation}`);
    }
    for (const { spec, power } of this.#desired.machines) {
      const [vmm, ...others] = this.#host.livingOf(spec.name);
      this.#require(others.length === 0, `two VMMs of ${spec.name}`);
      const isThere = power === "off" ? vmm === undefined : vmm !== undefined;
      // What was off already is not made anew to be created.
      this.#require(isThere || power === "created", `${spec.name} is lost`);
      const isSame = vmm === undefined || vmm.guest === power || power === "created";
      this.#require(isSame, `${spec.name} is ${vmm?.guest}, and was declared ${power}`);
    }
    this.#require(this.#host.captures.size === 0, "captures are left over");
  }

  #requireEmpty(): void {
    this.#require(this.#host.living().length === 0, "somebody lives on");
    this.#require(this.#host.disk.size === 0, "notes are left over");
    this.#require(this.#host.prepared.size === 0, "files are left over");
  }
}
