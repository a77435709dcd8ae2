import { desiredOf, type GivenMachine } from "./declaration.ts";
import type { MachineEvent } from "./lifecycle-state.ts";
import type { Assigned, Given } from "./machine-record.ts";
import type { DesiredFile } from "./perform/desired-file.ts";
import type { DesiredRequest, ReconciliationAnswer, VmSpec } from "./protocol.ts";
import {
  type Command,
  type DeclaredPower,
  type Desired,
  type DesiredMachine,
  eventOf,
  type Hold,
  type ObservedMachine,
  type Reconciliation,
  reconcile,
  type Standing,
} from "./reconcile.ts";

/** A declaration with its number, and which of its machines other hosts were given since. */
export type Declared = DesiredRequest & {
  readonly generation: number;
  readonly given?: GivenMachine[] | undefined;
};

/** A machine that is declared, and could not be made. */
export interface UnmadeMachine {
  readonly name: string;
  readonly reason: string;
  readonly assigned: Assigned | undefined;
}

/** What keeping to a declaration needs of the worker. */
export interface Reconciled {
  /** Where what was declared here is kept; undefined where a master declares. */
  readonly file: DesiredFile | undefined;
  observe(): readonly ObservedMachine[];
  /** Why this worker can have no such machine, whatever else it has. */
  refuse(
    spec: VmSpec,
  ):
    | { readonly kind: "image" | "network" | "machine-refused"; readonly message: string }
    | undefined;
  /** @returns why there can be no such machine */
  create(machine: DesiredMachine): string | undefined;
  /** Notes what a machine was declared to be. @throws Error (ENOSPC …) */
  declare(name: string, power: DeclaredPower): void;
  /** Has a machine that came from another host be a declared one. @throws Error (ENOSPC …) */
  adopt(machine: DesiredMachine): void;
  /** Changes what of a machine can be changed while it runs. @throws Error (ENOSPC …) */
  adjust(name: string, spec: VmSpec): void;
  handle(name: string, event: MachineEvent): void;
  /** Ends its VMM at once, whatever its machine is doing. */
  kill(name: string): void;
  onTrouble(message: string): void;
}

/** A declaration that is older than the last one, of networks that are not here, or not written. */
export class DeclarationRefused extends Error {
  override readonly name = "DeclarationRefused";
  readonly kind:
    | "old-generation"
    | "has-master"
    | "image"
    | "network"
    | "machine-refused"
    | "system";

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
  #desired: Desired | undefined;
  /** The same as it stands in the file; a text that says why that is not understood. */
  #kept: Declared | string | undefined;
  #holds: ReadonlyMap<string, Hold> = new Map();
  #last: Reconciliation | undefined;
  /** Commands that were refused when they were last given: not given again to as many machines. */
  readonly #refused = new Set<string>();
  /** Machines that could not be made when that was last tried, and why. */
  readonly #unmade = new Map<string, UnmadeMachine>();
  #machines = 0;
  #isReconciling = false;

  constructor(worker: Reconciled) {
    this.#worker = worker;
    const { file } = worker;
    const found = file?.read();
    this.#kept = found;
    if (typeof found === "string") {
      worker.onTrouble(this.damage ?? found);
    } else if (found !== undefined) {
      this.#desired = desiredOf(found, found.generation, found.given);
    }
  }

  /** It is declared now, so that it would be made anew. */
  has(name: string): boolean {
    return this.#desired?.machines.some(({ spec }) => spec.name === name) === true;
  }

  get generation(): number | null {
    return this.#desired?.generation ?? null;
  }

  get convergencePercent(): number | null {
    return this.#last?.convergencePercent ?? null;
  }

