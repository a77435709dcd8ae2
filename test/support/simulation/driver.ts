/** The orchestrator's performing side, simulated: effects become deeds in the simulated world. */
import type { Instance, ProcessEffect, ProcessEvent } from "../../../src/process/lifecycle.ts";
import type { OrchestrationEvent } from "../../../src/process/orchestration.ts";
import type { ProcessSpecification } from "../../../src/process/specification.ts";
import type { Ending } from "../../../src/units/ending.ts";
import type { SeededChance } from "../chance.ts";
import type { Agenda } from "./agenda.ts";
import { Agent, type AgentFrame, type Faults, Link, type Surroundings } from "./agent.ts";
import type { Troubles } from "./troubles.ts";
import { firstProcess, World, type WorldProcess } from "./world.ts";

export interface DriverOptions {
  readonly agenda: Agenda;
  readonly chance: SeededChance;
  readonly troubles: () => Troubles;
  readonly faults: Faults;
  readonly partitions: readonly string[];
  readonly onEvent: (event: OrchestrationEvent) => void;
  readonly note: (line: string) => void;
}

interface RemotePartition {
  readonly name: string;
  agent: Agent;
  link: Link | undefined;
}

export class Driver {
  readonly world: World;
  readonly counts = { starts: 0, deaths: 0, searches: 0, adoptions: 0 };
  readonly #options: DriverOptions;
  readonly #surroundings: Surroundings;
  readonly #partitions = new Map<string, RemotePartition>();
  /** The name, and the link that it was started on, of each instance with an open pidfd. */
  readonly #watched = new Map<string, { name: string; link: Link | undefined }>();
  readonly #names = new Map<string, string>();
  /** How often the orchestrator was killed: what it was about to do is never done. */
  #epoch = 0;

  constructor(options: DriverOptions) {
    this.#options = options;
    const { agenda, chance, faults, troubles } = options;
    this.world = new World({
      onDeath: (process) => this.#onDeath(process),
      onReaped: (process) => this.#onReaped(process),
    });
    this.#surroundings = { agenda, chance, faults, world: this.world, odds: troubles };
    for (const name of options.partitions) {
      const agent = new Agent(this.#surroundings);
      this.#partitions.set(name, { name, agent, link: undefined });
    }
  }

  begin(): void {
    for (const partition of this.#partitions.values()) this.#dial(partition);
  }

  perform(specification: ProcessSpecification, effect: ProcessEffect): void {
    switch (effect.kind) {
      case "start":
        this.#start(specification, effect.invocation);
        break;
      case "find":
        this.#find(specification, effect.invocation);
        break;
      case "signal":
        this.#signal(effect.instance);
        break;
      case "kill":
        this.#withProcess(effect.instance, (process) => this.world.kill(process));
        break;
      case "clear":
        this.#clear(specification, effect.instance);
        break;
      case "watch-readiness":
        this.#watchReadiness(specification, effect.instance);
        break;
      case "forget-readiness":
      case "forget-liveness":
        break;
      case "watch-liveness":
        this.#watchLiveness(specification, effect.instance);
        break;
      case "record":
        if (effect.entry.what === "ended") {
          this.#requireTrue(effect.entry.invocation, effect.entry.ending);
        }
        break;
    }
  }

  /** The orchestrator is killed: its connections end, and its children are somebody else's. */
  crash(): void {
    this.#epoch += 1;
    for (const partition of this.#partitions.values()) {
      partition.link?.close();
      partition.link = undefined;
    }
    for (const process of this.world.processes) {
      if (process.parent !== undefined) continue;
      process.parent = firstProcess;
      if (!process.isAlive) this.world.reap(process);
    }
    this.#watched.clear();
  }

  /** Whose pidfds it has. */
  get watched(): Iterable<string> {
    return this.#watched.keys();
  }

  /** The next orchestrator watches what the one before it had. */
  adopt(invocation: string): void {
    const process = this.world.find(invocation);
    if (process === undefined) throw new Error(`there is no instance ${invocation}`);
    this.#watch(process, undefined);
  }

  /** Something goes wrong. */
  makeTrouble(): void {
    const { chance } = this.#options;
    const { death, crash, cut, stall } = this.#options.troubles().weights;
    let draw = chance.random() * (death + crash + cut + stall);
    const partition = chance.pick([...this.#partitions.values()]);
    draw -= death;
    if (draw < 0) {
      this.#killOne();
      return;
    }
    draw -= crash;
    if (draw < 0) {
      this.#options.note(`the agent of ${partition.name} crashes`);
      partition.agent.crash();
      return;
    }
    draw -= cut;
    if (draw < 0) {
      this.#options.note(`the link to ${partition.name} is cut`);
      partition.link?.cut();
      return;
    }
    const duration = chance.pick([50, 500, 15_000]);
    this.#options.note(`the agent of ${partition.name} stalls for ${duration} ms`);
    partition.agent.stalledUntil = this.#options.agenda.now + duration;
  }

  #killOne(): void {
    const { chance } = this.#options;
    const alive = [...this.world.processes].filter(({ isAlive }) => isAlive);
    if (alive.length === 0) return;
    const process = chance.pick(alive);
    const ending: Ending = chance.pick([
      { kind: "exited", status: 0 },
      { kind: "exited", status: 1 },
      { kind: "signalled", signal: 11, coreDumped: true },
    ]);
    this.#options.note(`${process.name} ${process.invocation} dies`);
    this.world.die(process, ending);
  }

  /** Tells the orchestration, a little later. */
  #tell(name: string, event: ProcessEvent, delay = this.#options.chance.below(3)): void {
    this.#after(delay, () => this.#options.onEvent({ kind: "process", name, event }));
  }

  /** What this orchestrator does a little later, if it lives then. */
  #after(delay: number, act: () => void): void {
    const epoch = this.#epoch;
    this.#options.agenda.after(delay, () => {
      if (epoch === this.#epoch) act();
    });
  }

