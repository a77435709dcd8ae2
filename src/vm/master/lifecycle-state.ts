import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type {
  AssignmentPlace,
  ClusterRequest,
  Placement,
  Report,
  ReportedMachine,
  ReportReply,
  workerStandings,
} from "../protocol-master.ts";
import type { DesiredMachine } from "../reconcile.ts";

/** The words of a master's decisions: what it knows, what happens to it, what it has done. Pure. */

/** A machine of the cluster as it is declared. */
export interface ClusterDesired extends DesiredMachine {
  readonly placement: Placement;
}

export interface Declaration {
  readonly generation: number;
  readonly machines: ReadonlyMap<string, ClusterDesired>;
}

/** One machine that a worker was given. */
export interface Placed {
  readonly owner_generation: number;
  /**
   * The worker knows that it may move, and so starts it after a boot only when it was heard.
   * Without that no proof is good for longer than its next boot.
   */
  readonly movable: boolean;
  /**
   * Of the watchdog that was armed when the machine was given, in milliseconds: then the worker is
   * under a lease for it. null: nothing but a power-off, or a person, can prove the machine dead.
   */
  readonly watchdog_ms: number | null;
}

export type Proof = "hook" | "watchdog" | "confirmed";

/** How a worker was proven dead. */
export interface Fenced {
  readonly how: Proof;
  /** Of the boot that ended; null when the master had not heard of it. */
  readonly boot: string | null;
}

/** What is kept of a worker. */
export interface WorkerRecord {
  readonly version: 1;
  /** Rises with every change of what it was given. */
  readonly revision: number;
  readonly cordoned: boolean;
  readonly fenced: Fenced | null;
  /** What it was given, until it says that it has it no more, or is proven dead. */
  readonly machines: Readonly<Record<string, Placed>>;
  /** What was taken from it, by owner generation: it is told so until it has heard of it. */
  readonly released: Readonly<Record<string, number>>;
  /** What it holds by another word than this master's, by owner generation: nobody else gets it. */
  readonly found: Readonly<Record<string, number>>;
}

/** What a worker said last, and when. */
export interface Heard {
  readonly report: Report;
  readonly at: MonotonicTime;
  readonly byName: ReadonlyMap<string, ReportedMachine>;
}

/** The program that cuts a worker's power. */
export type Hook =
  | { readonly phase: "idle" }
  /** overtaken: it was heard since the hook began, perhaps after the power came back. */
  | { readonly phase: "running"; readonly attempt: number; readonly overtaken: boolean }
  | {
      readonly phase: "waiting";
      readonly attempt: number;
      readonly until: MonotonicTime;
      readonly reason: string;
    };

export type WorkerStanding = (typeof workerStandings)[number];

export interface WorkerState {
  readonly name: string;
  readonly record: WorkerRecord;
  readonly heard: Heard | undefined;
  readonly standing: WorkerStanding;
  readonly hook: Hook;
  /** Boots, and processes, that others came after: whatever they say is late, or a clone's. */
  readonly superseded: readonly string[];
}

/** Owner generations that may be given: from `next` up to `end`, without it. */
export interface OwnerNumbers {
  readonly next: number;
  readonly end: number;
}

export interface ClusterState {
  /** Of the store. */
  readonly incarnation: string;
  readonly started: MonotonicTime;
  readonly desired: Declaration;
  readonly workers: ReadonlyMap<string, WorkerState>;
  /** By machine: the worker that has it. No machine stands at two. */
  readonly placed: ReadonlyMap<string, string>;
  /** Machines without a worker, and why. */
  readonly unplaced: ReadonlyMap<string, string>;
  readonly numbers: OwnerNumbers;
  /** An older backup was restored: who has what is heard first, and given later. */
  readonly isRestored: boolean;
}

export interface MasterSettings {
  /** Without a report for so long a worker is silent, and lost. */
  readonly silentAfter: Milliseconds;
  readonly lostAfter: Milliseconds;
  /** There is a program that cuts power. */
  readonly hasHook: boolean;
  /** Before the hook is tried again; doubled each time, up to the second. */
  readonly hookRetry: Milliseconds;
  readonly longestHookRetry: Milliseconds;
}

export type MasterEvent =
  | {
      readonly kind: "apply";
      readonly desired: ClusterRequest;
      readonly expectGeneration: number | undefined;
    }
  | { readonly kind: "report"; readonly worker: string; readonly report: Report }
  | { readonly kind: "cordon"; readonly worker: string; readonly cordoned: boolean }
  | { readonly kind: "confirm"; readonly worker: string }
  | { readonly kind: "forget"; readonly worker: string; readonly forGood: boolean }
  | {
      readonly kind: "hook-ended";
      readonly worker: string;
      readonly attempt: number;
      /** undefined: it ended with 0, which says that the power is off. */
      readonly failure: string | undefined;
    }
  /** Numbers that the store has given for good. */
  | { readonly kind: "numbers"; readonly numbers: OwnerNumbers }
  /** Machines without a worker are looked at anew. */
  | { readonly kind: "place" }
  /** Time may have passed. */
  | { readonly kind: "time" };

export type MasterEffect =
  | { readonly kind: "write-desired"; readonly declaration: Declaration }
  | { readonly kind: "write-worker"; readonly worker: string; readonly record: WorkerRecord }
  | { readonly kind: "delete-worker"; readonly worker: string }
  /** Answered by "numbers". */
  | { readonly kind: "reserve-numbers" }
  /** Answered by "hook-ended". */
  | { readonly kind: "run-hook"; readonly worker: string; readonly attempt: number }
  /** For the audit log: what nobody asked for by a call. */
  | {
      readonly kind: "record";
      readonly worker: string;
      readonly how: Proof;
      readonly machines: readonly string[];
    }
  | { readonly kind: "say"; readonly level: "info" | "warn"; readonly message: string };

export type Refusal = {
  readonly kind: "conflict" | "not-found" | "request" | "too-many" | "too-large";
  readonly message: string;
  readonly expected?: string;
  readonly received?: string;
  readonly hint?: string;
};

/**
 * What comes of an event. Writes are durable before anything of the new state is told, and before
 * a hook runs; when one fails, what the store has is read anew, and the event has failed.
 */
export interface Step {
  readonly state: ClusterState;
  readonly effects: readonly MasterEffect[];
  readonly refusal?: Refusal;
  /** To a report. */
  readonly answer?: ReportReply;
  /** When time alone changes something next. */
  readonly wakeAt: MonotonicTime | undefined;
}

/** Where a worker's assignment is. */
export function placeOf(state: ClusterState, worker: string): AssignmentPlace {
  return {
    incarnation: state.incarnation,
    generation: state.desired.generation,
    revision: state.workers.get(worker)?.record.revision ?? 0,
  };
}

export const isSamePlace = (left: AssignmentPlace | null, right: AssignmentPlace | null): boolean =>
  left?.incarnation === right?.incarnation &&
  left?.generation === right?.generation &&
  left?.revision === right?.revision;

export const newRecord: WorkerRecord = {
  version: 1,
  revision: 0,
  cordoned: false,
  fenced: null,
  machines: {},
  released: {},
  found: {},
};

export function newWorker(name: string, record: WorkerRecord): WorkerState {
  return {
    name,
    record,
    heard: undefined,
    standing: "unheard",
    hook: { phase: "idle" },
    superseded: [],
  };
}

export const nothingDeclared: Declaration = { generation: 0, machines: new Map() };
