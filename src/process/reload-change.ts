import {
  isRenewable,
  type OrchestrationEvent,
  type OrchestrationState,
  type Renewal,
} from "./orchestration.ts";
import { byName, type ChangedProcess, type ReloadPlan } from "./reload-plan.ts";
import type {
  Configuration,
  PartitionSpecification,
  ProcessSpecification,
} from "./specification.ts";

/** What it has come to, told for tests that end the orchestrator there. */
export const reloadSteps = ["reload:begun", "reload:put-in", "reload:applied"] as const;
export type ReloadStep = (typeof reloadSteps)[number];

/** The performing side, as far as it has to know of another configuration. */
export interface Renewable<LogFile> {
  /** Acts when no start of this process can be made that nobody asks for. */
  settle(name: string, act: () => void): void;
  add(specification: ProcessSpecification, logFile: LogFile | undefined): void;
  /** Why what runs cannot have what it is to have; undefined when it has it. */
  renew(
    specification: ProcessSpecification,
    how: { readonly launch: "same" | "other"; readonly logFile: LogFile | undefined },
  ): string | undefined;
  remove(name: string): void;
  addPartition(specification: PartitionSpecification): void;
  removePartition(name: string): void;
}

/** The driver, as it is asked for another configuration. */
export interface ChangeHost<LogFile> {
  /** What it goes by now. */
  readonly configuration: Configuration;
  readonly state: OrchestrationState;
  readonly performer: Renewable<LogFile>;
  handle(event: OrchestrationEvent): void;
  /** Goes by this one from now on; of `others` it says something else than before. */
  goBy(configuration: Configuration, others: readonly string[]): void;
  /** Whether it is ready, or does its work, is looked at by what is said now. */
  watchAgain(name: string): void;
  onStep(step: ReloadStep): void;
}

/**
 * A configuration that is being put in: each process when nothing of it lives that was started by
 * the former one, each partition when nothing runs there by the former one.
 */
export class ConfigurationChange<LogFile> {
  readonly #host: ChangeHost<LogFile>;
  readonly #plan: ReloadPlan;
  readonly #next: Configuration;
  readonly #nextProcesses: ReadonlyMap<string, ProcessSpecification>;
  readonly #changed: ReadonlyMap<string, ChangedProcess>;
  readonly #otherPartitions: ReadonlySet<string>;
  /** Files of lines that are open already, until their processes have them. */
  readonly #logFiles: Map<string, LogFile>;
  /** Names of the former configuration that are not put in yet. */
  readonly #pending: Map<string, Renewal>;
  /** New names that are not there yet. */
  readonly #coming: Set<string>;
  /** Changed partitions that are still the former ones. */
  readonly #formerPartitions: Set<string>;
  /** Of those who can be put in: no start can be made any more that nobody asks for. */
  readonly #settling = new Set<string>();
  readonly #settled = new Set<string>();
  readonly #refused: { readonly name: string; readonly reason: string }[] = [];
  #isBusy = false;
  #isOver = false;