  /** How machines stood to what is declared, when that was last looked at, by name. */
  get standings(): ReadonlyMap<string, Standing> {
    return new Map(this.#last?.standings.map((standing) => [standing.name, standing]));
  }

  /** Declared machines that this worker does not have, because it could not make them. */
  get unmade(): readonly UnmadeMachine[] {
    return [...this.#unmade.values()];
  }

  /** What was refused for something that is over by now is tried again. */
  lookAnew(): void {
    this.#refused.clear();
    this.reconcile();
  }

  /** Why nothing is declared though something was: its file is damaged. */
  get damage(): string | undefined {
    if (typeof this.#kept !== "string") return undefined;
    const { file } = this.#worker;
    return (
      `${file?.path} is not understood, and nothing is declared: ${this.#kept}. Machines stay as ` +
      "they are: say hostler vm apply FILE again, which writes it anew"
    );
  }

  /** What a master declares, and which machines may not run: kept to from now on. */
  follow(desired: Desired, holds: ReadonlyMap<string, Hold>): void {
    if (desired !== this.#desired) this.#refused.clear();
    this.#desired = desired;
    this.#holds = holds;
    this.reconcile();
  }

  /** @throws DeclarationRefused: the former declaration stands */
  apply(request: DesiredRequest): ReconciliationAnswer {
    const { file } = this.#worker;
    if (file === undefined) throw hasMaster();
    const last = this.#desired?.generation ?? 0;
    const generation = request.generation ?? last + 1;
    if (generation < last) {
      const message = `Expected generation ${last} or a later one, received ${generation}`;
      throw new DeclarationRefused(message, { kind: "old-generation" });
    }
    this.#refuseUnfit(request);
    const given = this.#stillGiven(request);
    try {
      this.#keep({ ...request, generation, given });
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const message = `Cannot write the declaration down: ${why}`;
      throw new DeclarationRefused(message, { kind: "system", cause: error });
    }
    this.#refused.clear();
    const planned = this.#plan(desiredOf(request, generation, given));
    this.reconcile();
    return answerOf(planned);
  }

  /** @throws Error (ENOSPC …): the former one stands */
  #keep(declared: Declared): void {
    const { given = [], ...rest } = declared;
    this.#worker.file?.write(given.length === 0 ? rest : { ...rest, given });
    this.#kept = declared;
    this.#desired = desiredOf(declared, declared.generation, given);
  }

  /** Whoever takes a machine out of the file knows that it went; one that is here has come back. */
  #stillGiven({ machine }: DesiredRequest): GivenMachine[] {
    const declared = new Set(machine.map(({ name }) => name));
    const here = new Set(this.#worker.observe().map(({ name }) => name));
    const isOpen = ({ name }: GivenMachine) => declared.has(name) && !here.has(name);
    return this.#given.filter(isOpen);
  }

  get #given(): readonly GivenMachine[] {
    return typeof this.#kept === "object" ? (this.#kept.given ?? []) : [];
  }

  /**
   * A machine of the declaration is another host's, and is not made anew here. Safe to say again.
   * @throws Error (ENOSPC …), or when nobody knows what is declared
   */
  noteGiven(name: string, given: Given): void {
    if (typeof this.#kept === "string") {
      throw new Error(`It cannot be noted that another host has it: ${this.#kept}`);
    }
    if (this.#kept?.machine.some((one) => one.name === name) !== true) return;
    const others = this.#given.filter((one) => one.name !== name);
    this.#keep({ ...this.#kept, given: [...others, { name, ...given }] });
  }

  /**
   * It may be made anew here. @returns false when it was not given away
   * @throws Error (ENOSPC …): it stays another host's
   */
  forgetGiven(name: string): boolean {
    const others = this.#given.filter((one) => one.name !== name);
    if (typeof this.#kept !== "object" || others.length === this.#given.length) return false;
    this.#keep({ ...this.#kept, given: others });
    this.reconcile();
    return true;
  }

  #refuseUnfit({ machine }: DesiredRequest): void {
    for (const spec of machine) {
      const refusal = this.#worker.refuse(spec);
      if (refusal !== undefined) throw new DeclarationRefused(refusal.message, refusal);
    }
  }

  /** What `apply` would do. */
  diff(request: DesiredRequest): ReconciliationAnswer {
    if (this.#worker.file === undefined) throw hasMaster();
    this.#refuseUnfit(request);
    const generation = request.generation ?? (this.#desired?.generation ?? 0) + 1;
    return answerOf(this.#plan(desiredOf(request, generation, this.#stillGiven(request))));
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
      const missing = this.#last.commands.filter(({ kind }) => kind === "create");
      const names = new Set(missing.map(({ name }) => name));
      for (const name of this.#unmade.keys()) if (!names.has(name)) this.#unmade.delete(name);
      for (const command of this.#last.commands) this.#perform(command);
    } finally {
      this.#isReconciling = false;
    }
  }

  #plan(desired: Desired, observed = this.#worker.observe()): Reconciliation {
    return reconcile(desired, observed, this.#holds);
  }

  #perform(command: Command): void {
    const { name } = command;
    const key = `${command.kind} ${name}`;
    if (this.#refused.has(key)) return;
    try {
      const refusal = this.#order(command);
      this.#noteUnmade(command, refusal);
      if (refusal === undefined) return;
      this.#refused.add(key);
      this.#worker.onTrouble(`${name}: as declared: ${refusal}`);
    } catch (error) {
      // Its record found no room: it is tried again with the next thing that happens.
      const why = error instanceof Error ? error.message : String(error);
      this.#noteUnmade(command, why);
      this.#worker.onTrouble(`${name}: as declared: ${why}`);
    }
  }

  #noteUnmade(command: Command, reason: string | undefined): void {
    if (command.kind !== "create") return;
    const { name, machine } = command;
    if (reason === undefined) this.#unmade.delete(name);
    else this.#unmade.set(name, { name, reason, assigned: machine.assigned });
  }

  /** Its VMM first; that it is to be off is noted so that nothing starts it, and is tried again. */
  #end(name: string): void {
    const { kill, observe, declare, handle } = this.#worker;
    kill(name);
    const wanted = observe().find((machine) => machine.name === name)?.wanted;
    if (wanted === "off" || wanted === "absent") return;
    // A boot is a wish of its declaration again, once it may.
    declare(name, "off");
    handle(name, { kind: "shutdown", hurry: true });
  }

  #order(command: Command): string | undefined {
    if (command.kind === "create") return this.#worker.create(command.machine);
    if (command.kind === "end") {
      this.#end(command.name);
      return undefined;
    }
    if (command.kind === "adopt") {
      this.#worker.adopt(command.machine);
      // What it was given away for, once, is over: it came back.
      this.forgetGiven(command.name);
      return undefined;
    }
    if (command.kind === "adjust") {
      this.#worker.adjust(command.name, command.spec);
      if (command.boots === true) this.#worker.handle(command.name, { kind: "boot" });
      return undefined;
    }
    if (command.kind === "power") {
      const machine = this.#desired?.machines.find(({ spec }) => spec.name === command.name);
      this.#worker.declare(command.name, machine?.power ?? "running");
    }
    this.#worker.handle(command.name, eventOf(command));
    return undefined;
  }
}

const hasMaster = () =>
  new DeclarationRefused(
    "This worker has what its master declares: expected a declaration at the master, received " +
      "one here. Apply it there, or take [master] out of the configuration",
    { kind: "has-master" },
  );

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
      if (command.reason === "extra") return "it is declared no more";
      return command.reason === "given-anew"
        ? "it is given under a higher owner generation: it is created anew after it"
        : `${command.drift.map(({ key }) => key).join(", ")} changed: it is created anew after it`;
    case "adopt":
      return "it came from another host, as it is declared";
    case "adjust":
      return `${command.drift.map(({ key }) => key).join(", ")} changed`;
    case "end":
      return command.reason;
    case "power":
      return command.event;
  }
}
