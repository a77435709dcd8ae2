/** A simulated agent and the connections to it. */
import type { Ending } from "../../../src/units/ending.ts";
import type { SeededChance } from "../chance.ts";
import type { Agenda } from "./agenda.ts";
import { Stream } from "./stream.ts";
import type { Parent, World, WorldProcess } from "./world.ts";

/** What an orchestrator asks for; the simulation needs no more of it. */
export interface StartFrame {
  readonly kind: "start";
  readonly invocation: string;
  readonly name: string;
  readonly keepsLeftovers: boolean;
}

export type AgentFrame =
  | { readonly kind: "hello" }
  | { readonly kind: "started"; readonly invocation: string }
  | { readonly kind: "refused"; readonly invocation: string }
  | { readonly kind: "exited"; readonly invocation: string; readonly ending: Ending };

export interface LinkHandlers {
  onFrame(frame: AgentFrame): void;
  onEnd(): void;
}

/** Bad habits, for the proof that the simulation notices. */
export interface Faults {
  /** The agent starts what was asked on a connection that has ended since. */
  readonly agentIgnoresHangUp?: boolean;
  /** The orchestrator looks for a start while its request may still be read. */
  readonly findKeepsLink?: boolean;
}

export interface Odds {
  readonly execFails: number;
  readonly forks: number;
  readonly ignoresSignals: number;
  readonly agentCrashes: number;
}

export interface Surroundings {
  readonly agenda: Agenda;
  readonly chance: SeededChance;
  readonly world: World;
  readonly odds: () => Odds;
  readonly faults: Faults;
}

/** A connection between the orchestrator and an agent. */
export class Link {
  readonly toAgent: Stream;
  readonly toOrchestrator: Stream;
  /** As poll(2) tells the agent at once, whatever is still to be read. */
  hasHungUp = false;
  readonly pending = new Set<string>();
  isUp = false;

  constructor(surroundings: Surroundings, agent: Agent, handlers: LinkHandlers) {
    const { agenda, chance } = surroundings;
    this.toAgent = new Stream(agenda, chance, {
      onFrame: (body) => agent.onFrame(this, body as StartFrame),
      onEnd: () => {},
      stalledUntil: () => agent.stalledUntil,
    });
    this.toOrchestrator = new Stream(agenda, chance, {
      onFrame: (body) => handlers.onFrame(body as AgentFrame),
      onEnd: () => handlers.onEnd(),
      stalledUntil: () => 0,
    });
  }

  /** The orchestrator closes its end. */
  close(): void {
    this.hasHungUp = true;
    this.toOrchestrator.drop();
    this.toAgent.end({ cut: false });
  }

  /** Something between the two breaks. */
  cut(): void {
    this.hasHungUp = true;
    this.toAgent.end({ cut: true });
    this.toOrchestrator.end({ cut: true });
  }
}

export class Agent implements Parent {
  isAlive = true;
  stalledUntil = 0;
  readonly #surroundings: Surroundings;
  readonly #links = new Set<Link>();
  readonly #startedOn = new Map<string, Link>();
  readonly #children = new Set<WorldProcess>();

  constructor(surroundings: Surroundings) {
    this.#surroundings = surroundings;
  }

  accept(link: Link): void {
    this.#links.add(link);
    this.#when(() => link.toOrchestrator.write({ kind: "hello" }));
  }

  /** Does something when the agent does not stall, unless it has died until then. */
  #when(act: () => void): void {
    const { agenda, chance } = this.#surroundings;
    const wait = Math.max(0, this.stalledUntil - agenda.now) + chance.below(3);
    agenda.after(wait, () => {
      if (!this.isAlive) return;
      if (this.stalledUntil > agenda.now) this.#when(act);
      else act();
    });
  }

  /** A start, with a crash between any two of its steps. */
  onFrame(link: Link, { invocation, name, keepsLeftovers }: StartFrame): void {
    const { chance, world, faults } = this.#surroundings;
    if (!this.isAlive) return;
    const odds = this.#surroundings.odds();
    if (link.hasHungUp && faults.agentIgnoresHangUp !== true) return;
    if (this.#mayCrash(odds)) return;
    if (chance.happens(odds.execFails)) {
      link.toOrchestrator.write({ kind: "refused", invocation });
      return;
    }
    const child = world.spawn({
      invocation,
      name,
      keepsLeftovers,
      hasLeftovers: chance.happens(odds.forks),
      ignoresSignals: chance.happens(odds.ignoresSignals),
      parent: this,
    });
    this.#children.add(child);
    this.#startedOn.set(invocation, link);
    if (this.#mayCrash(odds)) return;
    link.toOrchestrator.write({ kind: "started", invocation });
    this.#mayCrash(odds);
  }

  #mayCrash(odds: Odds): boolean {
    if (!this.#surroundings.chance.happens(odds.agentCrashes)) return false;
    this.crash();
    return true;
  }

  crash(): void {
    if (!this.isAlive) return;
    this.isAlive = false;
    for (const link of this.#links) {
      link.hasHungUp = true;
      link.toAgent.drop();
      link.toOrchestrator.end({ cut: this.#surroundings.chance.happens(0.5) });
    }
    for (const child of this.#children) this.#surroundings.world.reap(child);
  }

  /** Ends what is left, reaps, and tells whoever asked for it. */
  onChildDied(child: WorldProcess): void {
    this.#when(() => {
      if (!child.keepsLeftovers) child.hasLeftovers = false;
      this.#children.delete(child);
      const link = this.#startedOn.get(child.invocation);
      const { invocation, ending } = child;
      if (link?.hasHungUp === false)
        link.toOrchestrator.write({ kind: "exited", invocation, ending });
      this.#surroundings.world.reap(child);
    });
  }
}
