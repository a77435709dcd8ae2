import { countedStarts } from "../units/restarts.ts";
import type { MonotonicTime } from "../units/units.ts";
import {
  type Context,
  deadlineOf,
  initialState,
  type ProcessEffect,
  type ProcessEvent,
  type ProcessState,
  step as stepProcess,
  type Table,
  table,
} from "./lifecycle.ts";
import type { Configuration, ProcessSpecification } from "./specification.ts";

/**
 * All processes together: order of start by readiness, order of stop by dependents, partitions
 * that come and go. Pure like the lifecycle: time and chance are arguments.
 */

export interface OrchestrationState {
  readonly processes: ReadonlyMap<string, ProcessState>;
  /** Partitions that take requests now. */
  readonly reachable: ReadonlySet<string>;
  readonly shutdown: "no" | "graceful" | "hurried";
  /** Who is about to be another process, or gone: nothing of it is started any more. */
  readonly renewing: ReadonlyMap<string, Renewal>;
}

/**
 * What becomes of a process whose configuration is another one: "restart" and "gone" end what
 * runs, "in-place" leaves it.
 */
export type Renewal = "restart" | "in-place" | "gone";

/** What an operator can want of a process. */
export type Wish = Extract<ProcessEvent, { readonly kind: "start" | "stop" | "restart" }>;

export type OrchestrationEvent =
  /** Wants every process that starts by itself, but those that go on as they were. */
  | { readonly kind: "boot"; readonly goOn?: readonly string[] }
  | { readonly kind: "process"; readonly name: string; readonly event: ProcessEvent }
  /** What an operator wants of some processes at once, in whatever order they are named. */
  | { readonly kind: "wish"; readonly names: readonly string[]; readonly event: Wish }
  | { readonly kind: "partition"; readonly name: string; readonly reachable: boolean }
  | { readonly kind: "shutdown"; readonly hurry: boolean }
  /** Their configuration is another one: they are brought to where it can be put in. */
  | { readonly kind: "renew"; readonly renewals: ReadonlyMap<string, Renewal> }
  /**
   * The plan of this step is another than before: it has names that are new, and not those that
   * are gone; of `names` it says something else.
   */
  | { readonly kind: "renewed"; readonly names: readonly string[] }
  | { readonly kind: "time" };

/** An effect, and the process that it is for. */
export interface AddressedEffect {
  readonly name: string;
  readonly effect: ProcessEffect;
}

export interface OrchestrationOutcome {
  readonly state: OrchestrationState;
  readonly effects: readonly AddressedEffect[];
  /** Processes whose states are others than before. */
  readonly changed: ReadonlySet<string>;
}

/** Chance, drawn when a decision needs it. */
export interface Chance {
  /** 0 (included) to 1 (excluded). */
  random(): number;
  /** 128 random bits in hexadecimal, never the same twice, for the next start of this process. */
  invocation(name: string): string;
}

/** What a turn of deciding may look at beside the state and the event. */
export interface TurnContext {
  readonly now: MonotonicTime;
  readonly chance: Chance;
  /** Tests give another one, to see that they notice. */
  readonly table?: Table;
}

/** What is to run; another one where the configuration was read anew. */
export interface Plan {
  /** So many may be on their way to readiness at once. */
  readonly concurrentStarts: number;
  readonly specifications: ReadonlyMap<string, ProcessSpecification>;
  /** Who comes after a process. */
  readonly dependents: ReadonlyMap<string, readonly string[]>;
}

/** Makes the plan; the configuration has been validated (known names, no cycle). */
export function makePlan(configuration: Configuration): Plan {
  const specifications = new Map<string, ProcessSpecification>();
  const dependents = new Map<string, string[]>();
  for (const specification of configuration.processes) {
    specifications.set(specification.name, specification);
    dependents.set(specification.name, []);
  }
  for (const { name, after } of configuration.processes) {
    for (const dependency of after) dependents.get(dependency)?.push(name);
  }
  const concurrentStarts = configuration.concurrentStarts ?? Number.POSITIVE_INFINITY;
  return { concurrentStarts, specifications, dependents };
}

