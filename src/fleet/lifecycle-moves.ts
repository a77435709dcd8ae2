import { journalLimits, type Life } from "./lifecycle-journal.ts";
import {
  type AgentEffect,
  type AgentState,
  agentTimes,
  type BootTime,
  type Context,
  type In,
  type Link,
  type Outcome,
} from "./lifecycle-state.ts";
import {
  type Build,
  type EndingCause,
  fleetLimits,
  type LastWords,
  type Marker,
} from "./protocol.ts";
import { paceOf } from "./protocol-pace.ts";

/** Ways from one phase to another that several cells go. */

/** In words: "ended by SIGKILL" is said once, and what it was ended for goes before it. */
export function candidateEnd(lastWords: LastWords | null): string {
  const ending = lastWords?.ending ?? "nobody knows how";
  const isPlain = /^(exited with|ended) /.test(ending);
  return isPlain ? `the candidate ${ending}` : `the candidate ended: ${ending}`;
}

export type Committed = In<"swapped" | "canonical">;
export type Ended = Extract<Life, { phase: "done" | "aborted" | "rolled-back" }>;

export const stays = (state: AgentState): Outcome => ({ state, effects: [] });

/** Enters a life, and orders what it waits for. */
export function go(state: AgentState, life: Life, changes: Partial<AgentState> = {}): Outcome {
  const next = { ...state, ...changes, life, ticket: state.ticket + 1 };
  return { state: next, effects: ordersOf(next) };
}

/**
 * What a state waits for, ordered: when it is entered, and again after a death of the agent or a
 * journal that could not be written.
 */
export function ordersOf(state: AgentState): readonly AgentEffect[] {
  const { life, ticket, floor, metadataVersion } = state;
  switch (life.phase) {
    case "idle":
      return [{ kind: "collect", keep: kept(state) }];
    case "staging": {
      const { marker } = life;
      if (life.stage === "fetching") return [{ kind: "fetch", ticket, marker }];
      return [{ kind: "check", ticket, marker, floor, metadataVersion }];
    }
    case "verifying": {
      const { marker, instance } = life;
      if (instance === null) return [{ kind: "prove", ticket, marker }];
      const endsAfter = longestCandidate(marker);
      return [{ kind: "start-candidate", ticket, marker, instance, endsAfter }];
    }
    case "cutover-ready":
    case "observed":
    case "held":
      return [];
    case "commit-seen": {
      const { build } = life.marker;
      if (life.stage === "hashing") return [{ kind: "hash", ticket, build, wayBack: life.from }];
      return [{ kind: "swap", ticket, current: build, previous: life.from }];
    }
    case "swapped":
      return isNew(state, life.marker)
        ? [{ kind: "hand-over", build: life.marker.build }]
        : [{ kind: "restart-canonical", ticket }];
    case "canonical":
      return stopOf(life.instance);
    case "reverting":
      return revertOrders(life, ticket);
    case "done":
    case "aborted":
    case "rolled-back":
      if (life.ending !== null) return stopOf(life.ending.instance);
      return [{ kind: "collect", keep: kept(state) }];
  }
}

function revertOrders(
  { stage, from, before, marker }: Extract<Life, { phase: "reverting" }>,
  ticket: number,
): readonly AgentEffect[] {
  switch (stage) {
    case "seeking":
      return [{ kind: "find-way-back", ticket, build: from, marker }];
    case "swapping":
      return [{ kind: "swap-back", ticket, current: from, previous: before }];
    case "restarting":
      return [{ kind: "restart-canonical", ticket }];
    case "proving":
      return [{ kind: "hand-over", build: from }];
  }
}

const stopOf = (instance: string | null): readonly AgentEffect[] =>
  instance === null ? [] : [{ kind: "stop-candidate", instance }];

const kept = ({ current, previous }: AgentState): readonly Build[] =>
  previous === null ? [current] : [current, previous];

/** All that a candidate can be needed for, and a while. */
function longestCandidate(marker: Marker): number {
  const { limits } = marker;
  const { settle } = paceOf(marker);
  return limits.staging_ms + 2 * limits.commit_ms + 2 * limits.canonical_ms + settle;
}

/** This process is the version that the marker names, and not the one before it. */
export function isNew({ self }: AgentState, marker: Marker): boolean {
  return self.digest === marker.build.digest;
}

/** Nothing is listened to before a candidate is there. */
export function listening(now: BootTime): Link {
  return { since: now, canonicalHeard: undefined, unbrokenSince: now, candidateHeard: undefined };
}

/** Before the swap: the way back is to do nothing but to end the candidate. */
export function abort(
  state: In<"staging" | "verifying" | "cutover-ready" | "observed" | "held" | "commit-seen">,
  context: Context,
  why: {
    readonly reason: string;
    readonly cause: EndingCause;
    readonly lastWords?: LastWords | null;
    readonly isGone?: boolean;
  },
): Outcome {
  const { life } = state;
  const instance = life.phase === "staging" || why.isGone === true ? null : life.instance;
  const ended = endedWith(context, { marker: life.marker, instance, ...why });
  const outcome = go(
    state,
    { phase: "aborted", ...ended, endingCause: why.cause },
    forgotten(state, life.marker),
  );
  const isWorking = "stage" in life && (life.phase !== "verifying" || life.stage === "proving");
  const abandon: AgentEffect[] = isWorking ? [{ kind: "abandon" }] : [];
  return { ...outcome, effects: [...abandon, ...outcome.effects] };
}

/** The state after an upgrade is over, however it ended. */
export function endedWith(
  { now }: Context,
  {
    marker,
    instance,
    reason,
    lastWords = null,
  }: {
    readonly marker: Marker;
    readonly instance: string | null;
    readonly reason: string;
    readonly lastWords?: LastWords | null;
  },
) {
  return {
    transaction: marker.transaction,
    build: marker.build,
    reason: shortened(reason),
    lastWords,
    ending: instance === null ? null : { instance, until: now + agentTimes.stopAgain },
  };
}

/** Its transaction is over, and the download's numbers with it. */
export function forgotten(state: AgentState, { transaction }: Marker): Partial<AgentState> {
  const seen = [...state.seen.filter((one) => one !== transaction), transaction];
  return { seen: seen.slice(-journalLimits.seen), progress: null };
}

/** Only what this host sees itself leads here. */
export function revert(
  state: Committed,
  { now }: Context,
  {
    reason,
    lastWords,
    cause = "canonical",
  }: {
    readonly reason: string;
    readonly lastWords: LastWords | null;
    readonly cause?: EndingCause;
  },
): Outcome {
  const { marker, instance, from, before, starts, setbacks, lastWords: former } = state.life;
  return go(state, {
    phase: "reverting",
    ...{ marker, instance, from, before, starts, setbacks },
    stage: "seeking",
    until: now + marker.limits.canonical_ms,
    reason: shortened(reason),
    endingCause: cause,
    lastWords: lastWords ?? former,
  });
}

export const shortened = (reason: string): string => reason.slice(0, fleetLimits.textLength);
