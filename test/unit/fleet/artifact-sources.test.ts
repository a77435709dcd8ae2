import { describe, expect, test } from "bun:test";
import {
  beginSources,
  nextSource,
  patienceOf,
  type SourceEvent,
  type SourceState,
  sourceLimits,
  stepSource,
  waitForRate,
} from "../../../src/artifact/lifecycle-sources.ts";

const [ready] = beginSources(1) as [SourceState];
const waiting: SourceState = { phase: "waiting", until: 50, why: "x", failures: 3, wrongs: 1 };

describe("a source", () => {
  test.each<[string, SourceState, SourceEvent, SourceState]>([
    [
      "that gives what is right has not failed",
      waiting,
      { kind: "progressed" },
      { phase: "ready", failures: 0, wrongs: 1 },
    ],
    [
      "that has not what is asked for is asked no more",
      ready,
      { kind: "absent", why: "404" },
      { phase: "out", why: "404", failures: 0, wrongs: 0 },
    ],
    [
      "that fails is asked again after a second",
      ready,
      { kind: "failed", why: "away" },
      { phase: "waiting", until: 1_100, why: "away", failures: 1, wrongs: 0 },
    ],
    [
      "that fails again is asked later each time",
      waiting,
      { kind: "failed", why: "away" },
      { phase: "waiting", until: 8_100, why: "away", failures: 4, wrongs: 1 },
    ],
    [
      "that fails too often is asked no more",
      { ...ready, failures: sourceLimits.failures - 1 },
      { kind: "failed", why: "away" },
      { phase: "out", why: "away", failures: sourceLimits.failures, wrongs: 0 },
    ],
    [
      "that gives other bytes is asked once more",
      ready,
      { kind: "wrong", why: "bytes" },
      { phase: "ready", failures: 0, wrongs: 1 },
    ],
    [
      "that gives other bytes again is asked no more",
      waiting,
      { kind: "wrong", why: "bytes" },
      { phase: "out", why: "bytes", failures: 3, wrongs: 2 },
    ],
    [
      "that asks for patience has not failed",
      { ...ready, failures: sourceLimits.failures - 1 },
      { kind: "patience", wait: 5_000 },
      {
        ...{ phase: "waiting", until: 5_100, why: "the server asks for patience" },
        ...{ failures: sourceLimits.failures - 1, wrongs: 0 },
      },
    ],
  ])("%s", (_what, state, event, next) => {
    expect(stepSource(state, event, 100)).toEqual(next);
  });

  test("is never waited for longer than a limit", () => {
    const untilOf = (state: SourceState) => (state.phase === "waiting" ? state.until : undefined);
    const long = stepSource(ready, { kind: "patience", wait: 1e12 }, 0);
    expect(untilOf(long)).toBe(sourceLimits.longestPatience);
    const unsaid = stepSource(ready, { kind: "patience", wait: null }, 0);
    expect(untilOf(unsaid)).toBe(sourceLimits.usualPatience);
    // A server that says 0 would otherwise be asked without end, and without a pause.
    const none = stepSource(ready, { kind: "patience", wait: 0 }, 0);
    expect(untilOf(none)).toBe(sourceLimits.retryTime);
    const failed = stepSource({ ...ready, failures: 8 }, { kind: "failed", why: "" }, 0);
    expect(untilOf(failed)).toBe(sourceLimits.longestRetryTime);
  });
});

describe("of several sources", () => {
  const out: SourceState = { phase: "out", why: "404", failures: 0, wrongs: 0 };

  test("the first that is ready is asked", () => {
    expect(nextSource([ready, ready], 0)).toEqual({ kind: "ask", source: 0 });
    expect(nextSource([out, waiting, ready], 0)).toEqual({ kind: "ask", source: 2 });
    expect(nextSource([waiting, ready], 50)).toEqual({ kind: "ask", source: 0 });
  });

  test("the one that is ready first is waited for", () => {
    const states: SourceState[] = [{ ...waiting, until: 90, why: "y" }, waiting, out];
    expect(nextSource(states, 10)).toEqual({ kind: "wait", until: 50, why: "x" });
  });

  test("none is left where all are out, and each says why", () => {
    expect(nextSource([out, { ...out, why: "gone" }], 0)).toEqual({
      ...{ kind: "give-up", why: ["404", "gone"] },
    });
    expect(nextSource([], 0)).toEqual({ kind: "give-up", why: [] });
  });
});

test("a rate is kept by waiting", () => {
  const of = (spent: number, now: number, rate: number | null) =>
    waitForRate({ spent, since: 1_000, now, rate });
  expect(of(10_000, 1_000, null)).toBe(0);
  expect(of(10_000, 1_000, 5_000)).toBe(2_000);
  expect(of(10_000, 2_500, 5_000)).toBe(500);
  expect(of(10_000, 9_000, 5_000)).toBe(0);
});

test.each<[string | null, string | null, number | null]>([
  [null, null, null],
  ["0", null, 0],
  ["120", null, 120_000],
  // The server's clock is a year off: what it says is a span all the same.
  ["Sun, 06 Nov 1994 08:49:47 GMT", "Sun, 06 Nov 1994 08:49:37 GMT", 10_000],
  ["Sun, 06 Nov 1994 08:49:27 GMT", "Sun, 06 Nov 1994 08:49:37 GMT", 0],
  ["Sun, 06 Nov 1994 08:49:47 GMT", null, null],
  ["soon", "Sun, 06 Nov 1994 08:49:37 GMT", null],
  ["-5", null, null],
  ["99999999999999999999", null, null],
])("Retry-After %j, with Date %j, is a wait of %p ms", (retryAfter, date, wait) => {
  expect(patienceOf(retryAfter, date, Date.parse)).toBe(wait);
});
