import { noted } from "./lifecycle.ts";
import type { DecodedJournal, Journal, Life } from "./lifecycle-journal.ts";
import { abort, endedWith, forgotten, listening, ordersOf, revert } from "./lifecycle-moves.ts";
import {
  type AgentEffect,
  type AgentState,
  agentLimits,
  type Context,
  type In,
  type Outcome,
} from "./lifecycle-state.ts";
import type { Build } from "./protocol.ts";
import { paceOf } from "./protocol-pace.ts";

/** Where `current` and `previous` lead. */
export interface Links {
  readonly current: Build;
  readonly previous: Build | null;
}

/** What an agent finds when it starts. */
export interface Found {
  readonly journal: DecodedJournal;
  readonly links: Links;
  /** The file that this process runs. */
  readonly self: Build;
  readonly boot: string;
}

export type Recovered =
  | ({ readonly kind: "ok" } & Outcome)
  /** Another file than `current` leads to has no say here. */
  | { readonly kind: "refused"; readonly reason: string };

/**
 * How a canonical agent goes on: from the journal, and from where the links lead, because a link is
 * changed before the journal says that it was. What was ordered and not answered is ordered again.
 */
export function recover(found: Found, context: Context): Recovered {
  const { links, self } = found;
  if (self.digest !== links.current.digest) {
    const reason =
      `expected to be what current leads to, ${links.current.version} ` +
      `(${links.current.digest}), received ${self.version} (${self.digest})`;
    return { kind: "refused", reason };
  }
  const journal =
    found.journal.kind === "ok" ? found.journal.journal : firstJournal(found, found.journal.kind);
  const state = restored(journal, found, context);
  return { kind: "ok", ...noted(resume(state, { journal, found, context })) };
}

/** Where the journal cannot be read the running version is the floor: the true one is unknown. */
function firstJournal({ links, boot }: Found, kind: "absent" | "refused"): Journal {
  return {
    format: 1,
    step: 0,
    ...{ boot, ...links },
    floor: kind === "absent" ? null : links.current.version,
    metadataVersion: 0,
    seen: [],
    life: { phase: "idle" },
  };
}

function restored(journal: Journal, { links, self, boot }: Found, { now }: Context): AgentState {
  const { step, floor, metadataVersion, seen, life } = journal;
  return {
    ...{ step, floor, metadataVersion, seen, life, boot, self },
    current: links.current,
    previous: links.previous,
    ticket: 1,
    next: undefined,
    noteAt: undefined,
    link: listening(now),
    progress: null,
    roles: [],
  };
}

interface Ground {
  readonly journal: Journal;
  readonly found: Found;
  readonly context: Context;
}

function resume(state: AgentState, ground: Ground): Outcome {
  const { life } = state;
  switch (life.phase) {
    case "idle":
      return ordered(state, life);
    case "done":
    case "aborted":
    case "rolled-back":
      return ordered(state, { ...life, ending: isNewBoot(ground) ? null : life.ending });
    case "staging":
    case "verifying":
    case "cutover-ready":
    case "observed":
    case "held":
      return resumeBefore({ ...state, life }, ground);
    case "commit-seen":
      return resumeCommitted({ ...state, life }, ground);
    case "swapped":
    case "canonical":
      return resumeSwapped({ ...state, life }, ground);
    case "reverting":
      return resumeReverting({ ...state, life }, ground);
  }
}

const isNewBoot = ({ journal, found }: Ground) => journal.boot !== found.boot;

function ordered(state: AgentState, life: Life): Outcome {
  const next = { ...state, life };
  return { state: next, effects: ordersOf(next) };
}

type Before = In<"staging" | "verifying" | "cutover-ready" | "observed" | "held">;

function resumeBefore(state: Before, ground: Ground): Outcome {
  const { life } = state;
  const { found, context } = ground;
  // Nobody has committed it, and yet it runs: somebody else has changed the link.
  if (life.marker.build.digest === found.self.digest) return giveBack(state, ground);
  const { marker } = life;
  const resumes = life.resumes + 1;
  if (resumes > agentLimits.resumes) {
    const reason = `it was begun anew ${agentLimits.resumes} times`;
    return abort(state, context, { reason, cause: "host" });
  }
  if (life.phase !== "staging" && life.phase !== "verifying" && !isNewBoot(ground)) {
    const kept = { ...state, life: { ...life, resumes } };
    return { state: kept, effects: [{ kind: "find-candidate", instance: life.instance }] };
  }
  const isWithin = "until" in life && !isNewBoot(ground);
  const until = isWithin ? life.until : context.now + marker.limits.staging_ms;
  if (life.phase === "staging") {
    return ordered(state, { ...life, stage: "checking", resumes, until });
  }
  // One that may have been started has to be gone before the next one is.
  const left: AgentEffect[] =
    life.instance === null ? [] : [{ kind: "stop-candidate", instance: life.instance }];
  const proving = { phase: "verifying", stage: "proving", instance: null } as const;
  const { state: next, effects } = ordered(state, { ...proving, marker, resumes, until });
  return { state: next, effects: [...(isNewBoot(ground) ? [] : left), ...effects] };
}

