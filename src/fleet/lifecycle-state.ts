import type { Journal, Life } from "./lifecycle-journal.ts";
import type {
  Build,
  DeviceStatus,
  EndingCause,
  LastWords,
  Marker,
  RoleHealth,
  UpgradePhase,
} from "./protocol.ts";

/** What is known, what can happen and what is to be done: the words of an upgrade on a device. */

/** Now on CLOCK_BOOTTIME, in milliseconds: it goes on while the host is suspended. */
export type BootTime = number & { readonly clock?: "boottime" };

/** Going over one ends the upgrade; a test shows each. */
export const agentLimits = {
  /** An upgrade is begun anew so often, after reboots and deaths of the agent. */
  resumes: 5,
  /** The boot guard lets the new version start so often before it is proven. */
  starts: 3,
  /** Roles may answer, and then not any more, so often. */
  setbacks: 3,
} as const;

/** Milliseconds; what is counted in heartbeats is `paceOf` an upgrade. */
export const agentTimes = {
  /** A deadline that is found passed for longer was slept through: nobody ran who could answer. */
  late: 10_000,
  /** A candidate that is not gone is told to stop again. */
  stopAgain: 10_000,
  /** A journal that could not be written is written again. */
  noteAgain: 10_000,
  /** Links that could not be put back, or a restart that was refused. */
  revertAgain: 10_000,
} as const;

/** Heartbeats that arrived, as this process heard of them. */
export interface Link {
  /** Since when it listens. */
  readonly since: BootTime;
  readonly canonicalHeard: BootTime | undefined;
  /** The canonical agent's heartbeats have arrived without a gap since then. */
  readonly unbrokenSince: BootTime;
  readonly candidateHeard: BootTime | undefined;
}

export interface AgentState {
  /** These are the journal's. */
  readonly step: number;
  readonly boot: string;
  readonly floor: string | null;
  readonly metadataVersion: number;
  readonly current: Build;
  readonly previous: Build | null;
  readonly seen: readonly string[];
  readonly life: Life;
  /** And these are this process's alone. */
  readonly self: Build;
  /** Of the last order: late and doubled answers are told by it. */
  readonly ticket: number;
  /** A marker that waits until this upgrade is over. */
  readonly next: Marker | undefined;
  /** The last write of the journal failed; it is tried again then. */
  readonly noteAt: BootTime | undefined;
  readonly link: Link;
  readonly progress: DeviceStatus["progress"];
  /** As they were looked at last. */
  readonly roles: readonly RoleHealth[];
}

export type Phase = UpgradePhase;
export type In<P extends Phase> = AgentState & { readonly life: Extract<Life, { phase: P }> };

/** `ticket` is that of the order that is answered. */
export type AgentEvent =
  /** What the store has for this device, as `markerSchema` takes it. */
  | { readonly kind: "marker"; readonly marker: Marker }
  /** The manifest is signed, not revoked, not below the floor, and there is room for it. */
  | {
      readonly kind: "accepted";
      readonly ticket: number;
      readonly floor: string | null;
      readonly metadataVersion: number;
    }
  | {
      readonly kind: "progress";
      readonly ticket: number;
      readonly progress: NonNullable<DeviceStatus["progress"]>;
    }
  /** The file is on the disk, read back and right. */
  | { readonly kind: "fetched"; readonly ticket: number }
  /** It is still right, for this processor, and has tested itself. */
  | { readonly kind: "proved"; readonly ticket: number }
  | { readonly kind: "candidate-ready"; readonly instance: string }
  /** It ended by itself, was ended, or is not to be found. */
  | {
      readonly kind: "candidate-ended";
      readonly instance: string;
      readonly lastWords: LastWords | null;
    }
  /** A heartbeat of the canonical agent, or of the candidate, has arrived in the store. */
  | { readonly kind: "heard"; readonly who: "canonical" }
  | { readonly kind: "heard"; readonly who: "candidate"; readonly instance: string }
  /** The file that is about to be swapped in was hashed once more, and the one that it replaces. */
  | { readonly kind: "intact"; readonly ticket: number }
  /** The links lead where they were to lead, durably. */
  | { readonly kind: "swapped"; readonly ticket: number }
  /** What is gone back to is intact, or is so again. */
  | { readonly kind: "way-back"; readonly ticket: number }
  /** The order could not be carried out, or what it asked about is wrong: which, says the cause. */
  | {
      readonly kind: "failed";
      readonly ticket: number;
      readonly reason: string;
      readonly cause: EndingCause;
      readonly lastWords: LastWords | null;
    }
  /** Every role of the host was looked at. */
  | { readonly kind: "roles"; readonly roles: readonly RoleHealth[] }
  /** What this process sees on this host alone: a self-check, a watchdog. */
  | {
      readonly kind: "faulted";
      readonly reason: string;
      readonly lastWords: LastWords | null;
    }
  /** The canonical agent that ran before this process has left these, as this host knows. */
  | { readonly kind: "former-ended"; readonly lastWords: LastWords }
  /**
   * The journal could not be written, and nothing was done that stood after it. Told before any
   * other event: its step is given to the next note, so that none is told which may come again.
   */
  | { readonly kind: "note-failed"; readonly reason: string }
  /** Time has passed; told at `deadlineOf` at the latest. */
  | { readonly kind: "time" };
