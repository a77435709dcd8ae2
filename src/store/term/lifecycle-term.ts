/**
 * Which of several processes of one role over one shared store acts. One entry says who; its holder
 * renews it, and acts only until a time that it counts itself, from before it asked for the last
 * renewal that was acknowledged. Whoever stands by takes it over when it has not changed for
 * longer, by a write that lands only where nothing was renewed meanwhile. So no two act at once,
 * however late an answer, a timer or a stopped process is. Pure.
 */

export const termLimits = {
  /** It acts for so long after it asked for the renewal that was acknowledged last. */
  term: 15_000,
  renewEvery: 5_000,
  /** Before a renewal whose fate is not known is tried again. */
  retryAfter: 1_000,
  /** Two clocks of 100 parts in a million differ by 3 ms in a term; this is for much worse ones. */
  margin: 3_000,
} as const;

/**
 * What a restored store goes on above, as the embedded one does: positions below it may have been
 * given, and nobody here has seen so.
 */
const RESTORE_JUMP = 2 ** 32;

/** The entry. */
export interface TermEntry {
  readonly version: 1;
  /** For people. */
  readonly holder: string;
  /** Of the process: 128 bits of chance. */
  readonly run: string;
  /** Rises with each holder. */
  readonly term: number;
  /** Of what is stored: new when the store was put back to an older state. */
  readonly incarnation: string;
  /** Added to each revision of the bucket, so that none comes again after that. */
  readonly jump: number;
  /** Its holder acts no more. */
  readonly isReleased: boolean;
}

export interface SeenTerm {
  readonly revision: number;
  readonly entry: TermEntry;
}

/** The furthest that this host has seen of the store. */
export interface TermWitness {
  /** Revision and jump together. */
  readonly position: number;
}

export type TermState =
  /** Nothing was read yet. */
  | { readonly phase: "looking" }
  /** @param since when it was seen first as it is; undefined as `seen`: there was never a holder */
  | { readonly phase: "watching"; readonly seen: SeenTerm | undefined; readonly since: number }
  | {
      readonly phase: "claiming";
      readonly seen: SeenTerm | undefined;
      readonly entry: TermEntry;
      readonly sentAt: number;
    }
  | {
      readonly phase: "acting";
      readonly held: SeenTerm;
      readonly until: number;
      readonly renewal: { readonly sentAt: number; readonly isRelease: boolean } | undefined;
      readonly nextAt: number;
    }
  /** For good: what this process knows may be another's by now. */
  | { readonly phase: "over" };

export type TermEvent =
  /** What the store has; undefined: nothing. */
  | { readonly kind: "seen"; readonly seen: SeenTerm | undefined }
  | { readonly kind: "written"; readonly revision: number }
  | { readonly kind: "refused"; readonly isConflict: boolean; readonly reason: string }
  /** What was told before does not hold: the store was put back, or was away for long. */
  | { readonly kind: "reset" }
  | { readonly kind: "release" }
  | { readonly kind: "time" };

export type TermEffect =
  /** @param expect the revision that the entry must have; 0: that there is none */
  | { readonly kind: "write"; readonly entry: TermEntry; readonly expect: number }
  | { readonly kind: "begin"; readonly held: SeenTerm }
  /** What was seen is to be remembered on this host. */
  | { readonly kind: "witness"; readonly witness: TermWitness }
  | { readonly kind: "end"; readonly reason: string };

export interface TermContext {
  /** On a clock that goes on while the host is suspended. */
  readonly now: number;
  readonly holder: string;
  readonly run: string;
  readonly witness: TermWitness | undefined;
  /** 128 bits of chance, should a new incarnation begin. */
  readonly chance: string;
}

export interface TermStep {
  readonly state: TermState;
  readonly effects: readonly TermEffect[];
  /** When to come with `time`, if nothing else does. */
  readonly wakeAt: number | undefined;
}

