import type { Revision } from "../../store/store.ts";
import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type { Build, DeviceStatus, Heartbeat, Marker } from "../protocol.ts";
import type { Labels, RolloutChange, RolloutSpec, RolloutView } from "../protocol-operator.ts";
import type { DeviceMap } from "./lifecycle-device-map.ts";
import type { Slot, SlotWrite } from "./lifecycle-slot.ts";

/** The words of an operator's decisions: what it knows, what happens, what it does. Pure. */

/** A heartbeat, and when this operator heard it. */
export interface Heard {
  readonly heartbeat: Heartbeat;
  readonly revision: Revision;
  readonly at: MonotonicTime;
}

/** An instance of a candidate, as this operator itself has heard it. */
export interface CandidateHeard extends Heard {
  /** Since when it is heard without a gap, and healthy, and from which of its heartbeats on. */
  readonly since: MonotonicTime;
  readonly firstSequence: number;
}

export interface DeviceState {
  readonly name: string;
  /** When this process of the operator heard of it. */
  readonly known: MonotonicTime;
  /** Since when, to this process, its upgrade is in the phase that it is in. */
  readonly since: MonotonicTime;
  readonly labels: Slot<Labels>;
  readonly status: { readonly value: DeviceStatus; readonly revision: Revision } | undefined;
  readonly canonical: Heard | undefined;
  readonly candidate: CandidateHeard | undefined;
  readonly marker: Slot<Marker>;
  /** Heard to run this long after it was done with that transaction: its word is not true. */
  readonly drifted: { readonly transaction: string; readonly build: Build } | undefined;
  /** Why what it says is not understood; it is given nothing until it is. */
  readonly trouble: string | undefined;
}

export type DeviceEvent =
  | {
      readonly kind: "status";
      readonly status: DeviceStatus;
      readonly revision: Revision;
      /** Of a first list: it may be of long ago. */
      readonly listed: boolean;
    }
  | HeartbeatEvent<"canonical">
  | HeartbeatEvent<"candidate">
  /** What it says is not understood. */
  | { readonly kind: "unreadable"; readonly reason: string }
  /** A write of its marker has landed. */
  | { readonly kind: "written"; readonly revision: Revision }
  /** What the store has as its marker. */
  | { readonly kind: "found"; readonly value: Marker | undefined; readonly revision: Revision }
  /** A rollout's turn: it is to become this. */
  | { readonly kind: "assign"; readonly marker: Marker }
  /** What it was told is taken back, unless it is committed. */
  | { readonly kind: "withdraw"; readonly reason: string };

export interface HeartbeatEvent<Kind extends "canonical" | "candidate"> {
  readonly kind: Kind;
  readonly heartbeat: Heartbeat;
  readonly revision: Revision;
  readonly listed: boolean;
}
export type DeviceEventKind = DeviceEvent["kind"];

export const rolloutPhases = ["running", "paused", "complete", "aborted"] as const;
export type RolloutPhase = (typeof rolloutPhases)[number];

/** It runs or waits for somebody: it has not ended. */
export const isOpen = (phase: RolloutView["phase"]): boolean =>
  phase === "running" || phase === "paused";

/** How many of a rollout's devices are where; those of later rollouts are none of it. */
export interface RolloutCounts {
  readonly members: number;
  readonly done: number;
  readonly failed: number;
  /** Whose host could not, by itself: none of it is the version's. */
  readonly hindered: number;
  readonly flight: number;
  readonly waiting: number;
  readonly away: number;
  /** That it can not be given to: another architecture, an image. */
  readonly unfit: number;
}

/** superseded: it was begun or waited, and another rollout took it. */
export type PastStanding = "done" | "failed" | "hindered" | "superseded";

/** A device that another rollout has now, or that was forgotten. */
export interface PastMember {
  readonly device: string;
  readonly standing: PastStanding;
  /** Why it failed or could not, or where it was; "" for one that is done. */
  readonly reason: string;
  /** The rollout that took it; null where it was forgotten. */
  readonly by: string | null;
}

/** What became of a rollout's devices before others took them. */
export interface RolloutPast {
  /** At most `operatorLimits.past`. */
  readonly named: readonly PastMember[];
  /** Those that there was no room for. */
  readonly unnamed: { readonly [Standing in PastStanding]: number };
}

/** How many of a rollout's devices are where, with those that others have taken since. */
export interface ShownCounts extends RolloutCounts {
  readonly superseded: number;
}

/** What is kept of a rollout. */
export interface RolloutRecord {
  readonly name: string;
  /** Rises: of two rollouts that want a device the later has it. */
  readonly number: number;
  readonly phase: RolloutPhase;
  /** Why it is paused, aborted, or complete without having done anything. */
  readonly reason: string | null;
  readonly spec: RolloutSpec;
  /** The wave that is open, from 0. */
  readonly wave: number;
  /** Failures that somebody has seen, and gone on. */
  readonly forgiven: number;
  /** Hosts that could not, which somebody has seen, and gone on. */
  readonly forgivenHosts: number;
  /** From 1; in the next one what has failed is tried again. */
  readonly round: number;
  /** When it ended or was paused, for its history. */
  readonly result: RolloutCounts | null;
  readonly past: RolloutPast;
  /** At most `operatorLimits.changes`: the first, and the last ones. */
  readonly changes: readonly RolloutChange[];
}

