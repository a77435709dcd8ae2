import type { MonotonicTime } from "../units/units.ts";
import type {
  Configuration,
  PartitionSpecification,
  ProcessSpecification,
} from "./specification.ts";

/** Who answers in a partition, as it says of itself; the process as the host numbers it. */
export interface AgentIdentity {
  readonly version: string;
  readonly processId: number;
}

/** How a partition stands: away also means that its agent has not come yet. */
export type PartitionStanding =
  | {
      readonly state: "connected";
      readonly since: MonotonicTime;
      /** Holden v0.2 tells nothing of its agent. */
      readonly agent: AgentIdentity | undefined;
    }
  | { readonly state: "away"; readonly since: MonotonicTime; readonly reason: string };

export interface PartitionEntry {
  readonly specification: PartitionSpecification;
  readonly standing: PartitionStanding;
  /** Names of the processes that belong there. */
  readonly processes: readonly string[];
}

/** What is known of the partitions: whether their agents are there, since when, and why not. */
export class PartitionBook {
  #specifications: readonly PartitionSpecification[] = [];
  #processes: readonly ProcessSpecification[] = [];
  readonly #standings = new Map<string, PartitionStanding>();

  constructor(configuration: Configuration, now: MonotonicTime) {
    this.renew(configuration, now);
  }

  /** Has the partitions of this configuration; one that is new, or another, is away at first. */
  renew({ partitions, processes }: Configuration, now: MonotonicTime): void {
    const former = new Map(this.#specifications.map((one) => [one.name, one]));
    this.#specifications = partitions;
    this.#processes = processes;
    for (const name of former.keys()) {
      if (!partitions.some((one) => one.name === name)) this.#standings.delete(name);
    }
    const reason = "its agent has not come yet";
    for (const one of partitions) {
      if (former.get(one.name) === one) continue;
      this.#standings.set(one.name, { state: "away", since: now, reason });
    }
  }

  /** How the partitions stand, for another program to go on with. */
  save(): { readonly name: string; readonly standing: PartitionStanding }[] {
    return [...this.#standings].map(([name, standing]) => ({ name, standing }));
  }

  restore(saved: ReturnType<PartitionBook["save"]>): void {
    for (const { name, standing } of saved) this.#standings.set(name, standing);
  }

  connected(name: string, agent: AgentIdentity | undefined, now: MonotonicTime): void {
    this.#standings.set(name, { state: "connected", since: now, agent });
  }

  away(name: string, reason: string, now: MonotonicTime): void {
    this.#standings.set(name, { state: "away", since: now, reason });
  }

  /** Another attempt failed: the newest reason is the one to mend. */
  missed(name: string, reason: string): void {
    const standing = this.#standings.get(name);
    if (standing?.state === "away") this.#standings.set(name, { ...standing, reason });
  }

  get entries(): readonly PartitionEntry[] {
    return this.#specifications.map((specification) => {
      const { name } = specification;
      const standing = this.#standings.get(name);
      if (standing === undefined) throw new Error(`Bug: no partition ${name}`);
      const processes = this.#processes
        .filter(({ partition }) => partition === name)
        .map((process) => process.name);
      return { specification, standing, processes };
    });
  }
}
