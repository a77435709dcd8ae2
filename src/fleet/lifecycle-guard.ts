import type { DecodedJournal, Journal, Life } from "./lifecycle-journal.ts";
import type { Links } from "./lifecycle-recovery.ts";
import { agentLimits, type BootTime } from "./lifecycle-state.ts";
import type { Build, EndingCause } from "./protocol.ts";
import { compareVersions } from "./protocol-version.ts";

/**
 * The boot guard: before each start of the canonical agent it decides which version may run. It
 * trusts neither the links, which somebody may have cut or changed, nor a version that is not
 * proven: that one it lets start so often, and then it goes back without it.
 */

export interface GuardGround {
  readonly journal: DecodedJournal;
  /** null where a link is not there, leads nowhere, or to no version. */
  readonly links: { readonly current: Build | null; readonly previous: Build | null };
  /** Digests of the versions on this disk whose file was just hashed, and is as its digest says. */
  readonly intact: ReadonlySet<string>;
  /** Versions from which every role of this host has answered once, linked or not. */
  readonly proven: readonly Build[];
  readonly boot: string;
  readonly now: BootTime;
}

export interface GuardDecision {
  /** null: nothing on this disk is intact, and may run. */
  readonly run: Build | null;
  /** Written before the links are changed; undefined: it is as it is to be. */
  readonly journal: Journal | undefined;
  /** `current` first; undefined: they lead where they are to lead. */
  readonly links: Links | undefined;
  /** Why it is not simply what `current` leads to; null when it is. */
  readonly reason: string | null;
}

type Unproven = Extract<Life, { phase: "swapped" | "canonical" }>;

export function guard(ground: GuardGround): GuardDecision {
  if (ground.journal.kind !== "ok") return runIntact(ground);
  const { journal } = ground.journal;
  const { life } = journal;
  switch (life.phase) {
    case "idle":
    case "done":
    case "aborted":
    case "rolled-back":
      return runIntact(ground);
    case "staging":
    case "verifying":
    case "cutover-ready":
    case "observed":
    case "held":
      return runUncommitted(ground, life.marker.build);
    case "commit-seen":
      return runCommitted(ground, journal, life);
    case "swapped":
    case "canonical":
      return runUnproven(ground, journal, life);
    case "reverting":
      return runFormer(ground, life);
  }
}

/**
 * What `current` leads to; where that is damaged, the first of all that is known and intact, and
 * where none of those is, the latest that was proven on this host.
 */
function runIntact(ground: GuardGround, journal?: Journal | undefined): GuardDecision {
  const { links, intact } = ground;
  const { current, previous } = links;
  const known = [current, ...knownOf(ground.journal), previous, ...provenOf(ground)];
  const usable = known.filter((one) => one !== null && intact.has(one.digest)) as Build[];
  const [run = null] = usable;
  if (run === null) {
    const reason =
      "no version on this disk is intact and was proven: install one by hostler fleet install";
    return { run, journal, links: undefined, reason };
  }
  if (run.digest === current?.digest) return { run, journal, links: undefined, reason: null };
  const reason = current === null ? "current leads nowhere" : `${current.version} is damaged`;
  // Who asks before the next start is the former version: a link to it is made where none leads.
  const other = usable.find(({ digest }) => digest !== run.digest) ?? null;
  const former = previous === null ? other : otherThan(run, previous);
  return { run, journal, links: { current: run, previous: former }, reason };
}

/**
 * Proven versions that may run without a link or a note that names them: the latest first, what
 * failed when it was last tried after all others. None below the floor, and none that is a
 * candidate: nobody has committed that one.
 */
function provenOf({ journal, proven }: GuardGround): readonly Build[] {
  if (journal.kind !== "ok") return proven.toSorted(laterFirst);
  const { floor, life } = journal.journal;
  const candidate = "marker" in life && !("from" in life) ? life.marker.build.digest : undefined;
  const failed = failedOf(life);
  return proven
    .filter(({ digest }) => digest !== candidate)
    .filter(({ version }) => floor === null || compareVersions(version, floor) >= 0)
    .toSorted(
      (one, other) =>
        Number(one.digest === failed) - Number(other.digest === failed) || laterFirst(one, other),
    );
}

function failedOf(life: Life): string | undefined {
  if (life.phase === "aborted" || life.phase === "rolled-back") return life.build.digest;
  return life.phase === "reverting" ? life.marker.build.digest : undefined;
}

/** Two files of one version are told apart by their digests, so that each start takes the same. */
const laterFirst = (one: Build, other: Build) =>
  compareVersions(other.version, one.version) || (one.digest < other.digest ? -1 : 1);

