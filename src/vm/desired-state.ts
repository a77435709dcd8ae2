import { desiredOf } from "./declaration.ts";
import type { MachineEvent } from "./lifecycle-state.ts";
import type { DesiredFile } from "./perform/desired-file.ts";
import type { DesiredRequest, ReconciliationAnswer, VmSpec } from "./protocol.ts";
import {
  type Command,
  type DeclaredPower,
  eventOf,
  type ObservedMachine,
  type Reconciliation,
  reconcile,
} from "./reconcile.ts";

/** A declaration with its number. */
export type Declared = DesiredRequest & { readonly generation: number };

/** What keeping to a declaration needs of the worker. */
export interface Reconciled {
  readonly file: DesiredFile;
  observe(): readonly ObservedMachine[];
  /** Why this worker can have no such machine, whatever else it has. */
  refuse(spec: VmSpec): string | undefined;
  /** @returns why there can be no such machine */
  create(spec: VmSpec, power: DeclaredPower): string | undefined;
  /** Notes what a machine was declared to be. @throws Error (ENOSPC …) */
  declare(name: string, power: DeclaredPower): void;
  /** Changes what of a machine can be changed while it runs. @throws Error (ENOSPC …) */
  adjust(name: string, spec: VmSpec): void;
  handle(name: string, event: MachineEvent): void;
  onTrouble(message: string): void;
}

/** A declaration that is older than the last one, of networks that are not here, or not written. */
export class DeclarationRefused extends Error {
  override readonly name = "DeclarationRefused";
  readonly kind: "old-generation" | "network" | "system";

  constructor(
    message: string,
    options: ErrorOptions & { readonly kind: DeclarationRefused["kind"] },
  ) {
    super(message, options);
    this.kind = options.kind;
  }
}

/** Keeps the machines of a worker as they are declared, over its restarts. */
export class DesiredState {
  readonly #worker: Reconciled;
  #desired: Declared | undefined;
  #last: Reconciliation | undefined;
  /** Commands that were refused when they were last given: not given again to as many machines. */
  readonly #refused = new Set<string>();
  #machines = 0;
  #isReconciling = false;

  constructor(worker: Reconciled) {
    this.#worker = worker;
    const found = worker.file.read();
    if (typeof found === "string") {
      worker.onTrouble(`${worker.file.path} is not understood, and nothing is declared: ${found}`);
    } else this.#desired = found;
  }

  get generation(): number | null {
    return this.#desired?.generation ?? null;
  }

  get convergencePercent(): number | null {
    return this.#last?.convergencePercent ?? null;
  }

  /** @throws DeclarationRefused: the former declaration stands */
  apply(request: DesiredRequest): ReconciliationAnswer {
    const last = this.#desired?.generation ?? 0;
    const generation = request.generation ?? last + 1;
    if (generation < last) {
      const message = `Expected generation ${last} or a later one, received ${generation}`;
      throw new DeclarationRefused(message, { kind: "old-generation" });
    }
    this.#refuseUnfit(request);
    const desired = { ...request, generation };
    try {
      this.#worker.file.write(desired);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const message = `Cannot write the declaration down: ${why}`;
      throw new DeclarationRefused(message, { kind: "system", cause: error });
    }
    this.#desired = desired;
    this.#refused.clear();
    const planned = this.#plan(desired);
    this.reconcile();
    return answerOf(planned);
  }

  #refuseUnfit({ machine }: DesiredRequest): void {
    for (const spec of machine) {
      const refusal = this.#worker.refuse(spec);
      if (refusal !== undefined) throw new DeclarationRefused(refusal, { kind: "network" });
    }
  }

  /** What `apply` would do. */
  diff(request: DesiredRequest): ReconciliationAnswer {
    this.#refuseUnfit(request);
    const generation = request.generation ?? (this.#desired?.generation ?? 0) + 1;
    return answerOf(this.#plan({ ...request, generation }));
  }

  /** After everything that happened: does what is left to do; nothing where all is as declared. */
  reconcile(): void {
    if (this.#desired === undefined || this.#isReconciling) return;
    this.#isReconciling = true;
    try {
      const observed = this.#worker.observe();
      if (observed.length !== this.#machines) this.#refused.clear();
      this.#machines = observed.length;
      this.#last = this.#plan(this.#desired, observed);
      for (const command of this.#last.commands) this.#perform(command);
    } finally {
      this.#isReconciling = false;
    }
  }

  #plan(desired: Declared, observed = this.#worker.observe()): Reconciliation {
    return reconcile(desiredOf(desired, desired.generation), observed);
  }

  #perform(command: Command): void {
    const { name } = command;
    const key = `${command.kind} ${name}`;
    if (this.#refused.has(key)) return;
    try {
      const refusal = this.#order(command);
      if (refusal === undefined) return;
      this.#refused.add(key);
      this.#worker.onTrouble(`${name}: as declared: ${refusal}`);
    } catch (error) {
      // Its record found no room: it is tried again with the next thing that happens.
      const why = error instanceof Error ? error.message : String(error);
      this.#worker.onTrouble(`${name}: as declared: ${why}`);
    }
  }

  #order(command: Command): string | undefined {
    if (command.kind === "create") {
      const { spec, power } = command.machine;
      return this.#worker.create(spec, power);
    }
    if (command.kind === "adjust") {
      this.#worker.adjust(command.name, command.spec);
      return undefined;
    }
    if (command.kind === "power") {
      const machine = this.#desired?.machine.find(({ name }) => name === command.name);
      this.#worker.declare(command.name, machine?.power ?? "running");
    }
    this.#worker.handle(command.name, eventOf(command));
    return undefined;
  }
}

function answerOf({
  generation,
  convergencePercent,
  commands,
  standings,
}: Reconciliation): ReconciliationAnswer {
  return {
    generation,
    convergence_percent: convergencePercent,
    commands: commands.map((command) => ({
      kind: command.kind,
      name: command.name,
      detail: detailOf(command),
    })),
    machines: standings.map(({ name, status, reason, drift }) => ({
      name,
      status,
      reason: reason ?? null,
      drift: drift.map(({ key, desired, observed }) => ({
        key,
        desired: desired ?? null,
        observed: observed ?? null,
      })),
    })),
  };
}

function detailOf(command: Command): string {
  switch (command.kind) {
    case "create":
      return `to be ${command.machine.power}`;
    case "delete":
      return command.reason === "extra"
        ? "it is declared no more"
        : `${command.drift.map(({ key }) => key).join(", ")} changed: it is created anew after it`;
    case "adjust":
      return `${command.drift.map(({ key }) => key).join(", ")} changed`;
    case "power":
      return command.event;
  }
}
