import type { GuestState } from "../hypervisor/guest-state.ts";
import type { Ending } from "../units/ending.ts";
import type { Backoff, StartLimit } from "../units/restarts.ts";
import type { Milliseconds, MonotonicTime, ProcessId } from "../units/units.ts";

/** What is known, what can happen and what is to be done: the words of a machine's life. */

/**
 * What the operator wants of a machine. off: its files, disks and address are there, and no VMM.
 * created: a VMM has it, and no instruction of the guest has run.
 */
export type Wanted = "absent" | "off" | "created" | "running" | "paused";

/** One VMM process. */
export interface Instance {
  /** 128 random bits, in hexadecimal: its INVOCATION_ID, and the name of its cgroup. */
  readonly invocation: string;
  /** As the host sees it. */
  readonly processId: ProcessId;
  /** Field 22 of /proc/PID/stat: with the boot id it tells the process from a later one. */
  readonly startTicks: number;
  readonly startedAt: MonotonicTime;
}

/** A machine's memory and device state, outside of any VMM or about to be. */
export interface Capture {
  /** Under which it is held. */
  readonly id: string;
  /** The invocation of the VMM that gives it; undefined when none of this machine's did. */
  readonly source: string | undefined;
  /**
   * pending: asked for, and nobody has said yet that it is whole. spent: a VMM has the machine, or
   * it was given up; it is forgotten, and nothing is made of it any more. arriving: another host
   * sends it to a VMM of this one, and has not given it yet; its id is that of the migration.
   */
  readonly stage: "pending" | "held" | "spent" | "arriving";
}

/** Why something was refused: the VMM's, the kernel's or our own words. */
export interface Refusal {
  readonly message: string;
  /** The name of the error number, such as "ENOSPC", where there is one. */
  readonly code: string | undefined;
  /** Trying again cannot help before somebody mends it: a wrong hash, a refused key. */
  readonly lasts: boolean;
}

/** What is true in every phase. */
interface Common {
  readonly wanted: Wanted;
  /** Its image was verified and its disks made, under this worker or an earlier one. */
  readonly prepared: boolean;
  /** VMMs that followed another one by the rule; a replaced VMM is none. */
  readonly restarts: number;
  /** What the start under way, or the next one, comes from. */
  readonly begunBy: "operator" | "rule" | "replacement";
  /** Quick deaths and refused starts in a row: the first restarts at once, further ones wait. */
  readonly failures: number;
  /** When the last starts were; bounded by the start limit. */
  readonly recentStarts: readonly MonotonicTime[];
  /** The newest VMM that there was. */
  readonly lastInvocation: string | undefined;
  readonly lastEnding: Ending | undefined;
  /**
   * The invocation of a VMM beside the one that has the machine: a successor that is being made
   * ready, or whoever is to be ended, until there is proof that it is gone.
   */
  readonly beside: string | undefined;
  /** Held until a VMM has the machine again, or the operator gives it up. */
  readonly capture: Capture | undefined;
  /** Why it is as it is, for people: the last refusal, or how it came to be off. */
  readonly reason: string | undefined;
  /** The number of the last order to a VMM: late and doubled answers are told by it. */
  readonly ticket: number;
}

/**
 * What follows the end of a VMM. wish: what is wanted then. off: the guest ended by itself.
 * crash: the rule of restarts. unhealthy: the same, and however long it ran, it never did so well.
 * replace: a new VMM, which is given the capture. elsewhere: nothing, because the machine is
 * another host's; the guest of such a VMM must not run once more.
 */
export type EndReason = "wish" | "off" | "crash" | "unhealthy" | "replace" | "elsewhere";

/** How far a stop has gone: the guest was asked, the VMM was asked, the VMM was killed. */
export type StopStage = "button" | "quit" | "kill";

/**
 * Why a VMM is asked anew how its guest is. lost: the connection ended, or an answer did not come.
 * doubted: it said what nobody had asked for, and how the guest is now is what somebody wanted.
 * refused: it did not do what it was told; to tell it again would be to do so for ever.
 */
