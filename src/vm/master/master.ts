import { randomBytes } from "node:crypto";
import type { CallRecord } from "../../http/route.ts";
import type { Logger } from "../../logging/logger.ts";
import { type Revision, type Store, StoreError } from "../../store/store.ts";
import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type { MasterWrite } from "../perform/master-steps.ts";
import type { AssignmentAnswer, AssignmentPlace } from "../protocol-master.ts";
import { MASTER_PROTOCOL_VERSION } from "../protocol-master.ts";
import { step } from "./lifecycle.ts";
import {
  type ClusterState,
  type MasterEffect,
  type MasterEvent,
  type MasterSettings,
  newWorker,
  type Step,
  type WorkerState,
} from "./lifecycle-state.ts";
import { assignmentOf, isNewsTo } from "./lifecycle-view.ts";
import {
  masterBucket,
  numbersOf,
  partKeysOf,
  readKept,
  type Write,
  writeOfNumbers,
  writeOfWorker,
  writesOfDesired,
} from "./records.ts";

/** Before what the store did not take is tried again. */
const STORE_RETRY: Milliseconds = 5_000;
/** Attempts of one write whose answer is lost; its write id has it land once. */
const MOST_ATTEMPTS = 8;

/** What a master asks of a store. */
export type MasterStore = Pick<Store, "put" | "delete" | "watch">;

/** Names of machines in one record of the audit log. */
const RECORDED_NAMES = 100;

export interface MasterParts {
  readonly store: MasterStore;
  /** Of the store. */
  readonly incarnation: string;
  readonly settings: MasterSettings;
  readonly logger: Pick<Logger, "info" | "warn">;
  now(): MonotonicTime;
  wakeAfter(wait: Milliseconds, call: () => void): Disposable;
  /** Cuts a worker's power. @returns undefined when it is off, else why that is not known */
  runHook(asked: {
    readonly worker: string;
    readonly boot: string | null;
  }): Promise<string | undefined>;
  /** Why that program cannot be run now; undefined where nothing is in its way. */
  hookTrouble?(): string | undefined;
  /** Into the audit log. @throws AuditError */
  record(record: CallRecord): Promise<void>;
  /** Kill points of the build for fault tests. */
  onWrite(write: MasterWrite, when: "before" | "after"): void;
  onFailure(failure: unknown): void;
}

/** What a master decides over, of which something else says whether it acts. */
export interface MasterSeat {
  readonly store: MasterStore;
  /** Of the store. */
  readonly incarnation: string;
  readonly isActing: () => boolean;
}

/** @throws RecordRefused, StoreError */
export type MasterOpener = (seat: MasterSeat) => Promise<ClusterMaster>;

const idle = { phase: "idle" } as const;

type RecordEffect = Extract<MasterEffect, { kind: "record" }>;

/** A worker that waits for another assignment. */
interface Waiter {
  readonly lastSeen: AssignmentPlace | null;
  readonly resolve: () => void;
}

/**
 * Has the master's decisions written down, and then told: one event after the other. What a write
 * that failed has left in the store is read anew before anything else is decided.
 */
export class ClusterMaster {
  readonly #parts: MasterParts;
  #state: ClusterState;
  #formerParts: readonly string[];
  #tail: Promise<unknown> = Promise.resolve();
  #wake: Disposable | undefined;
  #retry: Disposable | undefined;
  /** By worker: one question at a time. */
  readonly #waiters = new Map<string, Waiter>();
  readonly #stopping = new AbortController();

  private constructor(parts: MasterParts, state: ClusterState, formerParts: readonly string[]) {
    this.#parts = parts;
    this.#state = state;
    this.#formerParts = formerParts;
  }

  /** @throws RecordRefused, StoreError */
  static async open(parts: MasterParts): Promise<ClusterMaster> {
    const { state, formerParts } = await load(parts, new Map());
    const master = new ClusterMaster(parts, state, formerParts);
    await master.post({ kind: "place" });
    return master;
  }

  get state(): ClusterState {
    return this.#state;
  }

  get settings(): MasterSettings {
    return this.#parts.settings;
  }

  get hookTrouble(): string | undefined {
    return this.#parts.hookTrouble?.();
  }

  now(): MonotonicTime {
    return this.#parts.now();
  }

  /**
   * Decides, and returns when what was decided is durable.
   * @throws StoreError: nothing of it was told, and what of it was written counts
   */
  async post(event: MasterEvent): Promise<Step> {
    const taken = this.#tail.then(() => this.#take(event));
    this.#tail = taken.catch(() => {});
    return await taken;
  }

