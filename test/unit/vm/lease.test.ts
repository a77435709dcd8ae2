/** The lease and the watchdog: every state with every event, and what must hold in all of them. */
import { describe, expect, test } from "bun:test";
import {
  ARM_AGAIN_AFTER,
  initialLease,
  isFresh,
  isHeard,
  type LeaseContext,
  type LeaseEvent,
  type LeaseState,
  leaseDeadline,
  mayRunFenced,
  reportedTimeout,
  stepLease,
  type WatchdogPhase,
} from "../../../src/vm/lifecycle-lease.ts";
import { masterLimits } from "../../../src/vm/protocol-master.ts";

const LEASE = masterLimits.leaseTime;
const NOW = 1_000_000;
const DEVICE = "/dev/watchdog";

const watchdogs: readonly WatchdogPhase[] = [
  { phase: "off", retryAt: undefined },
  { phase: "off", retryAt: NOW + 1 },
  { phase: "unheld", retryAt: 0, wasRefused: false },
  { phase: "unheld", retryAt: NOW + 1, wasRefused: true },
  { phase: "arming", isNew: true },
  { phase: "arming", isNew: false },
  { phase: "armed", timeout: 60_000, fedAt: NOW - 60_000, canStop: true, isEnding: false },
  { phase: "armed", timeout: 60_000, fedAt: NOW, canStop: true, isEnding: false },
  { phase: "armed", timeout: 60_000, fedAt: NOW - 60_000, canStop: true, isEnding: true },
];
const heards = [undefined, NOW - LEASE - 1, NOW - LEASE, NOW - 1];
const states: readonly LeaseState[] = watchdogs.flatMap((watchdog) =>
  heards.flatMap((heardAt) =>
    [undefined, DEVICE, "/dev/other"].map((wanted) => ({
      heardAt,
      leaseTime: LEASE,
      wanted,
      device: watchdog.phase === "off" ? undefined : DEVICE,
      watchdog,
    })),
  ),
);
const answered = (sentAt: number, saidNone: boolean): LeaseEvent => ({
  kind: "answered",
  sentAt,
  saidNone,
  leaseTime: LEASE,
});
const events: readonly LeaseEvent[] = [
  { kind: "begun", wanted: DEVICE, note: undefined },
  { kind: "begun", wanted: undefined, note: { heardAt: 5, leaseTime: LEASE, watchdog: DEVICE } },
  answered(NOW - 2, true),
  answered(NOW - 2, false),
  answered(NOW - LEASE - 5, true),
  { kind: "armed", timeout: 60_000, canStop: true },
  { kind: "arm-refused" },
  { kind: "feed-refused" },
  { kind: "ending" },
  { kind: "look" },
];
const contexts: readonly LeaseContext[] = [
  { now: NOW, isAtStake: true },
  { now: NOW, isAtStake: false },
];

describe("in every state, with every event", () => {
  const cells = states.flatMap((state) =>
    events.flatMap((event) =>
      contexts.map((context) => ({
        state,
        event,
        context,
        after: stepLease(state, event, context),
      })),
    ),
  );

  test("nothing at stake is fed, and no device opened, without a fresh lease", () => {
    for (const { context, after } of cells) {
      const feeds = after.effects.some(({ kind }) => kind === "feed" || kind === "arm");
      if (feeds && context.isAtStake) expect(isFresh(after.state, NOW)).toBe(true);
    }
  });

  test("a device of which no master was told is noted before it is opened", () => {
    for (const { state, after } of cells) {
      const kinds = after.effects.map(({ kind }) => kind);
      if (!kinds.includes("arm") || state.watchdog.phase !== "off") continue;
      expect(kinds.indexOf("note")).toBeLessThan(kinds.indexOf("arm"));
      expect(after.effects[0]).toMatchObject({ note: { watchdog: after.state.device } });
    }
  });

  test("it is disarmed after an answer to a report that said none, and noted after that", () => {
    let count = 0;
    for (const { state, event, after } of cells) {
      const kinds = after.effects.map(({ kind }) => kind);
      if (!kinds.includes("disarm")) continue;
      count += 1;
      expect(event).toMatchObject({ kind: "answered", saidNone: true });
      expect(state.watchdog).toMatchObject({ phase: "armed", isEnding: true });
      expect(kinds).toEqual(["disarm", "note"]);
      expect(after.state.watchdog.phase).toBe("off");
    }
    expect(count).toBeGreaterThan(0);
  });

  test("the time of what was heard never falls, but in another worker", () => {
    for (const { state, event, after } of cells) {
      if (event.kind === "begun") continue;
      expect(after.state.heardAt ?? 0).toBeGreaterThanOrEqual(state.heardAt ?? 0);
    }
  });

  test("what is due is due later: no timer runs around", () => {
    for (const { context, after } of cells) {
      const due = leaseDeadline(after.state, context);
      if (due !== undefined) expect(due).toBeGreaterThan(NOW);
    }
  });

  test("a look at the same time does nothing more", () => {
    for (const { event, context, after } of cells) {
      if (event.kind !== "look") continue;
      expect(stepLease(after.state, event, context).effects).toEqual([]);
    }
  });
});

/** Steps one after the other. */
function run(
  events_: readonly (LeaseEvent & { readonly now: number; readonly isAtStake?: boolean })[],
): { readonly state: LeaseState; readonly done: readonly string[] } {
  let state = initialLease;
  const done: string[] = [];
  for (const { now, isAtStake = false, ...event } of events_) {
    const after = stepLease(state, event as LeaseEvent, { now, isAtStake });
    state = after.state;
    done.push(...after.effects.map(({ kind }) => kind));
  }
  return { state, done };
}