/** What was canonical before, as the journal says; where it is the same, there is nothing to do. */
function giveBack(state: Before, { journal, context }: Ground): Outcome {
  const { marker } = state.life;
  const instance = state.life.phase === "staging" ? null : state.life.instance;
  const swapped = {
    ...state,
    life: {
      phase: "swapped",
      ...{ marker, instance, from: journal.current, before: journal.previous },
      ...{ until: context.now, lastWords: null, starts: 0, setbacks: 0, reason: null },
    },
  } as const;
  const reason = "it ran as the canonical version, and no commit was seen";
  return revert(swapped, context, { reason, lastWords: null, cause: "host" });
}

function resumeCommitted(state: In<"commit-seen">, ground: Ground): Outcome {
  const { life } = state;
  const { context, found } = ground;
  const { marker, from, before, lastWords } = life;
  const instance = isNewBoot(ground) ? null : life.instance;
  const until = context.now + marker.limits.canonical_ms;
  if (marker.build.digest !== found.self.digest) {
    const isFormer = found.self.digest === from.digest;
    const now = isFormer ? { from, before } : { from: state.current, before: state.previous };
    return ordered(state, { ...life, ...now, instance, stage: "hashing", until });
  }
  return ordered(state, {
    phase: "swapped",
    ...{ marker, instance, from, before, lastWords, until },
    ...{ starts: 0, setbacks: 0, reason: null },
  });
}

function resumeSwapped(state: In<"swapped" | "canonical">, ground: Ground): Outcome {
  const { life } = state;
  const { context, found } = ground;
  const { marker, from, before, lastWords, starts, setbacks, reason } = life;
  const instance = isNewBoot(ground) ? null : life.instance;
  const limit = marker.limits.canonical_ms;
  const until = isNewBoot(ground) ? context.now + limit : life.until;
  const shared = { marker, instance, from, before, lastWords, until } as const;
  if (marker.build.digest === found.self.digest) {
    // What answered before has to answer from this process again.
    const again = Math.max(until, context.now + paceOf(marker).settle);
    const waits = life.phase === "canonical" ? again : until;
    return ordered(state, {
      phase: "swapped",
      ...shared,
      ...{ until: waits, starts, setbacks, reason },
    });
  }
  if (found.self.digest !== from.digest) return replaced(state, ground);
  // The boot guard writes the journal before the link, so it was not the guard.
  return ordered(state, {
    phase: "reverting",
    ...shared,
    ...{ starts, setbacks, stage: "proving", until: context.now + limit },
    reason: "current was put back by somebody else",
    endingCause: "host",
  });
}

function resumeReverting(state: In<"reverting">, ground: Ground): Outcome {
  const { life } = state;
  const { context, found } = ground;
  const instance = isNewBoot(ground) ? null : life.instance;
  const until = context.now + life.marker.limits.canonical_ms;
  if (found.self.digest === life.from.digest) {
    return ordered(state, { ...life, instance, stage: "proving", until });
  }
  if (found.self.digest === life.marker.build.digest) {
    return ordered(state, { ...life, instance, stage: "seeking", until });
  }
  return replaced(state, ground);
}

/** A third version was installed meanwhile: there is nothing to go back from, or on with. */
function replaced(state: In<"swapped" | "canonical" | "reverting">, ground: Ground): Outcome {
  const { marker, lastWords, reason: former } = state.life;
  const instance = isNewBoot(ground) ? null : state.life.instance;
  const because = "another version was installed meanwhile";
  const reason = former === null ? because : `${former}; ${because}`;
  const ended = endedWith(ground.context, { marker, instance, reason, lastWords });
  const next = { ...state, ...forgotten(state, marker) };
  return ordered(next, { phase: "rolled-back", ...ended, endingCause: "host" });
}