export function stepTerm(state: TermState, event: TermEvent, context: TermContext): TermStep {
  switch (state.phase) {
    case "looking":
      return event.kind === "seen" ? watch(event.seen, context) : stay(state);
    case "watching":
      return stepWatching(state, event, context);
    case "claiming":
      return stepClaiming(state, event, context);
    case "acting":
      return stepActing(state, event, context);
    case "over":
      // Its process ends, and another one begins anew.
      return stay(state);
  }
}

type Watching = Extract<TermState, { phase: "watching" }>;
type Claiming = Extract<TermState, { phase: "claiming" }>;
type Acting = Extract<TermState, { phase: "acting" }>;

function stepWatching(state: Watching, event: TermEvent, context: TermContext): TermStep {
  switch (event.kind) {
    case "seen":
      return event.seen?.revision === state.seen?.revision
        ? judge(state, context)
        : watch(event.seen, context);
    case "reset":
      return { state: { phase: "looking" }, effects: [], wakeAt: undefined };
    case "time":
    // Of a claim that was given up.
    case "written":
    case "refused":
      return judge(state, context);
    case "release":
      return stay({ phase: "over" });
  }
}

/** From now on it is as it was seen. */
function watch(seen: SeenTerm | undefined, context: TermContext): TermStep {
  const found = judge({ phase: "watching", seen, since: context.now }, context);
  const witness = witnessOf(seen);
  if (witness === undefined || isBehind(seen, context.witness)) return found;
  return { ...found, effects: [{ kind: "witness", witness }, ...found.effects] };
}

/** When whoever was seen first at `since`, and never again, acts no more, whatever its clock. */
const freeFrom = (since: number) => since + termLimits.term + termLimits.margin;

/** Whether it may be taken over, and until when it is waited for else. */
function judge(state: Watching, context: TermContext): TermStep {
  const { seen, since } = state;
  const freeAt = freeFrom(since);
  const isFree = seen === undefined || seen.entry.isReleased || context.now >= freeAt;
  if (!isFree) return { state, effects: [], wakeAt: freeAt };
  const entry = nextEntry(seen, context);
  return {
    state: { phase: "claiming", seen, entry, sentAt: context.now },
    effects: [{ kind: "write", entry, expect: seen?.revision ?? 0 }],
    wakeAt: undefined,
  };
}

function nextEntry(seen: SeenTerm | undefined, context: TermContext): TermEntry {
  const { holder, run, witness, chance } = context;
  const own = { version: 1, holder, run, isReleased: false } as const;
  const term = (seen?.entry.term ?? 0) + 1;
  if (witness !== undefined && isBehind(seen, witness)) {
    const jump = witness.position + RESTORE_JUMP;
    return { ...own, term, incarnation: chance, jump };
  }
  const { incarnation = chance, jump = 0 } = seen?.entry ?? {};
  return { ...own, term, incarnation, jump };
}

/** Whether this host has seen more than the store has: then the store was put back. */
function isBehind(seen: SeenTerm | undefined, witness: TermWitness | undefined): boolean {
  return witness !== undefined && positionOf(seen) < witness.position;
}

const positionOf = (seen: SeenTerm | undefined) =>
  seen === undefined ? 0 : seen.revision + seen.entry.jump;

function witnessOf(seen: SeenTerm | undefined): TermWitness | undefined {
  return seen === undefined ? undefined : { position: positionOf(seen) };
}

function stepClaiming(state: Claiming, event: TermEvent, context: TermContext): TermStep {
  switch (event.kind) {
    case "written": {
      const held = { revision: event.revision, entry: state.entry };
      const until = state.sentAt + termLimits.term;
      // Its time is over before it was told: as if another had it.
      if (context.now >= until) return watch(held, context);
      return act(held, { until, nextAt: state.sentAt + termLimits.renewEvery }, [
        { kind: "begin", held },
      ]);
    }
    case "refused": {
      // A claim whose fate is not known may be there: what is there counts from now.
      const { seen } = state;
      const since = context.now;
      return { state: { phase: "watching", seen, since }, effects: [], wakeAt: freeFrom(since) };
    }
    case "seen":
      // Its own, before the answer, or another's, which the answer tells as a conflict.
      return stay({ ...state, seen: event.seen });
    case "reset":
    case "time":
      return stay(state);
    case "release":
      return stay({ phase: "over" });
  }
}