export type DetachCause = "lost" | "doubted" | "refused";

interface Waiting {
  readonly instance: Instance;
  /** An order without an answer by then has failed. */
  readonly answerBy: MonotonicTime;
}

/** A VMM that is to take the machine over; it has no instance before it was spawned. */
export interface Successor {
  readonly invocation: string;
  readonly instance: Instance | undefined;
}

/** The phases, each with what is true only in it. */
type Phases =
  | { readonly phase: "absent" | "off" | "removed" }
  /** Its image is verified and copied, its disks are made. */
  | { readonly phase: "preparing" | "preparing-network"; readonly invocation: string }
  /** Its VMM is being spawned. */
  | { readonly phase: "starting"; readonly invocation: string; readonly answerBy: MonotonicTime }
  /** Nobody knows whether it was spawned. */
  | { readonly phase: "uncertain"; readonly invocation: string }
  /** The VMM runs, and does not answer yet. */
  | ({ readonly phase: "connecting"; readonly retryAt: MonotonicTime | undefined } & Waiting)
  | ({ readonly phase: "creating" | "booting" | "pausing" | "resuming" | "restoring" } & Waiting)
  | { readonly phase: "created" | "paused"; readonly instance: Instance }
  | {
      readonly phase: "running";
      readonly instance: Instance;
      readonly since: MonotonicTime;
    }
  /** Its guest goes on in its VMM, while another one is started beside it. */
  | {
      readonly phase: "replacing";
      readonly instance: Instance;
      readonly guest: "running" | "paused";
      readonly since: MonotonicTime;
      readonly successor: Successor;
      /** Without its word by then nothing is replaced. */
      readonly answerBy: MonotonicTime;
      readonly retryAt: MonotonicTime | undefined;
    }
  /** First the guest is paused, then its state is taken out of the VMM. */
  | ({
      readonly phase: "capturing";
      readonly stage: "pausing" | "capturing";
      /** Waits for the state; undefined when it ended meanwhile. */
      readonly successor: Instance | undefined;
    } & Waiting)
  | ({
      readonly phase: "snapshotting";
      readonly stage: "pausing" | "saving";
      readonly snapshot: string;
    } & Waiting)
  /** The VMM lives, and its connection does not: it is asked again, and never ended for it. */
  | {
      readonly phase: "detached";
      readonly instance: Instance;
      /** Refused ones, in a row. */
      readonly attempts: number;
      readonly cause: DetachCause;
      readonly since: MonotonicTime;
      /** undefined while an attempt is under way. */
      readonly retryAt: MonotonicTime | undefined;
      /** Of the attempt under way. */
      readonly answerBy: MonotonicTime;
      /** The operator's shutdown kills it then. */
      readonly stopBy: MonotonicTime | undefined;
    }
  /** Its guest runs, and goes to another host meanwhile. */
  | { readonly phase: "sending"; readonly instance: Instance; readonly migration: string }
  /**
   * All of it is with the other host, which is told that it may run: here it does not any more,
   * whatever happens, until the other host or an operator says so.
   */
  | {
      readonly phase: "given";
      readonly migration: string;
      /** Undefined once its VMM has died. */
      readonly instance: Instance | undefined;
      /** The other host cannot be asked, and nobody here knows whether it has taken it. */
      readonly isUndecided: boolean;
    }
  /** Its VMM takes what another host sends. */
  | { readonly phase: "receiving"; readonly instance: Instance }
  /** All of it is here, and it is the other host's until that gives it. */
  | {
      readonly phase: "arrived";
      readonly instance: Instance;
      readonly isUndecided: boolean;
      /** The connection to its VMM stands. */
      readonly isAttached: boolean;
    }
  | {
      readonly phase: "stopping";
      readonly instance: Instance;
      readonly why: EndReason;
      readonly stage: StopStage;
      /** When the next stage comes; undefined once it was killed. */
      readonly until: MonotonicTime | undefined;
    }
  /** The VMM is dead, and the rest of its cgroup is ended. */
  | {
      readonly phase: "clearing";
      readonly instance: Instance;
      readonly why: EndReason;
      readonly diedAt: MonotonicTime;
    }
  | { readonly phase: "backing-off"; readonly until: MonotonicTime }
  | { readonly phase: "failed"; readonly reason: string }
  /** Its files and its network are given back; undefined while that is under way. */
  | { readonly phase: "removing"; readonly retryAt: MonotonicTime | undefined };

