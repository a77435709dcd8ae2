/**
 * A deterministic simulation: the pure orchestration over simulated agents, processes and
 * connections, under a false clock. The same seed gives the same run.
 *
 * After some time of trouble the world becomes kind; then everything that is wanted must run, and
 * after a shutdown nothing may live. What must always be so is checked after every event.
 */
import {
  initialState,
  type ProcessEffect,
  type ProcessState,
  type Table,
} from "../../src/process/lifecycle.ts";
import {
  adopt,
  type FoundInstance,
  type LeftProcess,
} from "../../src/process/lifecycle-adoption.ts";
import {
  type AddressedEffect,
  blockersOf,
  effectsToRepeat,
  initialOrchestration,
  isActive,
  isDown,
  makePlan,
  nextDeadline,
  type OrchestrationEvent,
  type OrchestrationState,
  type Plan,
  step,
  type Wish,
} from "../../src/process/orchestration.ts";
import { keptHeader, keptLine, readKept } from "../../src/process/protocol-kept.ts";
import { decodeState, encodeState, type HeldEvent } from "../../src/process/protocol-state.ts";
import { ConfigurationChange } from "../../src/process/reload-change.ts";
import { describePlan, planReload } from "../../src/process/reload-plan.ts";
import type { Configuration, ProcessSpecification } from "../../src/process/specification.ts";
import type { MonotonicTime } from "../../src/units/units.ts";
import { SeededChance } from "./chance.ts";
import { makeState } from "./orchestrator-state.ts";
import { Agenda } from "./simulation/agenda.ts";
import type { Faults } from "./simulation/agent.ts";
import {
  editConfiguration,
  makeConfiguration,
  partitionNames,
} from "./simulation/configuration.ts";
import { Driver } from "./simulation/driver.ts";
import { type Invariants, requireInvariants } from "./simulation/invariants.ts";
import { makeTroubles, type Troubles } from "./simulation/troubles.ts";

export interface SimulationOptions {
  readonly seed: number;
  readonly faults?: Faults;
  /** Another table of decisions, to prove that the simulation notices. */
  readonly table?: Table;
  /** The orchestrator becomes another program now and then, while the world goes on. */
  readonly reexecutes?: "well" | "loses what comes meanwhile";
  /** The orchestrator is killed now and then, and another one follows; or how that one fails. */
  readonly crashes?: "well" | "starts anew beside it" | "forgets exits";
  /** The configuration is another one now and then; or how it is put in wrongly. */
  readonly reloads?: "well" | "before it has stopped" | "forgets who goes";
  /** Shown every state after the event that led to it. */
  readonly onState?: (moment: Moment) => void;
}

/** A state that was reached, and when. */
export interface Moment {
  readonly plan: Plan;
  readonly state: OrchestrationState;
  readonly now: MonotonicTime;
}

export interface SimulationResult {
  readonly events: number;
  readonly starts: number;
  readonly deaths: number;
  readonly searches: number;
  readonly adoptions: number;
  /** How often it became another program, and how many events came in those gaps. */
  readonly reexecutions: number;
  readonly held: number;
  /** How often it was killed, how many instances the next one went on with, or said to be lost. */
  readonly crashes: number;
  readonly goneOnWith: number;
  readonly lost: number;
  /** How many configurations were put in, and processes that were others by them, or gone. */
  readonly reloads: number;
  readonly renewed: number;
}

