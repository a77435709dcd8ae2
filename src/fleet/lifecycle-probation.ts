import { considered } from "./lifecycle-markers.ts";
import { abort, candidateEnd, go, listening, stays } from "./lifecycle-moves.ts";
import type { BootTime, Context, In, Link, Of, Outcome } from "./lifecycle-state.ts";
import { type Pace, paceOf } from "./protocol-pace.ts";
import { laterVersion } from "./protocol-version.ts";

/**
 * Up to the commit: a version is fetched and proven, and its candidate runs beside the canonical
 * agent, which is the control group. Where both fall silent it is the environment, and not the
 * version; until both could be heard all the time, nothing is said against the candidate.
 */

type Preparing = In<"staging" | "verifying">;
type Probation = In<"cutover-ready" | "observed" | "held">;

export function accepted(state: In<"staging">, event: Of<"accepted">): Outcome {
  if (state.life.stage !== "checking") return stays(state);
  return go(
    state,
    { ...state.life, stage: "fetching" },
    {
      floor: laterVersion(state.floor, event.floor),
      metadataVersion: Math.max(state.metadataVersion, event.metadataVersion),
    },
  );
}

export function progressed(state: In<"staging">, { progress }: Of<"progress">): Outcome {
  return stays(state.life.stage === "fetching" ? { ...state, progress } : state);
}

export function fetched(state: In<"staging">): Outcome {
  const { marker, resumes, until, stage } = state.life;
  if (stage !== "fetching") return stays(state);
  const verifying = { phase: "verifying", stage: "proving", instance: null } as const;
  return go(state, { ...verifying, marker, resumes, until });
}

export function proved(state: In<"verifying">, _event: Of<"proved">, context: Context): Outcome {
  if (state.life.stage !== "proving") return stays(state);
  return go(state, { ...state.life, stage: "starting", instance: context.nextInstance });
}

export function ready(state: In<"verifying">, event: Of<"candidate-ready">, context: Context) {
  const { marker, resumes } = state.life;
  const { instance } = event;
  const { now } = context;
  const link = listening(now);
  const life = { phase: "cutover-ready", marker, instance, resumes, readyAt: now } as const;
  return considered({ ...state, life, link }, context);
}

export function preparingFailed(state: Preparing, event: Of<"failed">, context: Context): Outcome {
  return abort(state, context, event);
}

export function preparingOverdue(state: Preparing, _event: Of<"time">, context: Context): Outcome {
  const { marker, until } = state.life;
  if (context.now < until) return stays(state);
  const reason = `no candidate was ready within ${marker.limits.staging_ms} ms`;
  // A download that takes too long says nothing against the version.
  const cause = state.life.phase === "staging" ? "host" : "candidate";
  return abort(state, context, { reason, cause });
}

export function candidateEnded(
  state: In<"verifying"> | Probation,
  { lastWords }: Of<"candidate-ended">,
  context: Context,
): Outcome {
  const reason = candidateEnd(lastWords);
  return abort(state, context, { reason, cause: "candidate", lastWords, isGone: true });
}

export function unwrittenBeforeSwap(
  state: Preparing | Probation | In<"commit-seen">,
  { reason }: Of<"note-failed">,
  context: Context,
): Outcome {
  const told = `the journal cannot be written: ${reason}`;
  return abort(state, context, { reason: told, cause: "host" });
}

export function heard(state: Probation, event: Of<"heard">, context: Context): Outcome {
  const pace = paceOf(state.life.marker);
  const link = listen(state.link, event.who, { now: context.now, pace });
  const listened = { ...state, link };
  const { life } = listened;
  // Where one of the two is heard, the environment lets them be heard.
  if (life.phase === "held" && life.cause === "environment") {
    const { marker, instance, resumes, readyAt } = life;
    const back = { phase: "cutover-ready", marker, instance, resumes, readyAt } as const;
    return considered({ ...listened, life: back }, context);
  }
  if (!isAloneSilent(link, life.readyAt, pace)) return stays(listened);
  const reason =
    `nothing was heard of the candidate for ${pace.silentAfter} ms, ` +
    "in which the canonical agent was heard all the time";
  return abort(listened, context, { reason, cause: "candidate" });
}

function listen(
  link: Link,
  who: "canonical" | "candidate",
  { now, pace }: { readonly now: BootTime; readonly pace: Pace },
): Link {
  if (who === "candidate") return { ...link, candidateHeard: now };
  const last = link.canonicalHeard ?? link.since;
  const isUnbroken = now - last <= pace.unbroken;
  return { ...link, canonicalHeard: now, unbrokenSince: isUnbroken ? link.unbrokenSince : now };
}

/** All the time in which the candidate was not heard, the canonical agent was. */
function isAloneSilent(link: Link, readyAt: BootTime, { silentAfter }: Pace): boolean {
  const { candidateHeard = link.since, canonicalHeard = link.since, unbrokenSince } = link;
  return canonicalHeard - Math.max(candidateHeard, unbrokenSince, readyAt) >= silentAfter;
}

/** When both are silent, if nothing is heard until then. */
export function bothSilentAt({ link, life }: Probation): BootTime {
  const { candidateHeard = link.since, canonicalHeard = link.since } = link;
  return Math.max(candidateHeard, canonicalHeard) + paceOf(life.marker).silentAfter;
}

export function probationOverdue(
  state: In<"cutover-ready" | "observed">,
  _event: Of<"time">,
  { now }: Context,
): Outcome {
  const { marker, instance, resumes, readyAt } = state.life;
  const hold = (cause: "environment" | "no-commit", reason: string) =>
    stays({
      ...state,
      life: { phase: "held", marker, instance, resumes, readyAt, cause, reason },
    });
  const { commit_ms: limit } = marker.limits;
  if (now >= readyAt + limit) return hold("no-commit", `no commit came within ${limit} ms`);
  if (now < bothSilentAt(state)) return stays(state);
  return hold(
    "environment",
    `neither the candidate nor the canonical agent was heard for ${paceOf(marker).silentAfter} ms`,
  );
}

export function heldOverdue(state: In<"held">, _event: Of<"time">, context: Context): Outcome {
  const { marker, readyAt, reason } = state.life;
  if (context.now < readyAt + 2 * marker.limits.commit_ms) return stays(state);
  const told = `held until the deadline: ${reason}`;
  return abort(state, context, { reason: told, cause: "uncommitted" });
}