export type MachineState = Common & Phases;
export type Phase = MachineState["phase"];
export type In<P extends Phase> = MachineState & { readonly phase: P };
export type CommonPart = Common;
export type PhasePart = Phases;

/** Orders to a VMM over its connection; each is answered by "done" or "refused". */
export type VmmCall =
  | "create"
  | "boot"
  | "pause"
  | "resume"
  | "press-power-button"
  | "quit"
  | "capture"
  | "restore"
  | "snapshot"
  | "send"
  | "receive";

interface OfInstance {
  readonly invocation: string;
}

/** An answer, with the number of the order that it answers. */
interface Answer extends OfInstance {
  readonly ticket: number;
}

/** Of a machine on its way from one host to another; both know the migration by its id. */
interface OfMigration {
  readonly migration: string;
}

/**
 * What can happen to a machine. What comes from a VMM carries the invocation of that one, what
 * answers a preparation or a spawn that of the start: late ones are told.
 */
export type MachineEvent =
  // The operator's.
  /** capture: held already, from a snapshot or another host; its first VMM is given it. */
  | {
      readonly kind: "create";
      readonly wanted: Exclude<Wanted, "absent">;
      readonly capture?: string;
      /** Another host sends it under this id. */
      readonly migration?: string;
    }
  | { readonly kind: "boot" | "pause" | "resume" | "replace" }
  | { readonly kind: "shutdown" | "delete"; readonly hurry: boolean }
  | { readonly kind: "snapshot"; readonly snapshot: string }
  | ({ readonly kind: "migrate" } & OfMigration)
  /** It is this host's, whatever another one said last: the operator knows that it is off there. */
  | { readonly kind: "claim" }
  // The other host's, of a migration.
  /** It has the machine. */
  | ({ readonly kind: "taken" } & OfMigration)
  /** It has not taken the machine, and never will. */
  | ({ readonly kind: "not-taken"; readonly reason: string } & OfMigration)
  /** It gives the machine, and does not run it any more. */
  | ({ readonly kind: "handed-over"; readonly wanted: "running" | "paused" } & OfMigration)
  /** It goes on with the machine. */
  | ({ readonly kind: "withdrawn"; readonly reason: string } & OfMigration)
  /** It cannot be asked any more. */
  | ({ readonly kind: "undecided"; readonly reason: string } & OfMigration)
  // The worker's own.
  | { readonly kind: "adopted"; readonly note: Note; readonly alive: Instance | undefined }
  | ({ readonly kind: "prepared" | "network-ready" } & OfInstance)
  | ({
      readonly kind: "prepare-refused" | "network-refused" | "spawn-refused";
      readonly refusal: Refusal;
    } & OfInstance)
  | ({
      readonly kind: "spawned" | "found";
      readonly processId: ProcessId;
      readonly startTicks: number;
    } & OfInstance)
  | ({ readonly kind: "not-found" } & OfInstance)
  /** captured: a pending capture was found to be whole. */
  | ({
      readonly kind: "attached";
      readonly guest: GuestState;
      readonly captured: boolean;
    } & Answer)
  | ({ readonly kind: "attach-refused"; readonly refusal: Refusal } & Answer)
  /** machine: after a snapshot, whether the VMM can still run it. */
  | ({
      readonly kind: "done";
      readonly call: VmmCall;
      readonly machine: "kept" | "taken";
    } & Answer)
  | ({ readonly kind: "refused"; readonly call: VmmCall; readonly refusal: Refusal } & Answer)
  | ({ readonly kind: "connection-lost"; readonly reason: string } & OfInstance)
  // The VMM's own word: VmmEvent of the seam, with its invocation.
  | ({
      readonly kind: "booted" | "paused" | "resumed" | "guest-reset" | "guest-panic";
    } & OfInstance)
  | ({ readonly kind: "guest-off"; readonly by: "guest" | "host" } & OfInstance)
  /** How the guest is, asked with the metrics: what nobody told is noticed. */
  | ({ readonly kind: "observed"; readonly guest: GuestState } & OfInstance)
  | ({ readonly kind: "died"; readonly ending: Ending | undefined } & OfInstance)
  /** captured: a pending capture was found to be whole. */
  | ({ readonly kind: "cleared"; readonly captured: boolean } & OfInstance)
  /** The held state is gone: its holder died, or the host was started anew. */
  | { readonly kind: "capture-lost"; readonly capture: string; readonly reason: string }
  /** Answers end-beside: no VMM of this invocation lives, and none will. */
  | ({ readonly kind: "beside-ended" } & OfInstance)
  /** Answers forget-capture. */
  | { readonly kind: "forgotten"; readonly capture: string }
  | { readonly kind: "discarded" }
  | { readonly kind: "discard-refused"; readonly refusal: Refusal }
  /** Its checks say that it does not do what it is there for, and that it is to be restarted. */
  | ({
      readonly kind: "unhealthy";
      readonly reason: string;
      /** Since its boot, or since this worker watches it. */
      readonly wasHealthy: boolean;
      /** In which its guest must be off. */
      readonly grace: Milliseconds;
    } & OfInstance)
  | { readonly kind: "deadline" };
