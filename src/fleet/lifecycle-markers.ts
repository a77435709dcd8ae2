import { abort, endedWith, forgotten, go, stays } from "./lifecycle-moves.ts";
import type { Context, In, Of, Outcome } from "./lifecycle-state.ts";
import type { EndingCause, Marker } from "./protocol.ts";

/** What a marker does in each phase. */

type Resting = In<"idle" | "done" | "aborted" | "rolled-back">;
type Preparing = In<"staging" | "verifying">;
type Probation = In<"cutover-ready" | "observed" | "held">;

/** A new upgrade, unless it is an old one again. */
export function take(state: Resting, { marker }: Of<"marker">, context: Context): Outcome {
  const { life } = state;
  if (state.seen.includes(marker.transaction)) return stays(state);
  // One candidate at a time, and one journal of it.
  if (life.phase !== "idle" && life.ending !== null) {
    return stays({ ...state, next: marker });
  }
  const taken = { ...state, next: undefined };
  const refuse = (reason: string, endingCause: EndingCause) => {
    const ended = endedWith(context, { marker, instance: null, reason });
    return go(taken, { phase: "aborted", ...ended, endingCause }, forgotten(taken, marker));
  };
  if (marker.withdrawn !== null) {
    return refuse(`withdrawn: ${marker.withdrawn.reason}`, "withdrawn");
  }
  if (marker.build.digest === state.current.digest) {
    const ended = endedWith(context, { marker, instance: null, reason: "" });
    return go(taken, { phase: "done", ...ended, reason: null }, forgotten(taken, marker));
  }
  if (context.executor === "immutable") {
    return refuse("this host's programs cannot be changed: update the image", "host");
  }
  return go(taken, {
    phase: "staging",
    marker,
    resumes: 0,
    stage: "checking",
    until: context.now + marker.limits.staging_ms,
  });
}

export function followPreparing(
  state: Preparing,
  { marker }: Of<"marker">,
  context: Context,
): Outcome {
  const { life } = state;
  const former = life.marker;
  if (isAnother(marker, former)) return supersede(state, marker, context);
  if (isForged(marker, former) || isSame(marker, former)) return stays(state);
  if (marker.withdrawn !== null) return withdraw(state, marker.withdrawn, context);
  // What speaks of another instance speaks of none that this device started.
  const instance = life.phase === "verifying" ? life.instance : null;
  if (instance === null || !names(marker, instance)) return stays(state);
  return stays({ ...state, life: { ...life, marker } });
}

export function followProbation(
  state: Probation,
  { marker }: Of<"marker">,
  context: Context,
): Outcome {
  const { life } = state;
  if (isAnother(marker, life.marker)) return supersede(state, marker, context);
  if (isForged(marker, life.marker) || isSame(marker, life.marker)) return stays(state);
  if (marker.withdrawn !== null) return withdraw(state, marker.withdrawn, context);
  if (!names(marker, life.instance)) return stays(state);
  return considered({ ...state, life: { ...life, marker } }, context);
}

/** From the commit on an upgrade goes to its end first. */
export function waitForNext(
  state: In<"commit-seen" | "swapped" | "canonical" | "reverting">,
  { marker }: Of<"marker">,
): Outcome {
  const isNext = isAnother(marker, state.life.marker) && !state.seen.includes(marker.transaction);
  return stays(isNext ? { ...state, next: marker } : state);
}

const isAnother = (marker: Marker, followed: Marker) => marker.transaction !== followed.transaction;

/** One transaction is one version: a marker that changes it is none of the operator's. */
const isForged = ({ build, manifest }: Marker, followed: Marker) =>
  build.digest !== followed.build.digest ||
  build.version !== followed.build.version ||
  manifest !== followed.manifest;

const isSame = (marker: Marker, followed: Marker) =>
  marker.observed === followed.observed &&
  marker.commit?.instance === followed.commit?.instance &&
  marker.commit?.transaction === followed.commit?.transaction &&
  marker.withdrawn?.reason === followed.withdrawn?.reason;

const isCommitOf = ({ commit, transaction }: Marker, instance: string) =>
  commit !== null && commit.transaction === transaction && commit.instance === instance;

const names = (marker: Marker, instance: string) =>
  marker.observed === instance || isCommitOf(marker, instance);

function supersede(state: Preparing | Probation, next: Marker, context: Context): Outcome {
  // A store that went back may tell of an upgrade that is over.
  if (state.seen.includes(next.transaction)) return stays(state);
  const reason = `superseded by ${next.transaction}`;
  return abort({ ...state, next }, context, { reason, cause: "superseded" });
}

function withdraw(
  state: Preparing | Probation,
  { reason }: NonNullable<Marker["withdrawn"]>,
  context: Context,
): Outcome {
  return abort(state, context, { reason: `withdrawn: ${reason}`, cause: "withdrawn" });
}

/** What the marker says of a candidate that is there. */
export function considered(state: Probation, { now }: Context): Outcome {
  const { life } = state;
  const { marker, instance } = life;
  if (isCommitOf(marker, instance)) {
    return go(state, {
      phase: "commit-seen",
      ...{ marker, instance, stage: "hashing", lastWords: null },
      from: state.current,
      before: state.previous,
      until: now + marker.limits.canonical_ms,
    });
  }
  if (life.phase === "cutover-ready" && marker.observed === instance) {
    return stays({ ...state, life: { ...life, phase: "observed" } });
  }
  return stays(state);
}