export function initialOrchestration(plan: Plan): OrchestrationState {
  const names = [...plan.specifications.keys()];
  return {
    processes: new Map(names.map((name) => [name, initialState])),
    reachable: new Set(),
    shutdown: "no",
    renewing: new Map(),
  };
}

/** The same names, each behind all that it comes after. */
function inOrderOfStart(plan: Plan, names: readonly string[]): readonly string[] {
  const wanted = new Set(names);
  const seen = new Set<string>();
  const ordered: string[] = [];
  const visit = (name: string) => {
    if (seen.has(name)) return;
    seen.add(name);
    for (const dependency of plan.specifications.get(name)?.after ?? []) visit(dependency);
    if (wanted.has(name)) ordered.push(name);
  };
  for (const name of names) visit(name);
  return ordered;
}

/** True when those that come after this process may start. */
export function countsAsReady(state: ProcessState | undefined): boolean {
  if (state === undefined) return false;
  if (state.phase === "ready") return true;
  const ending = state.lastEnding;
  return state.phase === "finished" && ending?.kind === "exited" && ending.status === 0;
}

/** What a waiting process waits for: "partition qm", or names of processes. */
export function blockersOf(plan: Plan, state: OrchestrationState, name: string): string[] {
  const specification = plan.specifications.get(name);
  if (specification === undefined) return [];
  const blockers = specification.after.filter(
    (dependency) => !countsAsReady(state.processes.get(dependency)),
  );
  const { partition } = specification;
  if (partition !== undefined && !state.reachable.has(partition)) {
    blockers.push(`partition ${partition}`);
  }
  const renewal = state.renewing.get(name);
  if (renewal !== undefined) {
    blockers.push(renewal === "gone" ? "its removal" : "its new configuration");
  }
  return blockers;
}

/** Nothing of it lives, and nothing is started: its new configuration can be put in. */
export function isRenewable(state: OrchestrationState, name: string): boolean {
  const renewal = state.renewing.get(name);
  if (renewal === undefined) return false;
  return renewal === "in-place" || !isActive(state.processes.get(name));
}

/** Started, and not ready yet. */
export function isOnItsWay(state: ProcessState | undefined): boolean {
  return state !== undefined && ["starting", "uncertain", "running"].includes(state.phase);
}

/** True while anything of the process may be alive. */
export function isActive(state: ProcessState | undefined): boolean {
  if (state === undefined) return false;
  return !["idle", "waiting", "backing-off", "finished", "failed"].includes(state.phase);
}

/**
 * It was ready, and is not any more, of itself: known when it is, or when it is clear that its end
 * was no success of a job.
 */
function hasFailed(before: ProcessState, after: ProcessState): boolean {
  if (before.phase === "ready") return after.phase === "stopping" && after.why === "unhealthy";
  if (after.phase === "finished") {
    const isNews = before.phase !== "finished" || before.lastEnding === undefined;
    return isNews && after.lastEnding !== undefined && !countsAsReady(after);
  }
  if (before.phase !== "clearing" || before.why !== undefined) return false;
  return after.phase !== "clearing" && after.wanted;
}

/** The same state, with what counts of its starts by the start limit that holds now. */
function underLimit(
  state: ProcessState,
  { startLimit }: ProcessSpecification,
  now: MonotonicTime,
): ProcessState {
  const counted = countedStarts(state.recentStarts, startLimit, now);
  const recentStarts = startLimit === "none" ? [] : counted.slice(-startLimit.starts);
  return { ...state, recentStarts };
}

