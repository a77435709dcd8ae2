/** The life of a process, decided: every phase × every event, and what follows over time. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import {
  type Context,
  comingWaits,
  deadlineOf,
  type EventKind,
  initialState,
  instanceOf,
  type Phase,
  restartsAtOnceFrom,
  START_ANSWER_LIMIT,
  step,
  table,
} from "../../src/process/lifecycle.ts";
import { backoffWait, defaultBackoff } from "../../src/units/restarts.ts";

import { repositoryRoot } from "../support/binary.ts";
import { eventKinds, Life, makeEvents, makeSpecification } from "../support/lifecycle/life.ts";
import { observe } from "../support/lifecycle/mutants.ts";
import { lifeIn, phases } from "../support/lifecycle/phases.ts";
import { writeTableDocument } from "../support/lifecycle/table-document.ts";
import { scenarios } from "../support/lifecycle-scenarios.ts";

describe("scenarios", () => {
  for (const { name, run } of scenarios) test(name, () => run(step));

  test("each has a name of its own", () => {
    expect(new Set(scenarios.map(({ name }) => name)).size).toBe(scenarios.length);
  });
});

/**
 * What each event does a minute after its phase began: "-" nothing, "=" something within the
 * phase, else the phase that it leads to. Columns are the kinds of events in their order.
 */
const decisions: { readonly [P in Phase]: string } = {
  idle: "starting - starting - - - - - - - - - - - -",
  waiting: "- idle - starting - - - - - - - - - - -",
  starting: "- = - - running backing-off uncertain - - - - - - - uncertain",
  uncertain: "- = - - running - - running starting - - - - - -",
  running: "- stopping stopping - - - - - - ready - clearing = - stopping",
  ready: "- stopping stopping - - - - - - - stopping clearing = - -",
  stopping: "= - = - - - - - - - - clearing = - =",
  clearing: "= = = - - - - - - - - - - starting -",
  "backing-off": "starting idle starting - - - - - - - - - - - starting",
  finished: "starting idle starting - - - - - - - - - - - -",
  failed: "starting idle starting - = - - - - - - - - - -",
};

function decide(phase: Phase, kind: EventKind): string {
  const life = lifeIn[phase](step).pass(60_000);
  const event = makeEvents(life.invocation)[kind];
  const { specification } = life;
  const context = makeContext(life.now, { specification });
  const { state, effects } = step(life.state, event, context);
  if (Bun.deepEquals(state, life.state) && effects.length === 0) return "-";
  return state.phase === phase ? "=" : state.phase;
}

function makeContext(now: number, change: Partial<Context> = {}): Context {
  return {
    specification: makeSpecification(),
    now,
    random: 0.5,
    nextInvocation: "next",
    reachable: true,
    dependenciesReady: true,
    ...change,
  };
}

describe("every phase × every event", () => {
  for (const phase of phases) {
    test(phase, () => {
      expect(lifeIn[phase](step).state.phase).toBe(phase);
      expect(eventKinds.map((kind) => decide(phase, kind)).join(" ")).toBe(decisions[phase]);
    });
  }

  test("a cell that does nothing says why", () => {
    for (const phase of phases) {
      expect(Object.keys(table[phase])).toEqual(eventKinds);
      for (const cell of Object.values(table[phase])) {
        if (typeof cell === "object") expect(cell.ignored).toMatch(/^\w+( \S+)+$/);
      }
    }
  });

  test("the table for people is the table", async () => {
    const file = Bun.file(join(repositoryRoot, "src/process/lifecycle-table.md"));
    const written = writeTableDocument(observe());
    if (process.env["UPDATE_TABLES"] === "1") await file.write(written);
    expect(await file.text()).toBe(written);
  });
});

describe("waits", () => {
  const wait = (failures: number, random = 0.5) => backoffWait(defaultBackoff, failures, random);

  test("grow by the factor up to the cap, after one that is none", () => {
    const waits = Array.from({ length: 12 }, (_value, failures) => wait(failures));
    const expected = [0, 0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000];
    expect(waits).toEqual(expected);
  });

  test("vary by the jitter and by no more", () => {
    for (let failures = 2; failures < 20; failures += 1) {
      const plain = wait(failures);
      expect(wait(failures, 0)).toBeCloseTo(plain * 0.9, 6);
      expect(wait(failures, 1 - Number.EPSILON)).toBeLessThanOrEqual(Math.min(30_000, plain * 1.1));
      expect(wait(failures, 0.999)).toBeGreaterThan(plain * 0.999);
    }
  });

  test("stay numbers after any count of failures", () => {
    expect(wait(1_000_000)).toBe(30_000);
    for (const first of [0, 1]) {
      const backoff = { ...defaultBackoff, first, factor: 10 };
      expect(backoffWait(backoff, 5_000, 0.5)).toBe(first === 0 ? 0 : 30_000);
    }
    expect(backoffWait({ ...defaultBackoff, factor: 1 }, 5_000, 0.5)).toBe(100);
  });
});

