import type { Ending } from "../units/ending.ts";
import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import {
  AWAITED_ENDINGS_LIMIT,
  commonOf,
  type ProcessEvent,
  type ProcessState,
} from "./lifecycle.ts";

/**
 * What an orchestrator makes of a process that one before it has left when it was killed: it goes
 * on with it, ends it, or says that it was lost. Pure.
 */

/** An instance that was found. What is alive may be dead a moment later: its pidfd tells. */
export interface FoundInstance {
  /** As the host sees it. */
  readonly processId: number;
  readonly life: "alive" | "dead";
}

/** Something that an instance cannot do without: there, or not. */
type Standing = "there" | "lost";

/** All that is known of one process of the configuration. */
export interface LeftProcess {
  /** As it was last written down; undefined where nothing was, or it cannot be read. */
  readonly state: ProcessState | undefined;
  /** "changed": a start would be another one now than that which was made. */
  readonly launch: "same" | "changed";
  /** Both ends of its log pipes; there as well where it inherits what it writes to. */
  readonly output: Standing;
  /** The socket of its readiness; there as well where it has none. */
  readonly notices: Standing;
  /** The same socket, where it says there that it lives; there as well where it need not. */
  readonly heartbeats: Standing;
  /** Starts that may have been made, by the crash journal on the disk, the oldest first. */
  readonly starts: readonly string[];
  /** By invocation, those of `starts` and of the state that were found. */
  readonly found: ReadonlyMap<string, FoundInstance>;
}

/** What becomes of one instance. */
export type Verdict =
  /** It is the instance that the state is about: watched, dead or alive. */
  | { readonly kind: "adopt"; readonly invocation: string }
  /** Dead: its pidfd tells how it ended. What it left behind is nobody's. */
  | { readonly kind: "hear"; readonly invocation: string }
  /** It lives, and nobody could go on with it. */
  | { readonly kind: "end"; readonly invocation: string; readonly reason: string }
  /** It is gone, and nobody can say more of it. */
  | { readonly kind: "lost"; readonly invocation: string; readonly reason: string };

export interface Adoption {
  /** To go on with; undefined: as a process that was never started. */
  readonly state: ProcessState | undefined;
  readonly verdicts: readonly Verdict[];
  /** What has happened meanwhile, in order. */
  readonly events: readonly ProcessEvent[];
}

interface Terms {
  readonly now: MonotonicTime;
  readonly readyTimeout: Milliseconds;
}

/** Its pidfd was not kept: nobody else is told how a process ended. */
const goneUnwatched: Ending = {
  kind: "unknown",
  reason: "it ended while no orchestrator watched it, and its pidfd was not kept",
};

/** Decides over one process. */
export function adopt(left: LeftProcess, terms: Terms): Adoption {
  const { state } = left;
  const obstacle = obstacleOf(left);
  if (state === undefined || obstacle !== undefined) {
    return endAll(left, obstacle ?? "nothing was kept of it");
  }
  const named = namedIn(state);
  const life = named === undefined ? undefined : left.found.get(named)?.life;
  const successor = successorIn(left, named);
  const goesOn =
    (named !== undefined && life === "alive" && state.phase !== "clearing") ||
    successor === undefined
      ? goOn(state, left, terms)
      : succeed(state, left, successor);
  const awaited = settleAwaited(goesOn.state, left);
  const kept = new Set(
    [...goesOn.verdicts, ...awaited.verdicts].map(({ invocation }) => invocation),
  );
  const others = livingIn(left).filter((invocation) => !kept.has(invocation));
  return {
    state: goesOn.state,
    verdicts: [
      ...goesOn.verdicts,
      ...awaited.verdicts,
      ...others.map((invocation): Verdict => {
        const reason = "another instance goes on in its place";
        return { kind: "end", invocation, reason };
      }),
    ],
    events: [...goesOn.events, ...awaited.events],
  };
}

/** Why nobody could go on with an instance of it. */
function obstacleOf({
  state,
  launch,
  output,
  notices,
  heartbeats,
}: LeftProcess): string | undefined {
  if (state === undefined) return undefined;
  if (launch === "changed") return "its configuration has changed since its start";
  if (output === "lost") return "its output cannot be had: its log pipes were not kept";
  const isAwaited = ["starting", "uncertain", "running"].includes(state.phase);
  if (notices === "lost" && isAwaited) {
    return "its readiness could not be heard: its notice socket was not kept";
  }
  if (heartbeats === "lost") return "that it lives could not be heard: its notice socket is lost";
  return undefined;
}

/** The instance that the state is about. */
function namedIn(state: ProcessState): string | undefined {
  if (state.phase === "starting" || state.phase === "uncertain") return state.invocation;
  return "instance" in state ? state.instance.invocation : undefined;
}

const isAlive = ({ found }: LeftProcess, invocation: string) =>
  found.get(invocation)?.life === "alive";

/** Those that live, the newest last. */
function livingIn(left: LeftProcess): readonly string[] {
  return [...left.found.keys()].filter((invocation) => isAlive(left, invocation));
}

/** What was started after the state was written, which is some milliseconds later than a start. */
function successorIn(left: LeftProcess, named: string | undefined): string | undefined {
  return left.starts.findLast((invocation) => invocation !== named && isAlive(left, invocation));
}