/** One turn of deciding: events are handled one after the other until nothing follows. */
class Turn {
  readonly #plan: Plan;
  readonly #context: TurnContext;
  readonly #before: OrchestrationState;
  /** A copy of its own, made at the first change. */
  #processes: Map<string, ProcessState> | undefined;
  #reachable: ReadonlySet<string>;
  #shutdown: OrchestrationState["shutdown"];
  #renewing: OrchestrationState["renewing"];
  /** How many are on their way to readiness; undefined while nobody has asked. */
  #onTheirWay: number | undefined;
  readonly effects: AddressedEffect[] = [];
  readonly changed = new Set<string>();

  constructor(plan: Plan, state: OrchestrationState, context: TurnContext) {
    this.#plan = plan;
    this.#context = context;
    this.#before = state;
    this.#reachable = state.reachable;
    this.#shutdown = state.shutdown;
    this.#renewing = state.renewing;
  }

  get state(): OrchestrationState {
    const processes = this.#processes ?? this.#before.processes;
    const common = { reachable: this.#reachable, shutdown: this.#shutdown };
    return { processes, ...common, renewing: this.#renewing };
  }

  handle(event: OrchestrationEvent): void {
    switch (event.kind) {
      case "boot":
        if (this.#shutdown !== "no") break;
        for (const [name, specification] of this.#plan.specifications) {
          const isNew = event.goOn?.includes(name) !== true;
          if (isNew && specification.autostart) this.#apply(name, { kind: "start" });
        }
        break;
      case "process":
        this.#handleProcess(event.name, event.event);
        break;
      case "wish":
        // Who comes after another finds that one stopping, and not there any more.
        for (const name of inOrderOfStart(this.#plan, event.names)) {
          this.#handleProcess(name, event.event);
        }
        break;
      case "partition":
        this.#handlePartition(event.name, event.reachable);
        break;
      case "shutdown":
        this.#handleShutdown(event.hurry);
        break;
      case "renew":
        this.#renewing = new Map([...this.#renewing, ...event.renewals]);
        break;
      case "renewed":
        this.#handleRenewed(event.names);
        break;
      case "time":
        for (const [name, process] of this.state.processes) {
          const deadline = deadlineOf(process);
          if (deadline !== undefined && deadline <= this.#context.now) {
            this.#apply(name, { kind: "deadline" });
          }
        }
        break;
    }
    this.#settle();
  }

  #handleProcess(name: string, event: ProcessEvent): void {
    if (event.kind === "start" || event.kind === "restart") {
      if (this.#shutdown !== "no") return;
      this.#startDependencies(name, new Set([name]));
    }
    this.#apply(name, event);
  }

  /** Starting a process starts what it comes after, unless that runs or is on its way. */
  #startDependencies(name: string, seen: Set<string>): void {
    for (const dependency of this.#plan.specifications.get(name)?.after ?? []) {
      if (seen.has(dependency)) continue;
      seen.add(dependency);
      this.#startDependencies(dependency, seen);
      const state = this.state.processes.get(dependency);
      if (state === undefined || countsAsReady(state)) continue;
      // One that is being stopped is active, and would be gone when it is needed.
      const isOnItsWay = state.phase === "backing-off" || isActive(state);
      if (isOnItsWay && state.wanted) continue;
      this.#apply(dependency, { kind: "start" });
    }
  }

  #handlePartition(name: string, reachable: boolean): void {
    const partitions = new Set(this.#reachable);
    if (reachable) partitions.add(name);
    else partitions.delete(name);
    this.#reachable = partitions;
  }

  /** Takes the names of the plan, and starts who is new and who could not be made to run before. */
  #handleRenewed(names: readonly string[]): void {
    const others = new Set(names);
    const renewing = new Map(this.#renewing);
    for (const name of others) renewing.delete(name);
    this.#renewing = renewing;
    const former = this.state.processes;
    const { specifications } = this.#plan;
    const next = [...specifications].map(([name, specification]) => {
      const state = former.get(name) ?? initialState;
      const isOther = others.has(name);
      return [name, isOther ? underLimit(state, specification, this.#context.now) : state] as const;
    });
    this.#processes = new Map(next);
    this.#onTheirWay = undefined;
    if (this.#shutdown !== "no") return;
    for (const [name, { autostart }] of specifications) {
      const before = former.get(name);
      const isNew = before === undefined;
      const isGivenUp = before?.phase === "failed" && others.has(name);
      if (autostart && (isNew || isGivenUp)) this.#handleProcess(name, { kind: "start" });
    }
  }

  #handleShutdown(hurry: boolean): void {
    // What would be put in is found by the next orchestrator.
    this.#renewing = new Map();
    const hurried = hurry || this.#shutdown !== "no";
    this.#shutdown = hurried ? "hurried" : "graceful";
    for (const [name, process] of this.state.processes) {
      if (hurried || !isActive(process)) this.#apply(name, { kind: "stop", hurry: hurried });
    }
  }

  /** True when the event changed the process. */
  #apply(name: string, event: ProcessEvent): boolean {
    const before = this.state.processes.get(name);
    const specification = this.#plan.specifications.get(name);
    if (before === undefined || specification === undefined) return false;
    const decisions = this.#context.table ?? table;
    const context = this.#contextOf(specification, before.phase === "clearing");
    const outcome = stepProcess(before, event, context, decisions);
    for (const effect of outcome.effects) this.effects.push({ name, effect });
    if (outcome.state === before) return false;
    this.#processes ??= new Map(this.#before.processes);
    this.#processes.set(name, outcome.state);
    this.changed.add(name);
    if (this.#onTheirWay !== undefined) {
      this.#onTheirWay += Number(isOnItsWay(outcome.state)) - Number(isOnItsWay(before));
    }
    if (hasFailed(before, outcome.state)) this.#concern(name);
    return true;
  }

  /** Whoever comes after it, and wants to know of its end. */
  #concern(dependency: string): void {
    if (this.#shutdown !== "no") return;
    for (const name of this.#plan.dependents.get(dependency) ?? []) {
      const policy = this.#plan.specifications.get(name)?.onDependencyFailure ?? "ignore";
      const phase = this.state.processes.get(name)?.phase ?? "idle";
      if (policy === "ignore" || !["running", "ready"].includes(phase)) continue;
      const entry = { what: "dependency-failed", dependency } as const;
      this.effects.push({ name, effect: { kind: "record", entry } });
      this.#apply(name, policy === "stop" ? { kind: "stop", hurry: false } : { kind: "restart" });
      // Who comes after that one loses it for the same reason.
      this.#concern(name);
    }
  }

  /** For one more on its way to readiness. */
  get #hasRoom(): boolean {
    const { concurrentStarts } = this.#plan;
    if (concurrentStarts === Number.POSITIVE_INFINITY) return true;
    this.#onTheirWay ??= [...this.state.processes.values()].filter(isOnItsWay).length;
    return this.#onTheirWay < concurrentStarts;
  }

  /** @param isRestart what it follows has just ended: it waits for no turn */
  #contextOf(specification: ProcessSpecification, isRestart: boolean): Context {
    const { chance, now } = this.#context;
    const { partition, name } = specification;
    const blockers = () => blockersOf(this.#plan, this.state, name);
    const hasRoom = () => isRestart || this.#hasRoom;
    return {
      specification,
      now,
      get random() {
        return chance.random();
      },
      get nextInvocation() {
        return chance.invocation(name);
      },
      reachable:
        !this.#renewing.has(name) && (partition === undefined || this.#reachable.has(partition)),
      get dependenciesReady() {
        return hasRoom() && blockers().every((blocker) => blocker.startsWith("partition "));
      },
    };
  }

  /** Lets go whoever waited for what has come, and stops in order, until nothing changes. */
  #settle(): void {
    for (let changed = true; changed; ) {
      changed = false;
      for (const [name, process] of this.state.processes) {
        const event = this.#followUp(name, process);
        if (event !== undefined && this.#apply(name, event)) changed = true;
      }
    }
  }

  #followUp(name: string, process: ProcessState): ProcessEvent | undefined {
    switch (this.#shutdown) {
      case "no": {
        const ending = this.#endForRenewal(name, process);
        if (ending !== undefined) return ending;
        if (process.phase !== "waiting") return undefined;
        const blocked = !this.#hasRoom || blockersOf(this.#plan, this.state, name).length > 0;
        return blocked ? undefined : { kind: "unblocked" };
      }
      case "graceful": {
        const stops = process.wanted && this.#mayStop(name);
        return stops ? { kind: "stop", hurry: false } : undefined;
      }
      case "hurried": {
        // One that arrived after the hurry began was asked kindly.
        const isKind = process.phase === "stopping" && process.killAt !== undefined;
        return isKind ? { kind: "stop", hurry: true } : undefined;
      }
    }
  }

  /** Ends what runs by a configuration that is over; what waits for a start goes on to wait. */
  #endForRenewal(name: string, process: ProcessState): ProcessEvent | undefined {
    switch (this.#renewing.get(name)) {
      case "restart": {
        const runs = ["running", "ready", "backing-off"].includes(process.phase);
        return runs ? { kind: "restart" } : undefined;
      }
      case "gone":
        return process.wanted && this.#mayGo(name) ? { kind: "stop", hurry: false } : undefined;
      default:
        return undefined;
    }
  }

  /** In reverse order, among those that go. */
  #mayGo(name: string): boolean {
    const dependents = this.#plan.dependents.get(name) ?? [];
    return dependents.every(
      (dependent) =>
        this.#renewing.get(dependent) !== "gone" || !isActive(this.state.processes.get(dependent)),
    );
  }