export type EventKind = MachineEvent["kind"];
export type Of<K extends EventKind> = MachineEvent & { readonly kind: K };

/** The operator's wishes, as against what the world answers. */
export type Wish = Of<
  | ("create" | "boot" | "pause" | "resume" | "replace" | "shutdown" | "delete" | "snapshot")
  | ("migrate" | "claim")
>;

/**
 * What a new VMM begins with: nothing, or the state of another one. beside: it shares the memory of
 * a VMM whose guest goes on, touches nothing of it, and waits for its state.
 */
export type SpawnBeginning =
  | { readonly kind: "new" }
  | { readonly kind: "beside"; readonly former: Instance }
  | { readonly kind: "incoming"; readonly capture: string }
  /** Of another host: its memory is empty yet. */
  | { readonly kind: "arriving" };

/** What is to be done, in this order. */
export type MachineEffect =
  /**
   * To be on the disk before any effect that follows is performed; while it cannot be written,
   * those wait. It replaces the former note.
   */
  | { readonly kind: "note"; readonly note: Note }
  /** Verifies and copies the image, makes the disks; safe to do again. */
  | { readonly kind: "prepare"; readonly invocation: string }
  /** Ends a preparation: prepare-refused or prepared follows all the same. */
  | { readonly kind: "abandon"; readonly invocation: string }
  /** TAP, address, rules; safe to do again. */
  | { readonly kind: "connect-network"; readonly invocation: string }
  | {
      readonly kind: "spawn";
      readonly invocation: string;
      readonly beginning: SpawnBeginning;
    }
  /** Looks for a VMM with this invocation; not-found must be proof. */
  | { readonly kind: "find"; readonly invocation: string }
  /**
   * Leaves a connection that there is, and with it every order: nothing is captured any more that
   * was asked for by it. Makes a new one, and asks how the guest is; and looks whether the pending
   * capture is whole.
   */
  | {
      readonly kind: "attach";
      readonly instance: Instance;
      readonly ticket: number;
      readonly capture: string | undefined;
    }
  | {
      readonly kind: "create" | "boot" | "pause" | "resume" | "press-power-button" | "quit";
      readonly instance: Instance;
      readonly ticket: number;
    }
  | {
      readonly kind: "capture" | "restore";
      readonly instance: Instance;
      readonly ticket: number;
      readonly capture: string;
    }
  | {
      readonly kind: "snapshot";
      readonly instance: Instance;
      readonly ticket: number;
      readonly snapshot: string;
      /** Under which the state is held, if the VMM cannot run on afterwards. */
      readonly capture: string;
    }
  /**
   * Ends a VMM that has not got the machine, or has it no more: SIGKILL, wherever its start has
   * come; it is looked for until there is proof. No VMM is spawned, and nothing of the machine is
   * removed, before it is gone. Safe to do again.
   */
  | { readonly kind: "end-beside"; readonly invocation: string }
  /** Sends it to the other host, all but the leave to run. */
  | {
      readonly kind: "send" | "receive";
      readonly instance: Instance;
      readonly ticket: number;
      readonly migration: string;
    }
  /** Ends a send that is under way: refused follows all the same. */
  | { readonly kind: "abandon-send"; readonly migration: string }
  /** Tells the other host that the machine is its own now; its answer is an event. */
  | {
      readonly kind: "hand-over";
      readonly migration: string;
      readonly wanted: "running" | "paused";
    }
  /** Tells the host that sends it that all of it is here, and then that it was taken. */
  | {
      readonly kind: "confirm";
      readonly migration: string;
      readonly what: "arrived" | "taken";
    }
  /** A capture that nobody needs any more; safe to do again. */
  | { readonly kind: "forget-capture"; readonly capture: string }
  /** SIGKILL to the VMM and whoever is in its cgroup. */
  | { readonly kind: "kill"; readonly instance: Instance }
  /** Ends the rest of a dead VMM's cgroup, and looks whether that pending capture is whole. */
  | {
      readonly kind: "clear";
      readonly instance: Instance;
      readonly capture: string | undefined;
    }
  /** Removes its files, and gives its network back. */
  | { readonly kind: "discard" }
  | { readonly kind: "record"; readonly entry: HistoryEntry };