type Note = (LeaseEvent & { kind: "begun" })["note"];
const begun = (note: Note) => ({ kind: "begun", wanted: DEVICE, note }) as const;
const begunWithout = (note: Note) => ({ kind: "begun", wanted: undefined, note }) as const;
const fresh = { heardAt: null, leaseTime: LEASE, watchdog: null };

test("a worker of which no master knows arms it when the master answers, and says so after", () => {
  const before = run([
    { ...begun(fresh), now: 0 },
    { kind: "look", now: 1 },
  ]);
  expect(before.done).toEqual([]);
  expect(mayRunFenced(before.state, 1)).toBe(true);
  expect(isHeard(before.state)).toBe(false);
  const heard = run([
    { ...begun(fresh), now: 0 },
    { ...answered(5, true), now: 6 },
  ]);
  expect(heard.done).toEqual(["note", "arm"]);
  expect(reportedTimeout(heard.state)).toBeNull();
  const armed = stepLease(
    heard.state,
    { kind: "armed", timeout: 60_000, canStop: true },
    { now: 7, isAtStake: false },
  );
  expect(reportedTimeout(armed.state)).toBe(60_000);
});

test("the lease counts from when the report was sent, however late its answer comes", () => {
  const { state } = run([
    { ...begun({ ...fresh, watchdog: DEVICE }), now: 0 },
    { ...answered(100, false), now: 20_000 },
  ]);
  expect(mayRunFenced(state, 100 + LEASE - 1)).toBe(true);
  expect(mayRunFenced(state, 100 + LEASE)).toBe(false);
});

test("a shorter lease is kept to, and a longer one is that of the wire", () => {
  const answer = { kind: "answered", sentAt: 100, saidNone: false, leaseTime: 2_000 } as const;
  const short = run([
    { ...begun({ ...fresh, watchdog: DEVICE }), now: 0 },
    { ...answer, now: 101 },
  ]);
  expect(mayRunFenced(short.state, 2_100)).toBe(false);
  const long = run([
    { ...begun({ ...fresh, watchdog: DEVICE }), now: 0 },
    { ...answer, leaseTime: 10 * LEASE, now: 101 },
  ]);
  expect(mayRunFenced(long.state, 100 + LEASE)).toBe(false);
});

test("one that was left is opened when the lease is fresh, or nothing is at stake", () => {
  const note = { heardAt: 0, leaseTime: LEASE, watchdog: DEVICE };
  const look = { kind: "look", now: LEASE + 1 } as const;
  expect(
    run([
      { ...begun(note), now: 5 },
      { ...look, isAtStake: true },
    ]).done,
  ).toEqual([]);
  expect(run([{ ...begun(note), now: 5 }, look]).done).toEqual(["arm"]);
  const soon = { kind: "look", now: 10, isAtStake: true } as const;
  expect(run([{ ...begun(note), now: 5 }, soon]).done).toEqual(["arm"]);
});

test("a file of this boot that is gone may have said anything", () => {
  const { state } = run([{ ...begun(undefined), now: 0 }]);
  expect(mayRunFenced(state, 0)).toBe(false);
  const none = run([{ ...begunWithout(undefined), now: 0 }]);
  expect(mayRunFenced(none.state, 0)).toBe(true);
});

test("one that the configuration does not name any more is fed until the master knows", () => {
  const note = { heardAt: 0, leaseTime: LEASE, watchdog: DEVICE };
  const { state, done } = run([
    { ...begunWithout(note), now: 1 },
    { kind: "look", now: 2, isAtStake: true },
    { kind: "armed", timeout: 6_000, canStop: true, now: 3, isAtStake: true },
    { kind: "look", now: 1_003, isAtStake: true },
    { ...answered(1_004, true), now: 1_005, isAtStake: true },
  ]);
  expect(done).toEqual(["arm", "feed", "disarm", "note"]);
  expect(state).toMatchObject({ device: undefined, watchdog: { phase: "off" } });
});

test("one that can never stop is fed to the end, and no report says that it does", () => {
  const { state, done } = run([
    { ...begun(fresh), now: 0 },
    { ...answered(5, true), now: 6 },
    { kind: "armed", timeout: 6_000, canStop: false, now: 7 },
    { kind: "ending", now: 8 },
    { ...answered(9, true), now: 10 },
    { kind: "look", now: 1_100 },
  ]);
  expect(done).toEqual(["note", "arm", "note", "feed"]);
  expect(reportedTimeout(state)).toBe(6_000);
});

test("a device that is refused is tried again, and nobody is told of it", () => {
  const { state, done } = run([
    { ...begun(fresh), now: 0 },
    { ...answered(5, true), now: 6 },
    { kind: "arm-refused", now: 7 },
    { kind: "look", now: 8 },
  ]);
  expect(done).toEqual(["note", "arm", "note"]);
  expect(reportedTimeout(state)).toBeNull();
  expect(leaseDeadline(state, { now: 8, isAtStake: false })).toBe(7 + ARM_AGAIN_AFTER);
  const again = stepLease(state, { kind: "look" }, { now: 7 + ARM_AGAIN_AFTER, isAtStake: false });
  expect(again.effects.map(({ kind }) => kind)).toEqual(["note", "arm"]);
});
