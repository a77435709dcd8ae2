import { type Backoff, backoffWait } from "../units/restarts.ts";
import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import { masterLimits } from "./protocol-master.ts";

/**
 * The way to the master: a session, in which a question for the assignment always waits, and
 * reports go out one after the other. Pure.
 */

/** Going over one is a wait, never a loss: what is reported is how it is then. */
export const linkLimits = {
  /** Between two reports, however much happens. */
  leastBetweenReports: 500,
  /** In which a session must be open, and a report answered. */
  answerTime: 10_000,
  /** For which a question for the assignment waits. */
  questionTime: masterLimits.longestWait,
  /** A question that is answered at once, again and again, is not asked more often. */
  leastBetweenQuestions: 200,
} as const;

/**
 * Waits between attempts; a report that was heard begins them anew. With `answerTime` before it the
 * longest is shorter than what a master waits at least before a worker is lost (`leastLostAfter`):
 * one that was cut off, and is there again, speaks before anybody cuts its power.
 */
export const linkBackoff: Backoff = {
  first: 500,
  factor: 2,
  cap: 5_000,
  jitter: 0.2,
  resetAfter: 0,
};

interface Trying {
  /** Failures in a row. */
  readonly failures: number;
  /** Of the last one; undefined before the first. */
  readonly reason: string | undefined;
  /** Since when there is no session. */
  readonly since: MonotonicTime;
}

export interface OpenLink {
  readonly phase: "open";
  readonly since: MonotonicTime;
  readonly failures: number;
  /** undefined while a question waits for its answer. */
  readonly askAt: MonotonicTime | undefined;
  readonly askedAt: MonotonicTime;
  readonly report:
    | { readonly kind: "due"; readonly at: MonotonicTime }
    /** again: something has happened since it was sent. */
    | { readonly kind: "sent"; readonly again: boolean };
  readonly sentAt: MonotonicTime;
}

export type LinkState =
  | { readonly phase: "closed" }
  | ({ readonly phase: "waiting"; readonly until: MonotonicTime } & Trying)
  | ({ readonly phase: "opening" } & Trying)
  | OpenLink;

export type LinkEvent =
  | { readonly kind: "begin" | "opened" | "assigned" | "reported" | "changed" | "deadline" | "end" }
  /** The session was refused, or anything in it failed. */
  | { readonly kind: "broken"; readonly reason: string };

export type LinkEffect =
  | { readonly kind: "open" | "ask" | "report" | "close" }
  /** It is told once for each reason in a row. */
  | { readonly kind: "say"; readonly level: "info" | "warn"; readonly message: string };

export interface LinkOutcome {
  readonly state: LinkState;
  readonly effects: readonly LinkEffect[];
}

export interface LinkContext {
  readonly now: MonotonicTime;
  /** 0 to 1 */
  readonly random: number;
  readonly reportEvery: Milliseconds;
}

export function linkDeadline(state: LinkState): MonotonicTime | undefined {
  if (state.phase === "waiting") return state.until;
  if (state.phase !== "open") return undefined;
  const report = state.report.kind === "due" ? state.report.at : Number.POSITIVE_INFINITY;
  const next = Math.min(report, state.askAt ?? Number.POSITIVE_INFINITY);
  return next === Number.POSITIVE_INFINITY ? undefined : next;
}

const stay = (state: LinkState): LinkOutcome => ({ state, effects: [] });

export function stepLink(state: LinkState, event: LinkEvent, context: LinkContext): LinkOutcome {
  if (event.kind === "end") {
    return { state: { phase: "closed" }, effects: [{ kind: "close" }] };
  }
  if (event.kind === "broken") return fail(state, event.reason, context);
  switch (state.phase) {
    case "closed":
      return event.kind === "begin" ? begin(context.now) : stay(state);
    case "waiting":
      return event.kind === "deadline" && context.now >= state.until ? again(state) : stay(state);
    case "opening":
      return event.kind === "opened" ? open(state, context.now) : stay(state);
    case "open":
      return during(state, event, context);
  }
}

function begin(now: MonotonicTime): LinkOutcome {
  const opening = { phase: "opening", failures: 0, reason: undefined, since: now } as const;
  return { state: opening, effects: [{ kind: "open" }] };
}

function again({ failures, reason, since }: Trying): LinkOutcome {
  return {
    state: { phase: "opening", failures, reason, since },
    effects: [{ kind: "open" }],
  };
}

function open({ failures }: Trying, now: MonotonicTime): LinkOutcome {
  const report = { kind: "sent", again: false } as const;
  const state: LinkState = {
    phase: "open",
    since: now,
    failures,
    askAt: undefined,
    askedAt: now,
    report,
    sentAt: now,
  };
  return { state, effects: [{ kind: "report" }, { kind: "ask" }] };
}

function during(state: OpenLink, event: LinkEvent, { now, reportEvery }: LinkContext): LinkOutcome {
  switch (event.kind) {
    case "changed": {
      if (state.report.kind === "sent") {
        return stay({ ...state, report: { kind: "sent", again: true } });
      }
      const soon = Math.max(now, state.sentAt + linkLimits.leastBetweenReports);
      return stay({ ...state, report: { kind: "due", at: Math.min(state.report.at, soon) } });
    }
    case "reported": {
      if (state.report.kind !== "sent") return stay(state);
      const wait = state.report.again ? linkLimits.leastBetweenReports : reportEvery;
      const at = Math.max(now, state.sentAt + wait);
      const first = state.failures > 0 ? [connected] : [];
      return { state: { ...state, failures: 0, report: { kind: "due", at } }, effects: first };
    }
    case "assigned":
      return stay({
        ...state,
        askAt: Math.max(now, state.askedAt + linkLimits.leastBetweenQuestions),
      });
    case "deadline":
      return goOn(state, now);
    default:
      return stay(state);
  }
}

const connected: LinkEffect = { kind: "say", level: "info", message: "the master answers again" };

function goOn(state: OpenLink, now: MonotonicTime): LinkOutcome {
  let next = state;
  const effects: LinkEffect[] = [];
  if (next.report.kind === "due" && now >= next.report.at) {
    next = { ...next, report: { kind: "sent", again: false }, sentAt: now };
    effects.push({ kind: "report" });
  }
  if (next.askAt !== undefined && now >= next.askAt) {
    next = { ...next, askAt: undefined, askedAt: now };
    effects.push({ kind: "ask" });
  }
  return { state: next, effects };
}

/** One failure ends the session: whatever else is under way in it is given up. */
function fail(state: LinkState, reason: string, { now, random }: LinkContext): LinkOutcome {
  if (state.phase === "closed" || state.phase === "waiting") return stay(state);
  const failures = state.failures + 1;
  // The first one waits as well: a master that is started anew has all of its workers at once.
  const until = now + backoffWait(linkBackoff, failures + 1, random);
  const last = state.phase === "opening" ? state : { reason: undefined, since: now };
  const waiting = { phase: "waiting", until, failures, reason, since: last.since } as const;
  const told = last.reason === reason ? [] : [say(reason)];
  return { state: waiting, effects: [{ kind: "close" }, ...told] };
}

const say = (reason: string): LinkEffect => ({
  kind: "say",
  level: "warn",
  message: `the master is not reached, and machines go on as assigned last: ${reason}`,
});