  constructor(
    host: ChangeHost<LogFile>,
    what: {
      readonly plan: ReloadPlan;
      readonly next: Configuration;
      readonly logFiles: ReadonlyMap<string, LogFile>;
    },
  ) {
    this.#host = host;
    const { plan } = what;
    this.#plan = plan;
    this.#next = what.next;
    this.#nextProcesses = byName(what.next.processes);
    this.#logFiles = new Map(what.logFiles);
    this.#changed = byName(plan.processes.changed);
    this.#otherPartitions = new Set(plan.partitions.changed.map(({ name }) => name));
    this.#pending = new Map<string, Renewal>([
      ...plan.processes.removed.map((name) => [name, "gone"] as const),
      ...plan.processes.changed.map(({ name, how }) => [name, how] as const),
    ]);
    this.#coming = new Set(plan.processes.added);
    this.#formerPartitions = new Set(this.#otherPartitions);
  }

  /** What processes that run could not be given. */
  get refused(): readonly { readonly name: string; readonly reason: string }[] {
    return this.#refused;
  }

  get next(): Configuration {
    return this.#next;
  }

  /** Who is not put in yet. */
  get waitsFor(): readonly string[] {
    return [...this.#pending.keys(), ...this.#coming];
  }

  /** Nothing more is put in. The files of lines that nobody has are the caller's. */
  abandon(): Iterable<LogFile> {
    this.#isOver = true;
    return this.#logFiles.values();
  }

  begin(): void {
    this.#isBusy = true;
    const partitions = byName(this.#next.partitions);
    const { added } = this.#plan.partitions;
    for (const name of added) {
      this.#host.performer.addPartition(partitions.get(name) as PartitionSpecification);
    }
    if (added.length > 0) this.#host.goBy(this.#mixed(), []);
    this.#host.handle({ kind: "renew", renewals: new Map(this.#pending) });
    this.#isBusy = false;
    this.#host.onStep("reload:begun");
  }

  /** Puts in whoever can be, as it is now; true when all of it is, once. */
  advance(): boolean {
    if (this.#isBusy || this.#isOver) return false;
    this.#isBusy = true;
    try {
      while (this.#step());
      if (this.waitsFor.length > 0 || this.#formerPartitions.size > 0) return false;
      this.#end();
      return true;
    } finally {
      this.#isBusy = false;
    }
  }

  /** True when something was done, so that more may follow. */
  #step(): boolean {
    this.#settle();
    this.#renewPartitions();
    const names = [...this.#pending.keys()].filter((name) => {
      return this.#isDone(name) && this.#hasItsPartition(name);
    });
    const added = [...this.#coming].filter((name) => this.#hasItsPartition(name));
    if (names.length + added.length === 0) return false;
    this.#putIn(names, added);
    return true;
  }

  #settle(): void {
    for (const name of this.#pending.keys()) {
      if (this.#settling.has(name) || !isRenewable(this.#host.state, name)) continue;
      this.#settling.add(name);
      this.#host.performer.settle(name, () => {
        this.#settled.add(name);
        // Has the driver look again, where this came later.
        if (!this.#isBusy) this.#host.handle({ kind: "time" });
      });
    }
  }

  /** By the former configuration nothing of it lives, and nothing follows. */
  #isDone(name: string): boolean {
    return this.#settled.has(name) && isRenewable(this.#host.state, name);
  }

  #hasItsPartition(name: string): boolean {
    return !this.#formerPartitions.has(this.#nextProcesses.get(name)?.partition ?? "");
  }

  /** Has the next one in the place of each changed partition in which nothing runs any more. */
  #renewPartitions(): void {
    if (this.#formerPartitions.size === 0) return;
    const { performer, configuration } = this.#host;
    const former = byName(configuration.processes);
    const next = byName(this.#next.partitions);
    for (const partition of this.#formerPartitions) {
      const isUsed = [...this.#pending.keys()].some((name) => {
        return former.get(name)?.partition === partition && !this.#isDone(name);
      });
      if (isUsed) continue;
      this.#formerPartitions.delete(partition);
      performer.removePartition(partition);
      this.#host.handle({ kind: "partition", name: partition, reachable: false });
      performer.addPartition(next.get(partition) as PartitionSpecification);
      this.#host.goBy(this.#mixed(), []);
    }
  }

  #putIn(names: readonly string[], added: readonly string[]): void {
    const { performer } = this.#host;
    const next = this.#nextProcesses;
    for (const name of names) {
      const launch = this.#pending.get(name) === "in-place" ? "same" : "other";
      this.#pending.delete(name);
      const specification = next.get(name);
      if (specification === undefined) performer.remove(name);
      else {
        const logFile = this.#takeLogFile(name);
        const reason = performer.renew(specification, { launch, logFile });
        if (reason !== undefined) this.#refused.push({ name, reason });
      }
    }
    for (const name of added) {
      this.#coming.delete(name);
      performer.add(next.get(name) as ProcessSpecification, this.#takeLogFile(name));
    }
    this.#host.goBy(this.#mixed(), [...names, ...added]);
    this.#host.onStep("reload:put-in");
    for (const name of names) {
      const keys = this.#changed.get(name)?.keys ?? [];
      if (keys.includes("ready") || keys.includes("alive")) this.#host.watchAgain(name);
    }
  }

  #takeLogFile(name: string): LogFile | undefined {
    const file = this.#logFiles.get(name);
    this.#logFiles.delete(name);
    return file;
  }

  /** What it goes by meanwhile: of whoever is not put in yet, the former configuration. */
  #mixed(): Configuration {
    const { configuration } = this.#host;
    const former = byName(configuration.processes);
    const processes = this.#next.processes.flatMap((process) => {
      const { name } = process;
      if (this.#coming.has(name)) return [];
      const stays = this.#pending.has(name) || !this.#changed.has(name);
      return [stays ? (former.get(name) ?? process) : process];
    });
    const going = configuration.processes.filter(({ name }) => this.#pending.get(name) === "gone");
    const formerPartitions = byName(configuration.partitions);
    const partitions = this.#next.partitions.map((partition) => {
      const { name } = partition;
      const stays = this.#formerPartitions.has(name) || !this.#otherPartitions.has(name);
      return stays ? (formerPartitions.get(name) ?? partition) : partition;
    });
    const { removed } = this.#plan.partitions;
    const leaving = configuration.partitions.filter(({ name }) => removed.includes(name));
    return {
      holder: this.#next.holder,
      concurrentStarts: this.#next.concurrentStarts,
      processes: [...processes, ...going],
      partitions: [...partitions, ...leaving],
    };
  }

  #end(): void {
    this.#isOver = true;
    const mixed = this.#mixed();
    const { removed } = this.#plan.partitions;
    for (const name of removed) {
      this.#host.performer.removePartition(name);
      this.#host.handle({ kind: "partition", name, reachable: false });
    }
    const partitions = mixed.partitions.filter(({ name }) => !removed.includes(name));
    this.#host.goBy({ ...mixed, partitions }, []);
  }
}