/** Versions that were canonical once, or are committed, in the order in which they are trusted. */
function knownOf(decoded: DecodedJournal): readonly (Build | null)[] {
  if (decoded.kind !== "ok") return [];
  const { current, previous, life } = decoded.journal;
  if (!("from" in life)) return [current, previous];
  return [life.from, life.marker.build, current, previous];
}

const otherThan = (run: Build, build: Build | null) =>
  build?.digest === run.digest ? null : build;

/** What nobody has committed does not run as long as there is another, whatever the link says. */
function runUncommitted(ground: GuardGround, candidate: Build): GuardDecision {
  const { current, previous } = ground.links;
  const links = {
    current: otherThan(candidate, current),
    previous: otherThan(candidate, previous),
  };
  const decision = runIntact({ ...ground, links });
  if (decision.run === null) return runIntact(ground);
  if (current?.digest !== candidate.digest) return decision;
  return { ...decision, reason: `${candidate.version} was not committed` };
}

function runCommitted(
  ground: GuardGround,
  journal: Journal,
  life: Extract<Life, { phase: "commit-seen" }>,
): GuardDecision {
  const { marker, from, before, lastWords } = life;
  if (ground.links.current?.digest !== marker.build.digest) {
    return runIntact(ground);
  }
  // The power went between the swap and its note.
  const { instance } = life;
  const until = ground.now + marker.limits.canonical_ms;
  const proving = { starts: 0, setbacks: 0, reason: null } as const;
  return runUnproven(ground, journal, {
    phase: "swapped",
    ...{ marker, instance, from, before, lastWords, until },
    ...proving,
  });
}

function runUnproven(ground: GuardGround, journal: Journal, life: Unproven): GuardDecision {
  const { marker, from } = life;
  const { links, intact } = ground;
  const { build } = marker;
  if (links.current?.digest === from.digest && intact.has(from.digest)) {
    const reason = "current was put back by somebody else";
    return revertTo(ground, journal, life, { reason, endingCause: "host" });
  }
  const starts = life.starts + 1;
  const isIntact = intact.has(build.digest);
  if (isIntact && starts <= agentLimits.starts) {
    return runNew(ground, journal, { ...life, starts });
  }
  const reason = isIntact
    ? `${build.version} was started ${agentLimits.starts} times, and was not proven`
    : `${build.version} is damaged`;
  if (intact.has(from.digest)) {
    const endingCause = isIntact ? "canonical" : "host";
    return revertTo(ground, journal, life, { reason, endingCause });
  }
  // The way back is damaged: what was committed is better than nothing.
  return runIntact(ground, isIntact ? written(ground, journal, { ...life, starts }) : undefined);
}

function runNew(ground: GuardGround, journal: Journal, life: Unproven): GuardDecision {
  const { build } = life.marker;
  const isLinked = ground.links.current?.digest === build.digest;
  return {
    run: build,
    journal: written(ground, journal, life),
    links: isLinked ? undefined : { current: build, previous: life.from },
    reason: isLinked ? null : "current led nowhere",
  };
}

function revertTo(
  ground: GuardGround,
  journal: Journal,
  life: Unproven,
  { reason, endingCause }: { readonly reason: string; readonly endingCause: EndingCause },
): GuardDecision {
  const { marker, instance, from, before, lastWords, starts, setbacks } = life;
  const reverting = {
    phase: "reverting",
    ...{ marker, instance, from, before, lastWords, starts, setbacks, reason },
    endingCause,
    stage: "restarting",
    until: ground.now + marker.limits.canonical_ms,
  } as const;
  return {
    run: from,
    journal: written(ground, journal, reverting),
    links: { current: from, previous: before },
    reason,
  };
}

function runFormer(
  ground: GuardGround,
  { from, before, reason }: Extract<Life, { phase: "reverting" }>,
): GuardDecision {
  const { links, intact } = ground;
  if (!intact.has(from.digest)) return runIntact(ground);
  const isLinked = links.current?.digest === from.digest;
  const put = isLinked ? undefined : { current: from, previous: before };
  return { run: from, journal: undefined, links: put, reason: isLinked ? null : reason };
}

/** In a later boot its moments begin anew, and no candidate is left. */
function written(
  { boot, now }: GuardGround,
  journal: Journal,
  life: Unproven | Extract<Life, { phase: "reverting" }>,
): Journal {
  const until = now + life.marker.limits.canonical_ms;
  const moved = boot === journal.boot ? life : { ...life, until, instance: null };
  return { ...journal, step: journal.step + 1, boot, life: moved };
}