const TROUBLE_TIME = 20_000;
/** Milliseconds after which the holder has what has changed. */
const KEEP_AFTER = 2;
const BOOT = "9a0c7f5e-6b5c-4b0e-9d8c-1f6f6f6f6f6f";
/** Milliseconds between two re-executions, and in one of them; at most. */
const REEXECUTION_INTERVAL = 2_000;
const LONGEST_GAP = 400;
const AGENDA_LIMIT = 2_000;
const EVENTS_LIMIT = 200_000;
/** Milliseconds between two configurations, at most. */
const RELOAD_INTERVAL = 4_000;
/** Events after which nothing of an invocation lives, and nothing can begin to. */
const ENDS: readonly string[] = ["cleared", "start-refused", "not-found"];
const TRACE_LENGTH = 80;

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
  readonly #chance: SeededChance;
  readonly #agenda = new Agenda(AGENDA_LIMIT);
  #configuration: Configuration;
  #plan: Plan;
  readonly #driver: Driver;
  readonly #options: SimulationOptions;
  readonly #invariants: Invariants;
  #change: ConfigurationChange<never> | undefined;
  readonly #reloads = { reloads: 0, renewed: 0 };
  /** By what each instance was started. */
  readonly #startedBy = new Map<string, ProcessSpecification>();
  #troubles: Troubles;
  /** Who is to run since the world became kind. */
  readonly #askedFor = new Set<string>();
  #state: OrchestrationState;
  #invocations = 0;
  #events = 0;
  #plannedDeadline: number | undefined;
  /** What came while no decision is made; undefined while they are. */
  #held: HeldEvent[] | undefined;
  #reexecutions = 0;
  #heldEvents = 0;
  /** Nobody decides: it was killed. */
  #isDead = false;
  #keepsLater = false;
  /** What the holder has: the journal, and pidfds. */
  #written: OrchestrationState;
  #pidfds: ReadonlySet<string> = new Set();
  /** By invocation, the names of starts in the crash journal. */
  readonly #starts = new Map<string, string>();
  /** Instances whose ends must have been told, and what was told of whom. */
  readonly #owed = new Set<string>();
  readonly #told = new Set<string>();
  readonly #crashes = { crashes: 0, goneOnWith: 0, lost: 0 };

  constructor(options: SimulationOptions) {
    this.#options = options;
    const chance = new SeededChance(options.seed);
    this.#chance = chance;
    this.#configuration = makeConfiguration(chance);
    this.#plan = makePlan(this.#configuration);
    this.#state = initialOrchestration(this.#plan);
    this.#written = this.#state;
    this.#troubles = makeTroubles(chance);
    this.#driver = new Driver({
      agenda: this.#agenda,
      chance,
      troubles: () => this.#troubles,
      faults: options.faults ?? {},
      partitions: partitionNames,
      onEvent: (event) => this.#handle(event),
      note: (line) => this.#note(line),
    });
    const plan = () => this.#plan;
    this.#invariants = {
      get plan() {
        return plan();
      },
      world: this.#driver.world,
    };
  }

  run(): SimulationResult {
    this.#handle({ kind: "boot" });
    this.#driver.begin();
    this.#planTrouble();
    if (this.#options.reexecutes !== undefined) this.#planReexecution();
    if (this.#options.crashes !== undefined) this.#planCrash();
    if (this.#options.reloads !== undefined) this.#planReload();
    const isAwake = () => this.#held === undefined && !this.#isDead;
    this.#runUntil(() => this.#agenda.now >= TROUBLE_TIME && isAwake());
    this.#becomeKind();
    this.#runUntil(() => false);
    this.#requireAllRun();
    this.#shutDown();
    this.#requireAllTold();
    const reexecutions = { reexecutions: this.#reexecutions, held: this.#heldEvents };
    return {
      ...this.#driver.counts,
      ...reexecutions,
      ...this.#crashes,
      ...this.#reloads,
      events: this.#events,
    };
  }

  #note(line: string): void {
    this.trace.push(`${this.#agenda.now} ${line}`);
    if (this.trace.length > 4 * TRACE_LENGTH) this.trace.splice(0, 2 * TRACE_LENGTH);
  }

  #runUntil(isOver: () => boolean): void {
    while (!isOver() && this.#agenda.advance()) {
      this.#events += 1;
      if (this.#events > EVENTS_LIMIT) throw new Error("it does not come to rest");
      // In a gap the state is behind the world.
      if (this.#held !== undefined || this.#isDead) continue;
      requireInvariants(this.#invariants, this.#state);
      const now = this.#agenda.now;
      this.#options.onState?.({ plan: this.#plan, state: this.#state, now });
    }
  }

  #handle(event: OrchestrationEvent): void {
    if (this.#isDead) return;
    if (this.#held !== undefined) {
      // Time comes by itself, and nobody stops a simulation in a gap.
      if (event.kind !== "time") this.#held.push(event as HeldEvent);
      return;
    }
    this.#decide(event);
    if (this.#change?.advance() === true) this.#change = undefined;
    this.#planDeadline();
  }

  #decide(event: OrchestrationEvent): void {
    const { table } = this.#options;
    const outcome = step(this.#plan, this.#state, event, {
      now: this.#agenda.now,
      chance: {
        random: () => this.#chance.random(),
        invocation: () => (++this.#invocations).toString(16).padStart(32, "0"),
      },
      ...(table === undefined ? {} : { table }),
    });
    const forgets = this.#options.reloads === "forgets who goes" && event.kind === "renew";
    this.#state = forgets ? { ...outcome.state, renewing: new Map() } : outcome.state;
    this.#note(describe(event, this.#state));
    for (const effect of outcome.effects) this.#perform(effect);
    const isEnd = event.kind === "process" && ENDS.includes(event.event.kind);
    if (isEnd && "invocation" in event.event) this.#starts.delete(event.event.invocation);
    this.#keepLater();
  }

  /** The holder has all of it a little later. */
  #keepLater(): void {
    if (this.#options.crashes === undefined || this.#keepsLater) return;
    this.#keepsLater = true;
    this.#agenda.after(KEEP_AFTER, () => {
      this.#keepsLater = false;
      if (this.#isDead) return;
      this.#written = this.#state;
      this.#pidfds = new Set(this.#driver.watched);
    });
  }

  #perform({ name, effect }: AddressedEffect): void {
    const specification = this.#plan.specifications.get(name);
    if (specification === undefined) throw new Error(`an effect for ${name}, which there is not`);
    if (effect.kind !== "record") this.#note(`  ${describeEffect(effect)} ${name}`);
    else if (effect.entry.what === "ended" || effect.entry.what === "lost") {
      this.#told.add(effect.entry.invocation);
    }
    if (effect.kind === "start") {
      this.#starts.set(effect.invocation, name);
      this.#startedBy.set(effect.invocation, specification);
    }
    this.#driver.perform(specification, effect);
  }

  /** Like a timer that is set anew after each decision. */
  #planDeadline(): void {
    const deadline = nextDeadline(this.#state);
    if (deadline === undefined || deadline === this.#plannedDeadline) return;
    if (deadline < this.#agenda.now) throw new Error("a deadline lies in the past");
    this.#plannedDeadline = deadline;
    this.#agenda.after(deadline - this.#agenda.now, () => {
      if (this.#plannedDeadline !== deadline || this.#isDead) return;
      this.#plannedDeadline = undefined;
      this.#handle({ kind: "time" });
      if (this.#held !== undefined || this.#isDead) return;
      const next = nextDeadline(this.#state);
      if (next !== undefined && next <= this.#agenda.now) throw new Error("a deadline stays");
    });
  }

  #planReexecution(): void {
    this.#agenda.after(this.#chance.below(REEXECUTION_INTERVAL) + 1, () => {
      if (this.#agenda.now >= TROUBLE_TIME) return;
      this.#note("holds");
      this.#held = [];
      this.#agenda.after(this.#chance.below(LONGEST_GAP), () => this.#goOn());
    });
  }

  /** The next program: what it was handed, what it begins again, and what came meanwhile. */
  #goOn(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    const { processes, reachable } = this.#state;
    const encoded = encodeState(
      makeState(Object.fromEntries(processes), { reachable: [...reachable], held }),
    );
    const decoded = decodeState(encoded);
    if ("refusal" in decoded) throw new Error(JSON.stringify(decoded.refusal));
    const { state } = decoded;
    this.#note(`goes on with ${held.length} events`);
    this.#reexecutions += 1;
    this.#heldEvents += held.length;
    this.#state = {
      processes: new Map(state.processes.map(({ name, state: process }) => [name, process])),
      reachable: new Set(state.reachable),
      shutdown: "no",
      renewing: new Map(),
    };
    for (const again of effectsToRepeat(this.#plan, this.#state)) this.#perform(again);
    // What came before a deadline that has passed meanwhile is decided before it.
    const came = this.#options.reexecutes === "loses what comes meanwhile" ? [] : state.held;
    for (const event of came) this.#decide(event);
    this.#handle({ kind: "time" });
    this.#planReexecution();
  }

  #planReload(): void {
    this.#agenda.after(this.#chance.below(RELOAD_INTERVAL) + 1, () => {
      if (this.#agenda.now >= TROUBLE_TIME) return;
      if (this.#change === undefined) this.#reload();
      this.#planReload();
    });
  }

  /** An operator has edited the file. */
  #reload(): void {
    const next = editConfiguration(this.#chance, this.#configuration);
    const plan = planReload(this.#configuration, next);
    const { added, removed, changed } = plan.processes;
    this.#note(`reloads: ${describePlan(plan).join("; ")}`);
    this.#reloads.reloads += 1;
    this.#reloads.renewed += removed.length + changed.length;
    const configuration = () => this.#configuration;
    const state = () => this.#seenState();
    this.#change = new ConfigurationChange<never>(
      {
        get configuration() {
          return configuration();
        },
        get state() {
          return state();
        },
        performer: {
          // An armed start is taken back first.
          settle: (_name, act) => this.#agenda.after(this.#chance.below(5), act),
          add: () => {},
          renew: () => {},
          remove: () => {},
          addPartition: () => {},
          removePartition: () => {},
        },
        handle: (event) => this.#handle(event),
        goBy: (following, others) => {
          this.#configuration = following;
          this.#plan = makePlan(following);
          this.#handle({ kind: "renewed", names: others });
        },
        watchAgain: () => {},
        onStep: () => {},
      },
      { plan, next, logFiles: new Map<string, never>() },
    );
    this.#change.begin();
    if (added.length + removed.length + changed.length === 0) this.#handle({ kind: "time" });
  }

  /** The state, as it is shown to whoever puts in a configuration. */
  #seenState(): OrchestrationState {
    if (this.#options.reloads !== "before it has stopped") return this.#state;
    const all = [...this.#state.processes.keys()];
    return { ...this.#state, processes: new Map(all.map((name) => [name, initialState])) };
  }

  #planCrash(): void {
    this.#agenda.after(this.#chance.below(REEXECUTION_INTERVAL) + 1, () => {
      if (this.#agenda.now >= TROUBLE_TIME) return;
      this.#note("the orchestrator is killed");
      this.#isDead = true;
      this.#plannedDeadline = undefined;
      this.#crashes.crashes += 1;
      for (const state of this.#written.processes.values()) {
        if (["running", "ready", "stopping"].includes(state.phase) && "instance" in state) {
          this.#owed.add(state.instance.invocation);
        }
      }
      this.#driver.crash();
      this.#agenda.after(this.#chance.below(LONGEST_GAP), () => this.#follow());
    });
  }

  /** The next orchestrator: what it finds, what it ends, and what it goes on with. */
  #follow(): void {
    this.#isDead = false;
    const lines = [...this.#written.processes].map(([name, state]) =>
      keptLine({ name, launch: "", notify: undefined, state }),
    );
    const read = readKept(keptHeader(BOOT) + lines.join(""), BOOT);
    if ("refusal" in read) throw new Error(JSON.stringify(read.refusal));
    const adoptions = new Map(
      this.#configuration.processes.map(({ name, readyTimeout }) => {
        const left = this.#leftOf(name, read.entries.get(name)?.state);
        return [name, adopt(left, { now: this.#agenda.now, readyTimeout })] as const;
      }),
    );
    const processes = new Map(initialOrchestration(this.#plan).processes);
    const adopted = new Set<string>();
    const heard = new Set<string>();
    for (const [name, { state, verdicts }] of adoptions) {
      if (state !== undefined) processes.set(name, state);
      for (const { kind, invocation } of verdicts) {
        if (kind === "adopt") adopted.add(invocation);
        if (kind === "hear") heard.add(invocation);
      }
    }
    this.#state = { processes, reachable: new Set(), shutdown: "no", renewing: new Map() };
    this.#note(`another one follows, and goes on with ${[...adopted].join(", ")}`);
    this.#crashes.goneOnWith += adopted.size;
    if (this.#options.crashes !== "starts anew beside it") this.#endOthers(adopted);
    const again = effectsToRepeat(this.#plan, this.#state).filter(
      ({ effect }) => effect.kind !== "find",
    );
    const forgets = this.#options.crashes === "forgets exits";
    for (const invocation of [...adopted, ...heard]) {
      const isAlive = this.#driver.world.find(invocation)?.isAlive === true;
      if (isAlive || !forgets) this.#driver.adopt(invocation);
    }
    for (const [name, { verdicts }] of adoptions) {
      for (const verdict of verdicts) {
        if (verdict.kind === "adopt" || verdict.kind === "hear") continue;
        const { invocation, reason } = verdict;
        this.#crashes.lost += 1;
        this.#perform({
          name,
          effect: { kind: "record", entry: { what: "lost", invocation, reason } },
        });
      }
    }
    for (const effect of again) this.#perform(effect);
    for (const [name, { events }] of adoptions) {
      for (const event of events) this.#decide({ kind: "process", name, event });
    }
    this.#decide({ kind: "boot", goOn: [...adoptions.keys()] });
    this.#handle({ kind: "time" });
    this.#driver.begin();
    this.#planCrash();
  }

  #leftOf(name: string, state: ProcessState | undefined): LeftProcess {
    const starts = [...this.#starts].flatMap(([id, owner]) => (owner === name ? [id] : []));
    const { world } = this.#driver;
    const found = new Map<string, FoundInstance>();
    for (const { invocation, isAlive } of world.processes) {
      const isNamed = starts.includes(invocation) || JSON.stringify(state).includes(invocation);
      // What had no pidfd yet is found as long as it lives.
      if (!isNamed || !(isAlive || this.#pidfds.has(invocation))) continue;
      found.set(invocation, { processId: 1, life: isAlive ? "alive" : "dead" });
    }
    const isLost = this.#chance.happens(0.1);
    const output = isLost ? "lost" : "there";
    const sockets = { notices: "there", heartbeats: "there" } as const;
    return { state, launch: "same", output, ...sockets, starts, found };
  }

  /** What is not gone on with is ended before anything is started. */
  #endOthers(adopted: ReadonlySet<string>): void {
    for (const [invocation] of this.#starts) {
      if (adopted.has(invocation)) continue;
      const process = this.#driver.world.find(invocation);
      if (process?.isAlive === true) this.#driver.world.kill(process);
      if (process !== undefined && !process.keepsLeftovers) process.hasLeftovers = false;
      this.#starts.delete(invocation);
    }
  }

  /** Nobody's end is passed over in silence. */
  #requireAllTold(): void {
    for (const invocation of this.#owed) {
      if (!this.#told.has(invocation)) throw new Error(`the exit of ${invocation} is lost`);
    }
  }

  #planTrouble(): void {
    this.#agenda.after(this.#chance.below(2 * this.#troubles.interval) + 1, () => {
      if (this.#agenda.now >= TROUBLE_TIME) return;
      if (this.#chance.happens(this.#troubles.operates)) this.#operate();
      else this.#driver.makeTrouble();
      this.#planTrouble();
    });
  }

  #operate(): void {
    const { processes } = this.#configuration;
    const names = [processes, processes].map((some) => this.#chance.pick(some).name);
    const kind = this.#chance.pick(["start", "stop", "restart"]);
    const event: Wish = kind === "stop" ? { kind, hurry: this.#chance.happens(0.3) } : { kind };
    this.#handle({ kind: "wish", names, event });
  }

  #becomeKind(): void {
    this.#note("the world becomes kind");
    this.#troubles = makeTroubles(undefined);
    for (const { name } of this.#configuration.processes) {
      this.#askedFor.add(name);
      this.#handle({ kind: "wish", names: [name], event: { kind: "start" } });
    }
  }

  /** Whatever is wanted runs, or the rule or a limit says that it does not. */
  #requireAllRun(): void {
    if (this.#change !== undefined) throw new Error("a reload does not end");
    this.#requireLaunches();
    for (const { name, restart, startLimit, autostart } of this.#configuration.processes) {
      const phase = this.#state.processes.get(name)?.phase ?? "idle";
      const isBlocked = blockersOf(this.#plan, this.#state, name).length > 0;
      const isFine =
        phase === "ready" ||
        (phase === "finished" && restart !== "always") ||
        (phase === "failed" && (startLimit !== "none" || restart === "never")) ||
        (phase === "waiting" && isBlocked) ||
        // It came with a reload that was under way then.
        (phase === "idle" && !autostart && !this.#askedFor.has(name));
      if (!isFine) throw new Error(`${name} is ${phase} when all is well`);
    }
    if (this.#state.reachable.size !== partitionNames.length) throw new Error("an agent is away");
  }

  /** What runs was started by what the configuration says now. */
  #requireLaunches(): void {
    for (const { name, invocation, isAlive } of this.#driver.world.processes) {
      const former = this.#startedBy.get(invocation);
      const current = this.#plan.specifications.get(name);
      if (!isAlive || former === undefined || current === undefined) continue;
      const of = (one: ProcessSpecification) => ({ ...this.#configuration, processes: [one] });
      const how = planReload(of(former), of(current)).processes.changed[0]?.how;
      if (how === "restart") throw new Error(`${name} runs by a former configuration`);
    }
  }

  #shutDown(): void {
    this.#handle({ kind: "shutdown", hurry: false });
    const isHurried = this.#chance.happens(0.3);
    if (isHurried) {
      this.#agenda.after(this.#chance.below(600), () =>
        this.#handle({ kind: "shutdown", hurry: false }),
      );
    }
    this.#runUntil(() => isDown(this.#state));
    if (!isDown(this.#state)) throw new Error("the shutdown does not end");
    this.#runUntil(() => false);
    for (const [name, process] of this.#state.processes) {
      if (isActive(process)) throw new Error(`${name} is active after the shutdown`);
      if (this.#driver.world.countLiving(name) > 0) throw new Error(`${name} lives on`);
    }
  }
}

function describe(event: OrchestrationEvent, state: OrchestrationState): string {
  if (event.kind !== "process") return JSON.stringify(event);
  const process = state.processes.get(event.name);
  return `${event.name} ${JSON.stringify(event.event)} → ${process?.phase}`;
}

function describeEffect(effect: Exclude<ProcessEffect, { kind: "record" }>): string {
  const invocation = "instance" in effect ? effect.instance.invocation : effect.invocation;
  return `${effect.kind} ${invocation}`;
}
