/** Several processes under the orchestration, and short words for what happens to them. */
import type { Phase, ProcessEvent } from "../../src/process/lifecycle.ts";
import {
  type AddressedEffect,
  initialOrchestration,
  makePlan,
  type OrchestrationEvent,
  type OrchestrationState,
  type Plan,
  step,
} from "../../src/process/orchestration.ts";
import type { ProcessSpecification } from "../../src/process/specification.ts";
import type { Ending } from "../../src/units/ending.ts";
import { exited, makeSpecification } from "./lifecycle/life.ts";

export type Changes = Readonly<Record<string, Partial<ProcessSpecification>>>;

export class Orchestra {
  readonly plan: Plan;
  state: OrchestrationState;
  now = 1_000;
  #invocations = 0;
  #newest = new Map<string, string>();

  constructor(processes: Changes, concurrentStarts?: number) {
    this.plan = makePlan({
      holder: true,
      concurrentStarts,
      partitions: [],
      processes: Object.entries(processes).map(([name, change]) =>
        makeSpecification({ name, ...change }),
      ),
    });
    this.state = initialOrchestration(this.plan);
  }

  /** Hands over an event; what is to be done, as "start a", records left out. */
  send(event: OrchestrationEvent): string[] {
    const chance = { random: () => 0.5, invocation: () => `i${++this.#invocations}` };
    const outcome = step(this.plan, this.state, event, { now: this.now, chance });
    this.state = outcome.state;
    return outcome.effects.flatMap((effect) => this.#write(effect));
  }

  #write({ name, effect }: AddressedEffect): string[] {
    if (effect.kind === "start") this.#newest.set(name, effect.invocation);
    return effect.kind === "record" ? [] : [`${effect.kind} ${name}`];
  }

  process(name: string, event: ProcessEvent): string[] {
    return this.send({ kind: "process", name, event });
  }

  boot(): string[] {
    return this.send({ kind: "boot" });
  }

  start(name: string): string[] {
    return this.process(name, { kind: "start" });
  }

  stop(name: string): string[] {
    return this.process(name, { kind: "stop", hurry: false });
  }

  restart(name: string): string[] {
    return this.process(name, { kind: "restart" });
  }

  /** What an operator wants of several at once. */
  wish(kind: "start" | "restart", ...names: readonly string[]): string[] {
    return this.send({ kind: "wish", names, event: { kind } });
  }

  shutDown(hurry = false): string[] {
    return this.send({ kind: "shutdown", hurry });
  }

  reach(name: string, reachable = true): string[] {
    return this.send({ kind: "partition", name, reachable });
  }

  passTime(time: number): string[] {
    this.now += time;
    return this.send({ kind: "time" });
  }

  /** The newest start of the process is answered. */
  arrive(name: string): string[] {
    const invocation = this.invocation(name);
    return this.process(name, { kind: "started", invocation, processId: 100 });
  }

  becomeReady(name: string): string[] {
    return this.process(name, { kind: "became-ready", invocation: this.invocation(name) });
  }

  /** The process dies, and its rest is gone. */
  die(name: string, ending: Ending = exited(0)): string[] {
    const invocation = this.invocation(name);
    const died = this.process(name, { kind: "died", invocation, ending });
    return [...died, ...this.process(name, { kind: "cleared", invocation })];
  }

  invocation(name: string): string {
    return this.#newest.get(name) ?? "none";
  }

  phase(name: string): Phase | undefined {
    return this.state.processes.get(name)?.phase;
  }
}