describe("coming waits", () => {
  const waitsIn = (phase: Phase, change = {}, most = 5) => {
    const { state, specification, now } = lifeIn[phase](step, change);
    return comingWaits(state, specification, { now, most });
  };

  test("are those of further deaths, one after the other", () => {
    // It died once before: the next quick death is the second.
    expect(waitsIn("ready")).toEqual({ waits: [100, 200, 400, 800, 1_600], thenFails: false });
    expect(waitsIn("backing-off", {}, 3)).toEqual({ waits: [200, 400, 800], thenFails: false });
    const { waits } = waitsIn("ready", { backoff: "none" }, 2);
    expect(waits).toEqual([0, 0]);
  });

  test("there are none where nothing starts it by itself", () => {
    for (const phase of ["idle", "finished", "failed"] as const) {
      expect(waitsIn(phase)).toEqual({ waits: [], thenFails: false });
    }
    expect(waitsIn("stopping").waits).toEqual([]);
    const never = makeSpecification({ restart: "never" });
    const { state, now } = lifeIn.ready(step);
    expect(comingWaits(state, never, { now, most: 5 }).waits).toEqual([]);
  });

  test("end where the start limit does", () => {
    // Two starts so far, five in all: three waits. The window is left after 400 ms and more.
    const within = (time: number) => waitsIn("ready", { startLimit: { starts: 5, within: time } });
    expect(within(60_000)).toEqual({ waits: [100, 200, 400], thenFails: true });
    expect(within(700)).toEqual({ waits: [100, 200, 400, 800, 1_600], thenFails: false });
    const limited = waitsIn("backing-off", { startLimit: { starts: 4, within: 60_000 } });
    expect(limited).toEqual({ waits: [200], thenFails: true });
  });
});

describe("a restart that is certain before the end", () => {
  /** Milliseconds after the start of the instance that runs. */
  const fromIn = (phase: Phase, change = {}) => {
    const { state, specification } = lifeIn[phase](step, change);
    const from = restartsAtOnceFrom(state, specification);
    const { startedAt } = instanceOf(state) ?? { startedAt: 0 };
    return from === undefined ? undefined : from - startedAt;
  };

  test("is so while an instance runs that is wanted, and in no other phase", () => {
    const certain = phases.filter((phase) => fromIn(phase) !== undefined);
    expect(certain).toEqual(["running", "ready"]);
  });

  test("is that of the first instance from its start", () => {
    const life = new Life(step).start().arrives();
    expect(restartsAtOnceFrom(life.state, life.specification)).toBe(life.now);
  });

  test("comes with the run that makes up for the deaths before it", () => {
    expect(fromIn("ready")).toBe(defaultBackoff.resetAfter);
    expect(fromIn("ready", { backoff: { ...defaultBackoff, resetAfter: 700 } })).toBe(700);
    for (const none of [{ first: 0 }, { cap: 0 }]) {
      expect(fromIn("ready", { backoff: { ...defaultBackoff, ...none } })).toBe(0);
    }
    expect(fromIn("ready", { backoff: "none" })).toBe(0);
  });

  test("comes when the start limit has room", () => {
    const startLimit = (starts: number) => ({ startLimit: { starts, within: 20_000 } });
    // Two starts so far, 51 ms between them; the answer to the second came 1 ms after it.
    expect(fromIn("ready", { ...startLimit(3), backoff: "none" })).toBe(0);
    expect(fromIn("ready", { ...startLimit(2), backoff: "none" })).toBe(20_000 - 51);
    const shorter = { startLimit: { starts: 2, within: 5_000 } };
    expect(fromIn("ready", shorter)).toBe(defaultBackoff.resetAfter);
    const first = new Life(step, startLimit(1)).start().arrives();
    expect(restartsAtOnceFrom(first.state, first.specification)).toBe(first.now + 20_000);
    expect(fromIn("ready", startLimit(3))).toBe(defaultBackoff.resetAfter);
  });

  test("is none where the ending, an operator or the rule may say otherwise", () => {
    const { state } = lifeIn.ready(step);
    for (const restart of ["on-failure", "never"] as const) {
      expect(restartsAtOnceFrom(state, makeSpecification({ restart }))).toBeUndefined();
    }
    for (const event of [{ kind: "stop", hurry: false }, { kind: "restart" }] as const) {
      const { state: after } = step(state, event, makeContext(5_000));
      expect(restartsAtOnceFrom(after, makeSpecification())).toBeUndefined();
    }
  });
});

describe("deadlines and instances", () => {
  test("the phases that wait for time say until when", () => {
    const waiting = phases.filter((phase) => deadlineOf(lifeIn[phase](step).state) !== undefined);
    expect(waiting).toEqual(["starting", "running", "stopping", "backing-off"]);
    const started = step(initialState, { kind: "start" }, makeContext(70));
    expect(deadlineOf(started.state)).toBe(70 + START_ANSWER_LIMIT);
  });

  test("an ending that is awaited has a deadline", () => {
    const specification = makeSpecification({ restart: "on-failure" });
    const context = makeContext(70, { specification });
    let state = step(initialState, { kind: "start" }, context).state;
    const invocation = "next";
    state = step(state, { kind: "started", invocation, processId: 4 }, context).state;
    state = step(state, { kind: "died", invocation, ending: undefined }, context).state;
    expect(deadlineOf(state)).toBeUndefined();
    state = step(state, { kind: "cleared", invocation }, context).state;
    expect(deadlineOf(state)).toBe(5_070);
  });

  test("an instance is known from its arrival until all of it is gone", () => {
    const alive = phases.filter((phase) => instanceOf(lifeIn[phase](step).state) !== undefined);
    expect(alive).toEqual(["running", "ready", "stopping", "clearing"]);
  });
});