/**
 * What is wanted is started anew when all that lives of it has been ended; counts and history stay,
 * and how the dead ended is told.
 */
function endAll(left: LeftProcess, reason: string): Adoption {
  const { state } = left;
  const living = livingIn(left);
  const verdicts = living.map((invocation): Verdict => ({ kind: "end", invocation, reason }));
  if (state === undefined) return { state, verdicts, events: [] };
  const named = namedIn(state);
  if (named === undefined && living.length === 0) {
    return { ...settleAwaited(state, left), state };
  }
  const isGone = named !== undefined && state.phase !== "clearing" && !living.includes(named);
  const isAwaited = isGone && "instance" in state;
  if (isGone && !left.found.has(named)) verdicts.push({ kind: "lost", invocation: named, reason });
  const common = commonOf(state);
  const wanted = state.wanted || successorIn(left, named) !== undefined;
  const phase = wanted ? ("waiting" as const) : ("idle" as const);
  const lastInvocation = "instance" in state ? state.instance.invocation : common.lastInvocation;
  const rest: ProcessState = {
    ...common,
    wanted,
    phase,
    lastInvocation,
    lastEnding: named === undefined ? common.lastEnding : undefined,
    awaitedEndings: isAwaited ? awaiting(state, named) : common.awaitedEndings,
    toldEnding: undefined,
  };
  const awaited = settleAwaited(rest, left);
  return { state: rest, verdicts: [...verdicts, ...awaited.verdicts], events: awaited.events };
}

/** Its ending is still to be told. */
const awaiting = (state: ProcessState, invocation: string) =>
  [...state.awaitedEndings, invocation].slice(-AWAITED_ENDINGS_LIMIT);

/** With what the state names. */
function goOn(state: ProcessState, left: LeftProcess, terms: Terms): Adoption {
  switch (state.phase) {
    case "starting":
    case "uncertain":
      return goOnStarting(state, left);
    case "running":
    case "ready":
    case "stopping":
      return goOnRunning(state, left, terms);
    default:
      return { state, verdicts: [], events: [] };
  }
}

function goOnStarting(
  state: Extract<ProcessState, { phase: "starting" | "uncertain" }>,
  left: LeftProcess,
): Adoption {
  const { invocation } = state;
  const doubtful: ProcessState = { ...commonOf(state), phase: "uncertain", invocation };
  const found = left.found.get(invocation);
  if (found !== undefined) {
    const { processId } = found;
    const events = [{ kind: "found", invocation, processId } as const];
    return { state: doubtful, verdicts: [{ kind: "adopt", invocation }], events };
  }
  const reason = "its start had been decided, and nothing of it is found";
  const events = [{ kind: "not-found", invocation } as const];
  return { state: doubtful, verdicts: [{ kind: "lost", invocation, reason }], events };
}

function goOnRunning(
  state: Extract<ProcessState, { phase: "running" | "ready" | "stopping" }>,
  left: LeftProcess,
  { now, readyTimeout }: Terms,
): Adoption {
  const { invocation } = state.instance;
  if (left.found.has(invocation)) {
    // What it said meanwhile waits to be heard, and a check begins anew.
    const readyBy = now + readyTimeout;
    const same = state.phase === "running" ? { ...state, readyBy } : state;
    return { state: same, verdicts: [{ kind: "adopt", invocation }], events: [] };
  }
  const { reason } = goneUnwatched as Extract<Ending, { kind: "unknown" }>;
  const events = [{ kind: "died", invocation, ending: goneUnwatched } as const];
  return { state, verdicts: [{ kind: "lost", invocation, reason }], events };
}

/** A start that was made after the state was written: what the state names is dead by then. */
function succeed(state: ProcessState, left: LeftProcess, successor: string): Adoption {
  const past = commonOf(state);
  const isRunning = ["running", "ready", "stopping"].includes(state.phase);
  const former = "instance" in state ? state.instance.invocation : undefined;
  const awaitedEndings =
    former !== undefined && isRunning ? awaiting(state, former) : past.awaitedEndings;
  const processId = left.found.get(successor)?.processId ?? 0;
  return {
    state: {
      ...past,
      wanted: true,
      lastInvocation: former ?? past.lastInvocation,
      lastEnding: isRunning ? undefined : past.lastEnding,
      awaitedEndings,
      phase: "uncertain",
      invocation: successor,
    },
    verdicts: [{ kind: "adopt", invocation: successor }],
    events: [{ kind: "found", invocation: successor, processId }],
  };
}

/** Endings that nobody had told: by the kernel where the pidfd was kept; else they are unknown. */
function settleAwaited(
  state: ProcessState | undefined,
  { found }: LeftProcess,
): Pick<Adoption, "verdicts" | "events"> {
  const verdicts: Verdict[] = [];
  const events: ProcessEvent[] = [];
  for (const invocation of state?.awaitedEndings ?? []) {
    if (found.get(invocation)?.life === "dead") verdicts.push({ kind: "hear", invocation });
    else events.push({ kind: "ending-known", invocation, ending: goneUnwatched });
  }
  return { verdicts, events };
}
