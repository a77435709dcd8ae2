/** The processes that live, as a kernel keeps them: death, zombies, parents, what is left over. */
import type { Ending } from "../../../src/units/ending.ts";

/** Who must reap: an agent, or the partition's first process after the agent has died. */
export interface Parent {
  readonly isAlive: boolean;
  onChildDied(process: WorldProcess): void;
}

export interface WorldProcess {
  readonly invocation: string;
  readonly name: string;
  isAlive: boolean;
  /** Others of its group, which outlive it. */
  hasLeftovers: boolean;
  readonly keepsLeftovers: boolean;
  readonly ignoresSignals: boolean;
  parent: Parent | undefined;
  isReaped: boolean;
  ending: Ending | undefined;
}

/** Inherits whom an orchestrator that was killed has left, and reaps at once. */
export const firstProcess: Parent = { isAlive: false, onChildDied: () => {} };

export interface Watcher {
  onDeath(process: WorldProcess): void;
  onReaped(process: WorldProcess): void;
}

export class World {
  readonly #processes = new Map<string, WorldProcess>();
  readonly #watcher: Watcher;

  constructor(watcher: Watcher) {
    this.#watcher = watcher;
  }

  get processes(): Iterable<WorldProcess> {
    return this.#processes.values();
  }

  find(invocation: string): WorldProcess | undefined {
    return this.#processes.get(invocation);
  }

  spawn(process: Omit<WorldProcess, "isAlive" | "isReaped" | "ending">): WorldProcess {
    if (this.#processes.has(process.invocation)) {
      throw new Error(`the invocation ${process.invocation} of ${process.name} was used before`);
    }
    const spawned = { ...process, isAlive: true, isReaped: false, ending: undefined };
    this.#processes.set(process.invocation, spawned);
    return spawned;
  }

  die(process: WorldProcess, ending: Ending): void {
    if (!process.isAlive) return;
    process.isAlive = false;
    process.ending = ending;
    this.#watcher.onDeath(process);
    if (process.parent?.isAlive === true) process.parent.onChildDied(process);
    else this.reap(process);
  }

  kill(process: WorldProcess): void {
    process.hasLeftovers = false;
    this.die(process, { kind: "signalled", signal: 9, coreDumped: false });
  }

  reap(process: WorldProcess): void {
    if (process.isReaped || process.isAlive) return;
    process.isReaped = true;
    this.#watcher.onReaped(process);
  }

  /** Living instances of a process, with those of which only leftovers live. */
  countLiving(name: string): number {
    let count = 0;
    for (const process of this.#processes.values()) {
      if (process.name === name && isLiving(process)) count += 1;
    }
    return count;
  }
}

export function isLiving(process: WorldProcess): boolean {
  return process.isAlive || (process.hasLeftovers && !process.keepsLeftovers);
}