  /** What `post` would do, without doing it. Owner generations are taken as given. */
  plan(event: MasterEvent): Step {
    const numbers = { next: 1, end: Number.MAX_SAFE_INTEGER };
    return this.#step({ ...this.#state, numbers }, event);
  }

  /** Waits for another assignment than this one, up to a time, or until `signal`. */
  async assignment(
    worker: string,
    asked: {
      readonly lastSeen: AssignmentPlace | null;
      readonly wait: Milliseconds;
      readonly signal: AbortSignal;
    },
  ): Promise<AssignmentAnswer> {
    const { lastSeen, wait, signal } = asked;
    this.#waiters.get(worker)?.resolve();
    if (this.#isNews(worker, lastSeen)) return assignmentOf(this.#state, worker);
    const ended = Promise.withResolvers<void>();
    const waiter = { lastSeen, resolve: ended.resolve };
    const stop = AbortSignal.any([signal, this.#stopping.signal]);
    if (wait > 0 && !stop.aborted) {
      this.#waiters.set(worker, waiter);
      using _time = this.#parts.wakeAfter(wait, ended.resolve);
      const onAbort = () => ended.resolve();
      stop.addEventListener("abort", onAbort, { once: true });
      await ended.promise;
      stop.removeEventListener("abort", onAbort);
      if (this.#waiters.get(worker) === waiter) this.#waiters.delete(worker);
    }
    return this.#isNews(worker, lastSeen)
      ? assignmentOf(this.#state, worker)
      : { kind: "unchanged", version: MASTER_PROTOCOL_VERSION };
  }

  /** Nobody waits any more, and what is being decided is decided. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake?.[Symbol.dispose]();
    this.#retry?.[Symbol.dispose]();
    await this.#tail;
    this.#wake?.[Symbol.dispose]();
    this.#retry?.[Symbol.dispose]();
  }

  #isNews(worker: string, lastSeen: AssignmentPlace | null): boolean {
    return isNewsTo(this.#state, worker, lastSeen);
  }

  async #take(event: MasterEvent): Promise<Step> {
    const outcome = this.#step(this.#state, event);
    if (outcome.refusal !== undefined) return outcome;
    await this.#write(outcome.effects, () => this.#heardIn(event, outcome));
    this.#state = outcome.state;
    this.#wakeAt(outcome.wakeAt);
    this.#tellWaiters();
    let last = outcome;
    for (const effect of outcome.effects) {
      if (effect.kind === "say") this.#parts.logger[effect.level](effect.message);
      if (effect.kind === "run-hook") this.#runHook(effect);
      if (effect.kind === "record") await this.#record(effect);
      if (effect.kind === "reserve-numbers") last = await this.#reserve(outcome);
    }
    return { ...last, ...(outcome.answer !== undefined && { answer: outcome.answer }) };
  }

  #step(state: ClusterState, event: MasterEvent): Step {
    const { settings } = this.#parts;
    return step(state, event, { now: this.#parts.now(), settings });
  }

  /** Numbers for machines that fit: without them those wait, and nothing else does. */
  async #reserve(outcome: Step): Promise<Step> {
    const { incarnation, logger } = this.#parts;
    try {
      const revision = await this.#put(writeOfNumbers(incarnation));
      return await this.#take({ kind: "numbers", numbers: numbersOf(revision) });
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      logger.warn(`machines wait for an owner generation: ${error.message}`);
      this.#retryLater({ kind: "place" });
      return outcome;
    }
  }

  /** A worker that reports is there, whatever of its report finds no room. */
  #heardIn(event: MasterEvent, { state }: Step): ReadonlyMap<string, WorkerState> {
    const { workers } = this.#state;
    if (event.kind !== "report") return workers;
    const [before, after] = [workers.get(event.worker), state.workers.get(event.worker)];
    if (before === undefined || after === undefined) return workers;
    const hook = before.hook.phase === "running" ? { ...before.hook, overtaken: true } : idle;
    const { heard, superseded } = after;
    return new Map(workers).set(event.worker, { ...before, heard, superseded, hook });
  }

  /**
   * @param known workers, as they are when a write has failed
   * @throws StoreError, after the state is what the store has
   */
  async #write(
    effects: readonly MasterEffect[],
    known: () => ReadonlyMap<string, WorkerState>,
  ): Promise<void> {
    try {
      for (const effect of effects) await this.#writeOne(effect);
    } catch (error) {
      const { state, formerParts } = await load(this.#parts, known(), this.#state);
      this.#state = state;
      this.#formerParts = formerParts;
      this.#tellWaiters();
      this.#retryLater({ kind: "place" });
      throw error;
    }
  }

  async #writeOne(effect: MasterEffect): Promise<void> {
    switch (effect.kind) {
      case "write-desired":
        for (const write of writesOfDesired(effect.declaration, this.#formerParts)) {
          await this.#put(write);
        }
        this.#formerParts = partKeysOf(effect.declaration);
        return;
      case "write-worker":
        await this.#put(writeOfWorker(effect.worker, effect.record));
        return;
      case "delete-worker":
        await this.#put(writeOfWorker(effect.worker, undefined));
        return;
      default:
        return;
    }
  }

  async #put({ kind, key, value }: Write): Promise<Revision> {
    const { store, onWrite } = this.#parts;
    const options = { writeId: randomBytes(16).toString("hex") };
    onWrite(kind, "before");
    for (let attempt = 1; ; attempt += 1) {
      try {
        const revision =
          value === undefined
            ? await store.delete(masterBucket.name, key, options)
            : await store.put(masterBucket.name, key, value, options);
        onWrite(kind, "after");
        return revision;
      } catch (error) {
        const isLost = error instanceof StoreError && error.problem.kind === "ambiguous";
        if (!isLost || attempt >= MOST_ATTEMPTS) throw error;
      }
    }
  }

  /** It is done, and a log that takes nothing more says so by itself. */
  async #record({ worker, how, machines }: RecordEffect): Promise<void> {
    try {
      await this.#parts.record({
        ...{ who: "master", from: "master", verb: "vm.fence", object: `worker ${worker}` },
        ...{ after: { fenced: how, taken: machines.slice(0, RECORDED_NAMES) }, result: "done" },
      });
    } catch (error) {
      this.#parts.logger.warn(
        `that ${worker} was fenced is not in the audit log: ${(error as Error).message}`,
      );
    }
  }

  #runHook({ worker, attempt }: { readonly worker: string; readonly attempt: number }): void {
    const boot = this.#state.workers.get(worker)?.heard?.report.boot ?? null;
    this.#parts.logger.warn(`${worker}: its power is being cut, attempt ${attempt}`);
    this.#parts.runHook({ worker, boot }).then(
      (failure) => this.#background({ kind: "hook-ended", worker, attempt, failure }),
      (failure: unknown) => this.#parts.onFailure(failure),
    );
  }

  #wakeAt(time: MonotonicTime | undefined): void {
    this.#wake?.[Symbol.dispose]();
    this.#wake = undefined;
    if (time === undefined || this.#stopping.signal.aborted) return;
    this.#wake = this.#parts.wakeAfter(Math.max(0, time - this.#parts.now()), () => {
      void this.#background({ kind: "time" });
    });
  }

  /** Of an event that nobody waits for. */
  async #background(event: MasterEvent): Promise<void> {
    if (this.#stopping.signal.aborted) return;
    try {
      await this.post(event);
    } catch (error) {
      if (!(error instanceof StoreError)) {
        this.#parts.onFailure(error);
        return;
      }
      this.#parts.logger.warn(
        `what is decided is not written: ${error.message}; it is tried again`,
      );
      this.#retryLater(event);
    }
  }

  #retryLater(event: MasterEvent): void {
    this.#retry?.[Symbol.dispose]();
    if (this.#stopping.signal.aborted) return;
    this.#retry = this.#parts.wakeAfter(STORE_RETRY, () => void this.#background(event));
  }

  #tellWaiters(): void {
    for (const [worker, waiter] of this.#waiters) {
      if (this.#isNews(worker, waiter.lastSeen)) waiter.resolve();
    }
  }
}

/** What the store has, beside what was heard and is under way. */
async function load(
  parts: MasterParts,
  known: ReadonlyMap<string, WorkerState>,
  before?: ClusterState,
): Promise<{ readonly state: ClusterState; readonly formerParts: readonly string[] }> {
  const { store, incarnation, now } = parts;
  const kept = await readKept(store, incarnation);
  const workers = new Map(
    [...kept.workers].map(([name, record]) => [
      name,
      { ...(known.get(name) ?? newWorker(name, record)), record },
    ]),
  );
  const placed = new Map(
    [...kept.workers].flatMap(([name, { machines }]) =>
      Object.keys(machines).map((machine) => [machine, name]),
    ),
  );
  const waiting = [...kept.desired.machines.keys()].filter((name) => !placed.has(name));
  const state: ClusterState = {
    incarnation,
    started: before?.started ?? now(),
    desired: kept.desired,
    workers,
    placed,
    unplaced: new Map(waiting.map((name) => [name, "it is about to be given to a worker"])),
    // Of those that were about to be given, some may have been.
    numbers: { next: 0, end: 0 },
    isRestored: kept.isRestored,
  };
  const formerParts = [...partKeysOf(kept.desired), ...kept.leftOver];
  return { state, formerParts };
}