  #start(specification: ProcessSpecification, invocation: string): void {
    const { name, partition, leftovers } = specification;
    this.counts.starts += 1;
    this.#names.set(invocation, name);
    const keepsLeftovers = leftovers === "keep";
    if (partition === undefined) {
      this.#startHere({ name, invocation, keepsLeftovers });
      return;
    }
    const link = this.#partitions.get(partition)?.link;
    if (link?.isUp !== true) {
      this.#refuse(name, invocation);
      return;
    }
    link.pending.add(invocation);
    link.toAgent.write({ kind: "start", invocation, name, keepsLeftovers });
  }

  #refuse(name: string, invocation: string): void {
    const refusal = { message: "no such file", code: "ENOENT" };
    this.#tell(name, { kind: "start-refused", invocation, refusal });
  }

  #startHere(start: { name: string; invocation: string; keepsLeftovers: boolean }): void {
    const { chance, troubles } = this.#options;
    const { name, invocation } = start;
    const odds = troubles();
    if (chance.happens(odds.execFails)) {
      this.#refuse(name, invocation);
      return;
    }
    const process = this.world.spawn({
      ...start,
      hasLeftovers: chance.happens(odds.forks),
      ignoresSignals: chance.happens(odds.ignoresSignals),
      parent: undefined,
    });
    this.#tell(name, { kind: "started", invocation, processId: 1 }, 0);
    this.#watch(process, undefined);
  }

  #watch(process: WorldProcess, link: Link | undefined): void {
    const { name, invocation } = process;
    if (this.#watched.has(invocation)) return;
    this.#watched.set(invocation, { name, link });
    if (!process.isAlive) this.#onDeath(process);
    if (process.isReaped) this.#onReaped(process);
  }

  #onDeath(process: WorldProcess): void {
    this.counts.deaths += 1;
    const watched = this.#watched.get(process.invocation);
    if (watched === undefined) return;
    const { name, invocation } = process;
    // One's own child tells its ending with its death.
    const ending = process.parent === undefined ? process.ending : undefined;
    this.#tell(name, { kind: "died", invocation, ending });
  }

  #onReaped(process: WorldProcess): void {
    const { name, invocation, ending, parent } = process;
    const watched = this.#watched.get(invocation);
    if (watched === undefined || parent === undefined || ending === undefined) return;
    if (!this.#options.troubles().kernelIsOld) {
      this.#tell(name, { kind: "ending-known", invocation, ending }, 3);
    } else if (watched.link === undefined || watched.link.hasHungUp) {
      this.#tellUnknown(name, invocation);
    }
  }

  #tellUnknown(name: string, invocation: string): void {
    const ending = { kind: "unknown", reason: "the agent is gone" } as const;
    this.#tell(name, { kind: "ending-known", invocation, ending }, 3);
  }

  #find({ name, partition }: ProcessSpecification, invocation: string): void {
    this.counts.searches += 1;
    const remote = this.#partitions.get(partition ?? "");
    if (remote !== undefined && this.#options.faults.findKeepsLink !== true) this.#hangUp(remote);
    const process = this.world.find(invocation);
    if (process?.isAlive === true) {
      this.counts.adoptions += 1;
      this.#tell(name, { kind: "found", invocation, processId: 1 }, 1);
      this.#after(1, () => this.#watch(process, undefined));
      return;
    }
    if (process !== undefined) process.hasLeftovers = false;
    this.#tell(name, { kind: "not-found", invocation });
  }

  #signal(instance: Instance): void {
    this.#withProcess(instance, (process) => {
      if (process.ignoresSignals) return;
      this.world.die(process, { kind: "signalled", signal: 15, coreDumped: false });
    });
  }

  #withProcess({ invocation }: Instance, act: (process: WorldProcess) => void): void {
    const process = this.world.find(invocation);
    if (process === undefined) throw new Error(`there is no instance ${invocation}`);
    act(process);
  }

  #clear({ name }: ProcessSpecification, instance: Instance): void {
    this.#after(this.#options.chance.below(5), () => {
      this.#withProcess(instance, (process) => {
        if (process.isAlive) throw new Error(`${process.invocation} is cleared, and lives`);
        if (!process.keepsLeftovers) process.hasLeftovers = false;
        this.#tell(name, { kind: "cleared", invocation: process.invocation });
      });
    });
  }

  #watchReadiness({ name }: ProcessSpecification, { invocation }: Instance): void {
    const { chance, troubles } = this.#options;
    if (chance.happens(troubles().staysUnready)) return;
    this.#tell(name, { kind: "became-ready", invocation }, chance.below(1_200));
  }

  #watchLiveness({ name }: ProcessSpecification, { invocation }: Instance): void {
    const { chance, troubles } = this.#options;
    if (!chance.happens(troubles().hangs)) return;
    const reason = "its check fails";
    this.#tell(name, { kind: "unhealthy", invocation, reason }, chance.below(3_000));
  }

  /** An ending is what it was, or unknown: never invented. */
  #requireTrue(invocation: string, ending: Ending): void {
    if (ending.kind === "unknown") return;
    const process = this.world.find(invocation);
    if (Bun.deepEquals(process?.ending, ending)) return;
    throw new Error(`the ending of ${invocation} is invented: ${JSON.stringify(ending)}`);
  }

  #dial(partition: RemotePartition): void {
    this.#after(this.#options.chance.below(100) + 1, () => {
      if (partition.link !== undefined) return;
      if (!partition.agent.isAlive) {
        // Its service manager starts it again.
        partition.agent = new Agent(this.#surroundings);
      }
      const link: Link = new Link(this.#surroundings, partition.agent, {
        onFrame: (frame) => this.#onFrame(partition, link, frame),
        onEnd: () => this.#onDown(partition, link),
      });
      partition.link = link;
      partition.agent.accept(link);
    });
  }

  #onFrame(partition: RemotePartition, link: Link, frame: AgentFrame): void {
    if (frame.kind === "hello") {
      link.isUp = true;
      this.#options.onEvent({ kind: "partition", name: partition.name, reachable: true });
      return;
    }
    const { invocation } = frame;
    const name = this.#names.get(invocation) ?? "";
    if (frame.kind === "exited") {
      this.#tell(name, { kind: "ending-known", invocation, ending: frame.ending }, 0);
      return;
    }
    if (!link.pending.delete(invocation)) throw new Error(`${invocation} is answered twice`);
    if (frame.kind === "refused") {
      this.#refuse(name, invocation);
      return;
    }
    const process = this.world.find(invocation);
    if (process === undefined) throw new Error(`${invocation} was never spawned`);
    this.#tell(name, { kind: "started", invocation, processId: 1 }, 0);
    this.#watch(process, link);
  }

  #hangUp(partition: RemotePartition): void {
    const { link } = partition;
    if (link === undefined) return;
    link.close();
    this.#onDown(partition, link);
  }

  #onDown(partition: RemotePartition, link: Link): void {
    if (partition.link !== link) return;
    partition.link = undefined;
    for (const invocation of link.pending) {
      this.#tell(this.#names.get(invocation) ?? "", { kind: "answer-lost", invocation });
    }
    link.pending.clear();
    for (const [invocation, watched] of this.#watched) {
      if (watched.link !== link) continue;
      watched.link = undefined;
      const isGone = this.world.find(invocation)?.isReaped === true;
      if (isGone && this.#options.troubles().kernelIsOld) {
        this.#tellUnknown(watched.name, invocation);
      }
    }
    const { onEvent } = this.#options;
    this.#after(0, () => {
      if (partition.link?.isUp === true) return;
      onEvent({ kind: "partition", name: partition.name, reachable: false });
    });
    this.#dial(partition);
  }
}