export type EffectKind = MachineEffect["kind"];

/** Why a machine is off that did not end by itself; its own last words say more. */
export const VMM_DIED = "its VMM died";

/** What is kept of the past, and told to subscribers. */
export type HistoryEntry =
  | {
      readonly what:
        | "prepare-requested"
        | "prepared"
        | "network-ready"
        | "start-requested"
        | "uncertain"
        | "created"
        | "booted"
        | "paused"
        | "resumed"
        | "restored"
        | "stop-requested"
        | "killed"
        | "guest-reset"
        | "guest-panic";
      readonly invocation: string;
    }
  | {
      readonly what: "started" | "found" | "adopted";
      readonly invocation: string;
      readonly processId: ProcessId;
    }
  | { readonly what: "attached"; readonly invocation: string; readonly guest: GuestState }
  | {
      readonly what: "prepare-refused" | "network-refused" | "start-refused";
      readonly invocation: string;
      readonly refusal: Refusal;
    }
  | {
      readonly what: "detached" | "replacement-given-up";
      readonly invocation: string;
      readonly reason: string;
    }
  | {
      readonly what: "attach-refused";
      readonly invocation: string;
      readonly attempts: number;
      readonly refusal: Refusal;
    }
  | {
      readonly what: "call-refused";
      readonly invocation: string;
      readonly call: VmmCall;
      readonly refusal: Refusal;
    }
  | { readonly what: "captured" | "capture-forgotten"; readonly capture: string }
  | { readonly what: "capture-lost"; readonly capture: string; readonly reason: string }
  | {
      readonly what: "sending" | "given" | "given-away" | "receiving" | "arrived" | "taken-over";
      readonly migration: string;
    }
  | {
      readonly what: "taken-back" | "withdrawn" | "undecided";
      readonly migration: string;
      readonly reason: string;
    }
  | { readonly what: "snapshotted"; readonly invocation: string; readonly snapshot: string }
  | { readonly what: "guest-off"; readonly invocation: string; readonly by: "guest" | "host" }
  /** check: in words. */
  | { readonly what: "healthy"; readonly invocation: string; readonly check: string }
  | {
      readonly what: "unhealthy";
      readonly invocation: string;
      readonly check: string;
      readonly failures: number;
      readonly reason: string;
    }
  | { readonly what: "died"; readonly invocation: string; readonly ranFor: Milliseconds }
  | { readonly what: "ended"; readonly invocation: string; readonly ending: Ending }
  | { readonly what: "backing-off"; readonly wait: Milliseconds; readonly failures: number }
  | { readonly what: "failed" | "off"; readonly reason: string }
  | { readonly what: "discard-refused"; readonly refusal: Refusal }
  | { readonly what: "removed" };

