import type { MonotonicTime } from "../../units/units.ts";
import type { ReportReply } from "../protocol-master.ts";
import type {
  ClusterState,
  Declaration,
  MasterEffect,
  MasterSettings,
  OwnerNumbers,
  Proof,
  Step,
  WorkerRecord,
  WorkerState,
} from "./lifecycle-state.ts";

/**
 * A state that is being changed by one event, and what has to be written for it: each record once,
 * as it is at the end. The state that it began with is not touched.
 */
export class Draft {
  readonly now: MonotonicTime;
  readonly settings: MasterSettings;
  readonly #before: ClusterState;
  readonly #workers: Map<string, WorkerState>;
  #placed: Map<string, string> | undefined;
  #unplaced: ReadonlyMap<string, string>;
  #desired: Declaration;
  #numbers: OwnerNumbers;
  #isRestored: boolean;
  #isPlanDue = false;
  /** Taken from a worker: written before any is given to another. */
  readonly #taken = new Set<string>();
  readonly #given = new Set<string>();
  readonly #deleted = new Set<string>();
  readonly #others: MasterEffect[] = [];

  constructor(
    state: ClusterState,
    context: { readonly now: MonotonicTime; readonly settings: MasterSettings },
  ) {
    this.now = context.now;
    this.settings = context.settings;
    this.#before = state;
    this.#workers = new Map(state.workers);
    this.#unplaced = state.unplaced;
    this.#desired = state.desired;
    this.#numbers = state.numbers;
    this.#isRestored = state.isRestored;
  }

  /** As it is now. */
  get state(): ClusterState {
    return {
      incarnation: this.#before.incarnation,
      started: this.#before.started,
      desired: this.#desired,
      workers: this.#workers,
      placed: this.#placed ?? this.#before.placed,
      unplaced: this.#unplaced,
      numbers: this.#numbers,
      isRestored: this.#isRestored,
    };
  }

  worker(name: string): WorkerState | undefined {
    return this.#workers.get(name);
  }

  workers(): readonly WorkerState[] {
    return [...this.#workers.values()];
  }

  /** What is not kept: what was heard, the standing, the hook. */
  setWorker(worker: WorkerState): void {
    this.#workers.set(worker.name, worker);
  }

  /** Written, without a change of what the worker was given. */
  record(name: string, record: WorkerRecord): void {
    const worker = this.#workers.get(name);
    if (worker === undefined) throw new Error(`There is no worker ${name}`);
    this.#workers.set(name, { ...worker, record });
    this.#taken.add(name);
  }

  /** What the worker has is another: its assignment has another number. */
  assign(name: string, record: WorkerRecord): void {
    this.record(name, { ...record, revision: record.revision + 1 });
  }

  /** It has further machines, which nobody has. */
  give(name: string, record: WorkerRecord, machines: readonly string[]): void {
    this.assign(name, record);
    // One that something was taken from is written once, and first: what it gets comes with it.
    this.#given.add(name);
    for (const machine of machines) this.#placedMap().set(machine, name);
  }

  /** Nobody has these machines any more. */
  unplace(machines: readonly string[]): void {
    const placed = this.#placedMap();
    for (const machine of machines) placed.delete(machine);
    this.replan();
  }

  /**
   * The worker is proven dead: what may run elsewhere is taken from it. All else it starts again
   * after its next boot, without a word, and so nobody else may have it.
   * @param machines those that the proof is good for; all of them without it
   */
  fence(name: string, how: Proof, machines?: readonly string[]): void {
    const worker = this.#workers.get(name);
    if (worker === undefined) return;
    const { record, heard } = worker;
    const kept = { ...record.machines };
    const released = { ...record.released };
    const taken: string[] = [];
    for (const [machine, { owner_generation, movable }] of Object.entries(record.machines)) {
      const desired = this.#desired.machines.get(machine);
      // What an older backup says of it may be over: its next boot may start it without a word.
      const isKnown = movable && !this.#isRestored;
      const mayGo = isKnown && (desired === undefined || desired.placement.movable === true);
      if (!mayGo || (machines !== undefined && !machines.includes(machine))) continue;
      delete kept[machine];
      released[machine] = owner_generation;
      taken.push(machine);
    }
    const fenced = { how, boot: heard?.report.boot ?? null };
    this.assign(name, { ...record, machines: kept, released, fenced });
    this.unplace(taken);
    this.say("warn", `${name} is proven dead (${how}): it has ${taken.length} fewer machines`);
    // What a person says is a call, and recorded as one.
    if (how !== "confirmed") {
      this.#others.push({ kind: "record", worker: name, how, machines: taken });
    }
  }

  forget(name: string): void {
    this.#workers.delete(name);
    this.#taken.delete(name);
    this.#given.delete(name);
    this.#deleted.add(name);
  }

  setDesired(declaration: Declaration): void {
    this.#desired = declaration;
    this.#others.push({ kind: "write-desired", declaration });
    this.replan();
  }

  setNumbers(numbers: OwnerNumbers): void {
    this.#numbers = numbers;
  }

  /** The store has given these, above all before: a restored backup is no danger any more. */
  reserved(numbers: OwnerNumbers): void {
    this.#numbers = numbers;
    this.#isRestored = false;
    this.replan();
  }

  reserveNumbers(): void {
    this.#others.push({ kind: "reserve-numbers" });
  }

  setUnplaced(unplaced: ReadonlyMap<string, string>): void {
    this.#unplaced = unplaced;
  }

  /** Nothing is given for now. */
  hold(reason: string): void {
    const placed = this.#placed ?? this.#before.placed;
    const waiting = [...this.#desired.machines.keys()].filter((name) => !placed.has(name));
    this.#unplaced = new Map(waiting.map((name) => [name, reason]));
  }

  runHook(worker: string, attempt: number): void {
    this.#others.push({ kind: "run-hook", worker, attempt });
  }

  say(level: "info" | "warn", message: string): void {
    this.#others.push({ kind: "say", level, message });
  }

  /** What machines without a worker may get may be another now. */
  replan(): void {
    this.#isPlanDue = true;
  }

  isPlanDue(): boolean {
    return this.#isPlanDue;
  }

  finish(told: Pick<Step, "wakeAt"> & { readonly answer: ReportReply | undefined }): Step {
    const { wakeAt, answer } = told;
    const { workers } = this.state;
    const write = (worker: string): MasterEffect[] => {
      const record = workers.get(worker)?.record;
      return record === undefined ? [] : [{ kind: "write-worker", worker, record }];
    };
    // A killed master has taken and not given: never the other way round.
    const onlyGiven = [...this.#taken].filter((name) => this.#given.has(name));
    const onlyTaken = [...this.#taken].filter((name) => !this.#given.has(name));
    return {
      state: this.state,
      effects: [
        ...this.#others.filter(({ kind }) => kind === "write-desired"),
        ...onlyTaken.flatMap(write),
        ...[...this.#deleted].map((worker) => ({ kind: "delete-worker", worker }) as const),
        ...onlyGiven.flatMap(write),
        ...this.#others.filter(({ kind }) => kind !== "write-desired"),
      ],
      ...(answer !== undefined && { answer }),
      wakeAt,
    };
  }

  #placedMap(): Map<string, string> {
    this.#placed ??= new Map(this.#before.placed);
    return this.#placed;
  }
}
