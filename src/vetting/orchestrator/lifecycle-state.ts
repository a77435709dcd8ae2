import type { HardwareIdentity, Inventory } from "../../hardware/inventory.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { Acknowledgement, Directive, RunState } from "../protocol.ts";
import type { KeptResult, RunEvent, Verdict } from "../protocol-operator.ts";
import type { Evidence, Outcome, Stage, StageReport } from "../protocol-result.ts";
import type { RuleFinding, Spec } from "../protocol-spec.ts";

/** What a run is made of, what can happen to it, and what that comes to. Pure. */

export const runLimits = {
  /** Of one run, those of retries too. Each is remembered, so that one told twice is one. */
  attempts: 256,
  events: 4_096,
} as const;

/** Milliseconds. */
export const runPace = {
  /** A boot token that nobody claimed with. */
  tokenLifetime: 15 * 60_000,
  /** A directive that nobody took up. */
  directiveLifetime: 10 * 60_000,
  /** A run whose host stays away for so long has ended. */
  lostFor: 24 * 3_600_000,
  /** After its end a run's agent may say its last words. */
  lastWords: 2 * 60_000,
} as const;

/** Now: on a clock that never jumps while this process runs, and as people write it, in UTC. */
export interface Moment {
  readonly now: Milliseconds;
  readonly time: string;
}

export interface StageProgress {
  /** Attempts that were begun. */
  readonly begun: number;
  /** Of those, such as ended without a word since the last retry. */
  readonly crashed: number;
  /** Of the last result; null: none yet. */
  readonly outcome: Outcome | null;
  readonly summary: string;
  readonly started: string | null;
  readonly ended: string | null;
  /** An operator accepted what it came to. */
  readonly isOverridden: boolean;
}

export interface OpenAttempt {
  readonly id: string;
  readonly stage: Stage;
  readonly number: number;
  readonly bootId: string;
  readonly began: string;
  readonly wipe: readonly string[];
}

export interface BootToken {
  /** SHA-256 of the token. */
  readonly hash: string;
  readonly until: Milliseconds;
  /** Who claimed with it: the same process may ask again, because an answer can be lost. */
  readonly claimedBy: string | null;
  /** Another process has tried it as well. */
  readonly isDoubted: boolean;
}

export interface Session {
  /** SHA-256 of its secret. */
  readonly hash: string;
  readonly instance: string;
  readonly bootId: string;
  readonly address: string | null;
  readonly version: string;
}

export interface WaitingDirective {
  readonly id: string;
  readonly kind: Directive["kind"];
  readonly stage: Stage | null;
  readonly since: string;
  readonly until: Milliseconds;
}

export interface Hold {
  readonly since: string;
  readonly key: {
    readonly line: string;
    readonly until: Milliseconds;
    readonly untilTime: string;
  } | null;
  readonly hostKey: string | null;
  readonly address: string | null;
}

/** Why a run holds. */
export type Failure =
  | { readonly kind: "stage"; readonly stage: Stage }
  | { readonly kind: "rules" }
  /** Another machine, or another part of it, came with a token of this run. */
  | {
      readonly kind: "identity";
      readonly claimed: HardwareIdentity;
      /** Its cards; undefined of a run that began to hold before claims told them. */
      readonly claimedMacs?: readonly string[];
      /** Where the run was, and why it held there already. */
      readonly from: RunState;
      readonly before: Failure | null;
    };

/** All of a run that is decided by; it is kept as it stands. */
export interface Run {
  readonly run: number;
  readonly mac: string;
  readonly host: string;
  readonly spec: string;
  readonly specRevision: number;
  readonly created: string;
  readonly state: RunState;
  /** Of a lost one: where it goes on when it speaks. */
  readonly lostIn: RunState | null;
  /** Why it holds; of one that is tried again, until the agent has begun to. */
  readonly failure: Failure | null;
  readonly reason: string;
  readonly verdict: Verdict | null;
  readonly changed: string;
  readonly ended: string | null;
  readonly endedAt: Milliseconds | null;
  /** What the host has to be; null: its first claim says it. */
  readonly identity: HardwareIdentity | null;
  /** Cards of another machine that an operator accepted, beside `mac`; undefined: none was. */
  readonly acceptedMacs?: readonly string[];
  readonly boot: BootToken | null;
  readonly session: Session | null;
  /** When it was heard last; after a restart of the orchestrator, when that began. */
  readonly heard: Milliseconds | null;
  readonly heardTime: string | null;
  readonly attempt: OpenAttempt | null;
  /** Ids of attempts that are over. */
  readonly spent: readonly string[];
  /** Ids of results that were answered, and what was answered. */
  readonly answers: readonly { readonly result: string; readonly next: RunState }[];
  readonly stages: Readonly<Partial<Record<Stage, StageProgress>>>;
  readonly hasRuleWarnings: boolean;
  readonly areRulesOverridden: boolean;
  readonly isIdentityOverridden: boolean;
  /** Disks that an operator gave up for the next attempt of a stage. */
  readonly wipe: { readonly stage: Stage; readonly serials: readonly string[] } | null;
  readonly directives: readonly WaitingDirective[];
  readonly hold: Hold | null;
  /** How many events it has. */
  readonly events: number;
}