function stepActing(state: Acting, event: TermEvent, context: TermContext): TermStep {
  switch (event.kind) {
    case "time":
      return renewOrEnd(state, context);
    case "written":
      return renewed(state, event.revision, context);
    case "refused": {
      if (event.isConflict) return end("another has taken over");
      if (state.renewal?.isRelease === true) return stay({ phase: "over" });
      const nextAt = context.now + termLimits.retryAfter;
      return renewOrEnd({ ...state, renewal: undefined, nextAt }, context);
    }
    case "seen": {
      const { seen } = event;
      // Its own, or one that it has followed already.
      const isOld = seen !== undefined && seen.revision <= state.held.revision;
      if (isOld || seen?.entry.run === context.run) return stayActing(state);
      return end(`${seen?.entry.holder ?? "nobody"} has taken over`);
    }
    case "reset":
      return end("the store was put back, or was away for too long");
    case "release": {
      if (context.now >= state.until) return stay({ phase: "over" });
      const entry = { ...state.held.entry, isReleased: true };
      const renewal = { sentAt: context.now, isRelease: true };
      return {
        state: { ...state, renewal },
        effects: [{ kind: "write", entry, expect: state.held.revision }],
        wakeAt: undefined,
      };
    }
  }
}

function renewed(state: Acting, revision: number, context: TermContext): TermStep {
  const { renewal } = state;
  if (renewal === undefined) return stayActing(state);
  if (renewal.isRelease) return stay({ phase: "over" });
  const until = renewal.sentAt + termLimits.term;
  if (context.now >= until) return end(tooLate);
  const held = { revision, entry: state.held.entry };
  return act(held, { until, nextAt: renewal.sentAt + termLimits.renewEvery }, []);
}

const tooLate =
  "its term could not be renewed in time: the store was away, or this host stood still";

function renewOrEnd(state: Acting, { now }: TermContext): TermStep {
  if (now >= state.until) return end(tooLate);
  if (state.renewal !== undefined || now < state.nextAt) return stayActing(state);
  return {
    state: { ...state, renewal: { sentAt: now, isRelease: false } },
    effects: [{ kind: "write", entry: state.held.entry, expect: state.held.revision }],
    wakeAt: state.until,
  };
}

function act(
  held: SeenTerm,
  times: { readonly until: number; readonly nextAt: number },
  effects: readonly TermEffect[],
): TermStep {
  const witness = witnessOf(held);
  return {
    ...stayActing({ phase: "acting", held, renewal: undefined, ...times }),
    // On the disk of this host before anything is done by it.
    effects: [
      ...(witness === undefined ? [] : [{ kind: "witness", witness } as const]),
      ...effects,
    ],
  };
}

function stayActing(state: Acting): TermStep {
  const wakeAt = state.renewal === undefined ? Math.min(state.nextAt, state.until) : state.until;
  return { state, effects: [], wakeAt };
}

function end(reason: string): TermStep {
  return { state: { phase: "over" }, effects: [{ kind: "end", reason }], wakeAt: undefined };
}

function stay(state: TermState): TermStep {
  return { state, effects: [], wakeAt: undefined };
}

/** Whether whoever holds this may decide, answer and write now. */
export function isActing(state: TermState, now: number): boolean {
  return state.phase === "acting" && now < state.until && state.renewal?.isRelease !== true;
}

/** Who acts, for whoever asks another one; undefined when that is not known. */
export function holderOf(state: TermState): string | undefined {
  if (state.phase !== "watching" && state.phase !== "claiming") return undefined;
  return state.seen?.entry.isReleased === false ? state.seen.entry.holder : undefined;
}