export interface RolloutState {
  readonly name: string;
  readonly record: Slot<RolloutRecord>;
  /** Since when the open wave is over; not kept: after a restart it is soaked anew. */
  readonly soaking: MonotonicTime | undefined;
  /** As the last plan has counted those that it has: by these it is decided. */
  readonly counts: RolloutCounts | undefined;
  /** The same for people, with what became of those that others have taken. */
  readonly shown: ShownCounts | undefined;
  /** Its own devices that somebody should know of, as the last plan has seen them. */
  readonly troubled: RolloutView["named"];
  /** Why nothing of it is begun now, or "". */
  readonly waitsFor: string;
}

export interface FleetState {
  readonly devices: DeviceMap;
  readonly rollouts: ReadonlyMap<string, RolloutState>;
  readonly started: MonotonicTime;
  /** All that the store has was read; before that nothing is begun, and nothing taken back. */
  readonly isOpen: boolean;
  /** An older store was put back: until then devices tell anew what they do; nothing begins. */
  readonly settlesAt: MonotonicTime | undefined;
  /** When all rollouts are looked at next. */
  readonly planAt: MonotonicTime | undefined;
}

export interface OperatorSettings {
  readonly silentAfter: Milliseconds;
  /** Silent for so long, an upgrade that is not committed is taken back. */
  readonly lostAfter: Milliseconds;
  /** For so long a candidate is heard, without a gap and healthy, before it is committed. */
  readonly probation: Milliseconds;
  readonly settle: Milliseconds;
  /** From a change to the plan that follows it, so that many changes have one. */
  readonly planDelay: Milliseconds;
  /** Rollouts are looked at so often: for windows, and for devices that fall silent. */
  readonly planEvery: Milliseconds;
}

export interface OperatorContext {
  readonly now: MonotonicTime;
  /** Milliseconds since 1970, by the operator's clock: for maintenance windows alone. */
  readonly wall: number;
  readonly settings: OperatorSettings;
  /** 128 bits of chance as 32 hexadecimal digits, new with each reading. */
  readonly nextTransaction: string;
}

export type FleetEvent =
  | {
      readonly kind: "device";
      readonly device: string;
      readonly event: DeviceEvent;
      /** It was so before this process looked: that is no news, and nobody is told of it. */
      readonly isOfBefore?: boolean;
    }
  | { readonly kind: "label"; readonly device: string; readonly labels: Labels }
  | { readonly kind: "labels-written"; readonly device: string; readonly revision: Revision }
  | {
      readonly kind: "labels-found";
      readonly device: string;
      readonly value: Labels | undefined;
      readonly revision: Revision;
    }
  /** It never comes back, or begins anew. */
  | {
      readonly kind: "forget";
      readonly device: string;
      /** Its host is, so that it is not waited for whether it speaks. */
      readonly isRevoked?: boolean;
    }
  | {
      readonly kind: "create";
      readonly name: string;
      readonly spec: RolloutSpec;
      /** false: a device that it names and that was never heard is a mistake. */
      readonly mayBeUnknown?: boolean;
      readonly by?: string;
    }
  | ({ readonly kind: "pause"; readonly reason: string } & Asked)
  | ({ readonly kind: "resume"; readonly retry: boolean } & Asked)
  | ({ readonly kind: "abort"; readonly reason: string } & Asked)
  | { readonly kind: "rollout-written"; readonly rollout: string; readonly revision: Revision }
  | {
      readonly kind: "rollout-found";
      readonly rollout: string;
      readonly value: RolloutRecord | undefined;
      readonly revision: Revision;
    }
  /** What the store has was read: this operator's own entries, all of them. */
  | { readonly kind: "opened" }
  /** Time may have passed. */
  | { readonly kind: "time" };

/** What somebody asks of a rollout; `by` is who, for its history. */
interface Asked {
  readonly rollout: string;
  readonly by?: string;
}

/** What operators and the log are told of. */
export const happenings = [
  "device-new",
  "device-forgotten",
  "device-unreadable",
  "told",
  "preparing",
  "ready",
  "observed",
  "held",
  "committed",
  "swapping",
  "withdrawn",
  "returned",
  "failed",
  "done",
  "foreign",
  "free",
  "rollout-created",
  "rollout-wave",
  "rollout-paused",
  "rollout-resumed",
  "rollout-aborted",
  "rollout-complete",
  "store-lost",
] as const;
export type Happening = {
  readonly what: (typeof happenings)[number];
  readonly device: string | null;
  readonly rollout: string | null;
  readonly message: string;
};

export type FleetEffect =
  /** Answered by "written" or "found" of the device. */
  | { readonly kind: "write-marker"; readonly device: string; readonly write: SlotWrite<Marker> }
  | { readonly kind: "write-labels"; readonly device: string; readonly write: SlotWrite<Labels> }
  | {
      readonly kind: "write-rollout";
      readonly rollout: string;
      readonly write: SlotWrite<RolloutRecord>;
    }
  /** Its entries go, whoever wrote them. */
  | { readonly kind: "delete-device"; readonly device: string }
  | { readonly kind: "tell"; readonly happening: Happening };

export type Refusal = {
  readonly kind: "conflict" | "not-found" | "request" | "too-many";
  readonly message: string;
  readonly expected: string;
  readonly received: string;
  readonly hint?: string;
};

export interface Step {
  readonly state: FleetState;
  readonly effects: readonly FleetEffect[];
  readonly refusal?: Refusal;
  /** When time alone changes something next. */
  readonly wakeAt: MonotonicTime | undefined;
}