export interface ClaimFacts {
  readonly by: "token" | "session";
  /** Hash of the secret that the claim gives; by a session: of that one. */
  readonly session: string;
  readonly instance: string;
  readonly bootId: string;
  /** The card that it says it was booted from; null: it was not told. */
  readonly mac: string | null;
  /** The cards that it has. */
  readonly macs: readonly string[];
  readonly address: string | null;
  readonly version: string;
  readonly identity: HardwareIdentity;
  /** What kernels before this one wrote as they died. */
  readonly evidence?: readonly Evidence[];
}

/** What can happen to a run. `who` is "operator alice", "local uid 0". */
export type RunInput =
  /** A token with this hash was given to its boot script, or to an operator who asked for one. */
  | {
      readonly kind: "boot";
      readonly token: string;
      /** The operator; null: the boot script, by which a host has just begun anew. */
      readonly who: string | null;
      /** The operator gives up a session that lives. */
      readonly replaces?: boolean;
    }
  | ({ readonly kind: "claim" } & ClaimFacts)
  | {
      readonly kind: "attempt";
      readonly attempt: string;
      readonly instance: string;
      readonly stage: Stage;
    }
  | {
      readonly kind: "result";
      readonly result: string;
      readonly attempt: string;
      readonly stage: Stage;
      readonly cancelled: boolean;
      readonly duration: Milliseconds;
      readonly report: StageReport;
    }
  | {
      readonly kind: "heartbeat";
      readonly instance: string;
      readonly bootId: string;
      readonly acknowledged: readonly Acknowledgement[];
    }
  /** Lines of a log, or readings: it is there. */
  | { readonly kind: "spoke" }
  | {
      readonly kind: "hold-asked";
      readonly instance: string;
      readonly address: string | null;
      readonly hostKey: string | null;
    }
  /** Time has passed: silence, and whatever expires. */
  | { readonly kind: "tick" }
  /** The orchestrator was started anew, and does not know who spoke meanwhile. */
  | { readonly kind: "restart" }
  | { readonly kind: "cancel"; readonly who: string; readonly reason: string }
  | { readonly kind: "abort"; readonly who: string; readonly reason: string }
  | {
      readonly kind: "retry";
      readonly who: string;
      readonly stage: Stage | null;
      readonly wipe: readonly string[];
      /** Whether who asks has the permission "wipe". */
      readonly mayWipe: boolean;
      readonly reason: string;
    }
  | {
      readonly kind: "override";
      readonly who: string;
      readonly what: Stage | "SpecValidate" | "identity";
      readonly reason: string;
    }
  | {
      readonly kind: "hold";
      readonly who: string;
      readonly key: string;
      readonly lasts: Milliseconds;
      /** When that is over, for people. */
      readonly untilTime: string;
    }
  | {
      readonly kind: "release";
      readonly who: string;
      readonly after: "stay" | "shutdown" | "reboot";
      readonly reason: string;
    };

/** What the world gives to a decision, beside what happened. */
export interface RunContext extends Moment {
  /** The revision that the run is held to. */
  readonly spec: Spec;
  readonly validate: (inventory: Inventory) => readonly RuleFinding[];
  /** What is known of a host that died in a stage. */
  readonly lastWords: () => readonly Evidence[];
  /** 128 bits of chance, in hexadecimal. */
  readonly draw: () => string;
  readonly version: string;
}

/** What is written beside the run itself, in one transaction with it. */
export type RunWrite =
  | { readonly kind: "result"; readonly result: Omit<KeptResult, "hash"> }
  | { readonly kind: "rules"; readonly rules: readonly RuleFinding[] }
  | { readonly kind: "event"; readonly event: RunEvent }
  /** The host is this from now on. */
  | { readonly kind: "identity"; readonly identity: HardwareIdentity };

export type RunAnswer =
  | { readonly kind: "none" }
  | { readonly kind: "state"; readonly state: RunState }
  | { readonly kind: "start"; readonly number: number; readonly wipe: readonly string[] }
  | { readonly kind: "key"; readonly line: string; readonly lasts: Milliseconds }
  | { readonly kind: "refused"; readonly refusal: RunRefusal };

export interface RunRefusal {
  readonly kind: "request" | "conflict" | "forbidden" | "unauthenticated" | "gone";
  readonly message: string;
  readonly expected: string;
  readonly received: string;
  readonly hint: string;
}

export interface RunStep {
  readonly run: Run;
  readonly answer: RunAnswer;
  readonly writes: readonly RunWrite[];
}