export type EventKind = AgentEvent["kind"];
export type Of<K extends EventKind> = Extract<AgentEvent, { kind: K }>;

/**
 * Effects are carried out in their order. When a note fails, `note-failed` is told and those after
 * it are left out.
 */
export type AgentEffect =
  /** Durable when it is done. */
  | { readonly kind: "note"; readonly journal: Journal }
  /** Whatever check, download or proof is under way ends, and answers no more. */
  | { readonly kind: "abandon" }
  | {
      readonly kind: "check";
      readonly ticket: number;
      readonly marker: Marker;
      readonly floor: string | null;
      readonly metadataVersion: number;
    }
  | { readonly kind: "fetch"; readonly ticket: number; readonly marker: Marker }
  | { readonly kind: "prove"; readonly ticket: number; readonly marker: Marker }
  /**
   * Hashes the file, ends what is left of an earlier candidate, and starts this one beside.
   * Answered by candidate-ready; by candidate-ended; and by failed where none was started.
   */
  | {
      readonly kind: "start-candidate";
      readonly ticket: number;
      readonly marker: Marker;
      readonly instance: string;
      /** Then it ends, whoever lives: the dead man's switch. Milliseconds. */
      readonly endsAfter: number;
    }
  /** Of an earlier agent: answered by candidate-ended where it is gone, and else when it ends. */
  | { readonly kind: "find-candidate"; readonly instance: string }
  /** Answered by candidate-ended, also where there is none. */
  | { readonly kind: "stop-candidate"; readonly instance: string }
  /** Both: nothing is left for another version that cannot be gone back to. */
  | {
      readonly kind: "hash";
      readonly ticket: number;
      readonly build: Build;
      readonly wayBack: Build;
    }
  /**
   * First `previous`, then `current`, each by rename and synchronised: between the two both lead to
   * the old version. `failed` says that `current` was read again and leads where it led.
   */
  | {
      readonly kind: "swap";
      readonly ticket: number;
      readonly current: Build;
      readonly previous: Build;
    }
  /** First `current`, then `previous`: between the two both lead to what is gone back to. */
  | {
      readonly kind: "swap-back";
      readonly ticket: number;
      readonly current: Build;
      readonly previous: Build | null;
    }
  /** This process ends for it, unless it is refused: `failed`. */
  | { readonly kind: "restart-canonical"; readonly ticket: number }
  /** Each role of the host goes on from this version's file; answered by `roles`, repeatedly. */
  | { readonly kind: "hand-over"; readonly build: Build }
  /** Hashes it; where it is damaged it is fetched again by its own manifest. */
  | {
      readonly kind: "find-way-back";
      readonly ticket: number;
      readonly build: Build;
      readonly marker: Marker;
    }
  /** Nobody needs other versions than these any more; linked and running ones stay in any case. */
  | { readonly kind: "collect"; readonly keep: readonly Build[] };
export type EffectKind = AgentEffect["kind"];

export interface Outcome {
  readonly state: AgentState;
  readonly effects: readonly AgentEffect[];
}

export interface Context {
  readonly now: BootTime;
  readonly executor: DeviceStatus["executor"];
  /** 128 random bits in hexadecimal, new each time that it is read. */
  readonly nextInstance: string;
}