/**
 * The durable record: what the worker after this one needs. It is written before what it speaks
 * of is done, so whoever reads it knows what may have happened, never less.
 */
export interface Note {
  readonly stage:
    | "absent"
    | "preparing"
    | "starting"
    | "living"
    | "given"
    | "arrived"
    | "ending"
    | "clearing"
    | "waiting"
    | "off"
    | "failed"
    | "removing"
    | "removed";
  readonly wanted: Wanted;
  readonly prepared: boolean;
  readonly restarts: number;
  /** Of the start, while it is "starting". */
  readonly invocation: string | undefined;
  /** While it is "given": its id. */
  readonly migration: string | undefined;
  /** While it is "living", "arrived", "ending" or "clearing"; and "given", if its VMM lives. */
  readonly instance: Instance | undefined;
  /** While it is "ending" or "clearing". */
  readonly why: EndReason | undefined;
  /** While it is "ending": SIGKILL is the next that its VMM hears, and nobody asks its guest. */
  readonly killing: true | undefined;
  readonly lastInvocation: string | undefined;
  /** A VMM that the worker after this one has to end. */
  readonly beside: string | undefined;
  readonly capture: Capture | undefined;
  readonly reason: string | undefined;
}

/** How a machine is treated; from its configuration. */
export interface MachineRules {
  /** on-failure: after a crash, not after a guest that shut itself down. */
  readonly restart: "always" | "on-failure" | "never";
  readonly backoff: Backoff | "none";
  readonly startLimit: StartLimit | "none";
  /** In which a guest must be off after its power button was pressed. */
  readonly shutdownGrace: Milliseconds;
}

/** What a decision may look at beside the state and the event. Time and chance are arguments. */
export interface Context {
  readonly rules: MachineRules;
  readonly now: MonotonicTime;
  /** 0 (included) to 1 (excluded). */
  readonly random: number;
  /** The id that the next start, or the next capture, would carry; new at each reading. */
  readonly nextInvocation: string;
}

export interface Outcome {
  readonly state: MachineState;
  readonly effects: readonly MachineEffect[];
}

export const initialState: MachineState = {
  phase: "absent",
  wanted: "absent",
  prepared: false,
  restarts: 0,
  begunBy: "operator",
  failures: 0,
  recentStarts: [],
  lastInvocation: undefined,
  lastEnding: undefined,
  beside: undefined,
  capture: undefined,
  reason: undefined,
  ticket: 0,
};

/** Times without an answer after which an order has failed. */
export const orderLimits = {
  /** Of the launcher: a spawn is uncertain after it. */
  spawn: 10_000,
  /** From the spawn to the first answer of the VMM. */
  connect: 10_000,
  /** Of an attempt to attach. */
  attach: 5_000,
  /** create, boot, pause, resume: the VMM does not answer after it. */
  call: 10_000,
  /** Device state, without memory, which is shared already. */
  capture: 30_000,
  restore: 30_000,
  /** Memory is written to a disk. */
  snapshot: 1_800_000,
  /** From "quit" to a kill. */
  quit: 5_000,
} as const satisfies Readonly<Record<string, Milliseconds>>;

/** Between attempts to reach a VMM that has just been spawned: its socket comes in milliseconds. */
export const CONNECT_RETRY: Milliseconds = 5;

/** Between attempts to reach a VMM that lives and does not answer, and to remove files. */
export const retryBackoff: Backoff = {
  first: 200,
  factor: 2,
  cap: 30_000,
  jitter: 0.1,
  resetAfter: 0,
};