  /** In reverse order: a process is stopped when nobody that comes after it is active. */
  #mayStop(name: string): boolean {
    const dependents = this.#plan.dependents.get(name) ?? [];
    return dependents.every((dependent) => !isActive(this.state.processes.get(dependent)));
  }
}

/** Decides what an event means for all processes. */
export function step(
  plan: Plan,
  state: OrchestrationState,
  event: OrchestrationEvent,
  context: TurnContext,
): OrchestrationOutcome {
  const turn = new Turn(plan, state, context);
  turn.handle(event);
  return { state: turn.state, effects: turn.effects, changed: turn.changed };
}

/**
 * What the next program begins again, because nobody can hand it over while it is under way. Each
 * may be done twice: looking for an uncertain start, clearing what a dead instance left, and
 * watching for readiness or liveness.
 */
export function effectsToRepeat(plan: Plan, state: OrchestrationState): AddressedEffect[] {
  return [...state.processes].flatMap(([name, process]): AddressedEffect[] => {
    switch (process.phase) {
      case "uncertain":
        return [{ name, effect: { kind: "find", invocation: process.invocation } }];
      case "clearing":
        if (process.endingBy !== undefined) return [];
        return [{ name, effect: { kind: "clear", instance: process.instance } }];
      case "running":
        return [{ name, effect: { kind: "watch-readiness", instance: process.instance } }];
      case "ready":
        if (plan.specifications.get(name)?.liveness === undefined) return [];
        return [{ name, effect: { kind: "watch-liveness", instance: process.instance } }];
      default:
        return [];
    }
  });
}

/** The next moment that any process wants to hear of. */
export function nextDeadline(state: OrchestrationState): MonotonicTime | undefined {
  let earliest: MonotonicTime | undefined;
  for (const process of state.processes.values()) {
    const deadline = deadlineOf(process);
    if (deadline !== undefined && (earliest === undefined || deadline < earliest)) {
      earliest = deadline;
    }
  }
  return earliest;
}

/** True when a shutdown has nothing left to wait for. */
export function isDown(state: OrchestrationState): boolean {
  if (state.shutdown === "no") return false;
  return [...state.processes.values()].every((process) => !isActive(process));
}
