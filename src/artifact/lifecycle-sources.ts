import type { Milliseconds, MonotonicTime } from "../units/units.ts";

/**
 * Which of several sources is asked next, and when. Pure: what a source did comes in as an event.
 * A server that asks for patience has not failed; one that is away is tried again for as long as
 * something still comes from it now and then.
 */

export const sourceLimits = {
  /** Failures in a row after which a source is asked no more. */
  failures: 10,
  /** Times that it gave what it should not have; the wire may have changed a byte once. */
  wrongs: 2,
  /** After the first failure; doubled with each one. */
  retryTime: 1_000 as Milliseconds,
  longestRetryTime: 60_000 as Milliseconds,
  /** Where a server asks for patience and does not say how long. */
  usualPatience: 30_000 as Milliseconds,
  /** Who asks for more is asked again after that. */
  longestPatience: 3_600_000 as Milliseconds,
} as const;

export type SourcePhase =
  | { readonly phase: "ready" }
  | { readonly phase: "waiting"; readonly until: MonotonicTime; readonly why: string }
  | { readonly phase: "out"; readonly why: string };

export type SourceState = SourcePhase & { readonly failures: number; readonly wrongs: number };

export type SourceEvent =
  /** Something new came, and was right. */
  | { readonly kind: "progressed" }
  | { readonly kind: "failed"; readonly why: string }
  | { readonly kind: "patience"; readonly wait: Milliseconds | null }
  /** It has not what is asked for, and never will have. */
  | { readonly kind: "absent"; readonly why: string }
  /** It gave other bytes. */
  | { readonly kind: "wrong"; readonly why: string };

export type NextSource =
  | { readonly kind: "ask"; readonly source: number }
  | { readonly kind: "wait"; readonly until: MonotonicTime; readonly why: string }
  | { readonly kind: "give-up"; readonly why: readonly string[] };

export const beginSources = (count: number): readonly SourceState[] =>
  Array.from({ length: count }, () => ({ phase: "ready", failures: 0, wrongs: 0 }));

/** The state of a source after it was asked. */
export function stepSource(
  state: SourceState,
  event: SourceEvent,
  now: MonotonicTime,
): SourceState {
  const { wrongs } = state;
  switch (event.kind) {
    case "progressed":
      return { phase: "ready", failures: 0, wrongs };
    case "absent":
      return { phase: "out", why: event.why, failures: state.failures, wrongs };
    case "patience": {
      const asked = event.wait ?? sourceLimits.usualPatience;
      const wait = Math.min(Math.max(asked, sourceLimits.retryTime), sourceLimits.longestPatience);
      const why = "the server asks for patience";
      return { phase: "waiting", until: now + wait, why, failures: state.failures, wrongs };
    }
    case "wrong": {
      const counts = { failures: state.failures, wrongs: wrongs + 1 };
      if (counts.wrongs >= sourceLimits.wrongs) return { phase: "out", why: event.why, ...counts };
      return { phase: "ready", ...counts };
    }
    case "failed": {
      const counts = { failures: state.failures + 1, wrongs };
      if (counts.failures >= sourceLimits.failures) {
        return { phase: "out", why: event.why, ...counts };
      }
      const wait = sourceLimits.retryTime * 2 ** state.failures;
      const until = now + Math.min(wait, sourceLimits.longestRetryTime);
      return { phase: "waiting", until, why: event.why, ...counts };
    }
  }
}

/** The first that is ready; else when the first one will be. */
export function nextSource(states: readonly SourceState[], now: MonotonicTime): NextSource {
  let soonest: { readonly until: MonotonicTime; readonly why: string } | undefined;
  for (const [source, state] of states.entries()) {
    if (state.phase === "out") continue;
    if (state.phase === "ready" || state.until <= now) return { kind: "ask", source };
    if (soonest === undefined || state.until < soonest.until) soonest = state;
  }
  if (soonest !== undefined) return { kind: "wait", until: soonest.until, why: soonest.why };
  return {
    kind: "give-up",
    why: states.map((state) => (state.phase === "out" ? state.why : "")),
  };
}

/**
 * How long to wait so that no more comes than the rate allows.
 * @param spent bytes that came since the begin
 * @param rate bytes a second; null for no limit
 */
export function waitForRate(options: {
  readonly spent: number;
  readonly since: MonotonicTime;
  readonly now: MonotonicTime;
  readonly rate: number | null;
}): Milliseconds {
  const { spent, since, now, rate } = options;
  if (rate === null) return 0;
  return Math.max(0, since + (spent / rate) * 1_000 - now);
}

/**
 * How long a server asks to be left alone: RFC 9110, section 10.2.3. A date counts from the
 * server's own: the device's clock may say anything.
 */
export function patienceOf(
  retryAfter: string | null,
  serverDate: string | null,
  parseDate: (text: string) => number,
): Milliseconds | null {
  if (retryAfter === null) return null;
  if (/^\d{1,9}$/.test(retryAfter)) return Number(retryAfter) * 1_000;
  const wait = parseDate(retryAfter) - parseDate(serverDate ?? "");
  return Number.isFinite(wait) ? Math.max(0, wait) : null;
}
