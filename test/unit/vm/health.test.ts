/** Whether a machine is healthy: every state with every event, and stories of many steps. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import {
  type HealthEffect,
  type HealthEvent,
  type HealthPlan,
  type HealthState,
  type HealthTurn,
  initialHealth,
  stepHealth,
} from "../../../src/vm/health.ts";
import {
  healthCheckSchema,
  healthLimits,
  healthPlanOf,
  healthSchema,
} from "../../../src/vm/health-configuration.ts";
import { LONGEST_PATTERN, matchesPattern } from "../../../src/vm/health-pattern.ts";
import { SeededChance } from "../../support/chance.ts";

const plan: HealthPlan = {
  check: { kind: "agent" },
  ...{ interval: 10_000, timeout: 2_000, unhealthyAfter: 3, healthyAfter: 2, grace: 60_000 },
  ...{ onUnhealthy: "tell", stopGrace: 10_000 },
};

const asking = { kind: "asking", since: 1_000, number: 5 } as const;
const waiting = { kind: "waiting", until: 11_000, next: 6 } as const;
const reason = "refused";

const states = {
  resting: { phase: "resting", next: 5 },
  "starting, asking": {
    ...{ phase: "starting", graceUntil: 0, successes: 1, failures: 1, probing: asking },
  },
  "starting in grace, asking": {
    ...{ phase: "starting", graceUntil: 50_000, successes: 0, failures: 0, probing: asking },
  },
  "starting, waiting": {
    ...{ phase: "starting", graceUntil: 0, successes: 1, failures: 1, probing: waiting },
  },
  "healthy, asking": { phase: "healthy", failures: 1, probing: asking },
  "healthy at its last failure, asking": { phase: "healthy", failures: 2, probing: asking },
  "healthy, waiting": { phase: "healthy", failures: 1, probing: waiting },
  "unhealthy, asking": { phase: "unhealthy", successes: 1, reason, probing: asking },
  "unhealthy, waiting": { phase: "unhealthy", successes: 1, reason, probing: waiting },
} as const satisfies Readonly<Record<string, HealthState>>;

const failed = { kind: "failed", reason: "new" } as const;
const events = {
  booted: { kind: "running", booted: true },
  adopted: { kind: "running", booted: false },
  stopped: { kind: "stopped" },
  "time, early": { kind: "time" },
  "time, late": { kind: "time" },
  passed: { kind: "answered", number: 5, outcome: { kind: "passed" } },
  failed: { kind: "answered", number: 5, outcome: failed },
  "passed, of another probe": { kind: "answered", number: 4, outcome: { kind: "passed" } },
  unknown: { kind: "answered", number: 5, outcome: { kind: "unknown", reason: "no agent" } },
} as const satisfies Readonly<Record<string, HealthEvent>>;

type StateName = keyof typeof states;
type EventName = keyof typeof events;

/** What is told of a step: the phase, how the next probe stands, and the effects. */
function told(name: StateName, event: EventName): string {
  const now = event === "time, late" ? 20_000 : 1_500;
  const { state, effects } = stepHealth(plan, states[name], events[event], now);
  if (state === states[name] && effects.length === 0) return "unchanged";
  const counts = state.phase === "resting" ? `next ${state.next}` : countsOf(state);
  return [`${state.phase} ${counts}`, ...effects.map(wordsOf)].join("; ");
}

function countsOf(state: Exclude<HealthState, { phase: "resting" }>): string {
  const { probing } = state;
  const good = "successes" in state ? ` +${state.successes}` : "";
  const bad = "failures" in state ? ` -${state.failures}` : "";
  const probe =
    probing.kind === "asking" ? `asking ${probing.number}` : `waiting until ${probing.until}`;
  return `${probe}${good}${bad}`;
}

function wordsOf(effect: HealthEffect): string {
  switch (effect.kind) {
    case "probe":
    case "abandon":
      return `${effect.kind} ${effect.number}`;
    case "wake":
      return `wake ${effect.at}`;
    case "turned":
      return `turned ${effect.turn.to}`;
  }
}

const none = "unchanged";
const rested = "resting next 6; abandon 5";
const anew = "starting asking 6 +0 -0";
const bootedAsking = `${anew}; abandon 5; probe 6; wake 3500`;
const bootedWaiting = `${anew}; probe 6; wake 3500`;
const asksNow = "probe 6; wake 22000";

/** Every state with every event. */
const cells: Readonly<Record<StateName, Readonly<Record<EventName, string>>>> = {
  resting: {
    booted: "starting asking 5 +0 -0; probe 5; wake 3500",
    adopted: "starting asking 5 +0 -0; probe 5; wake 3500",
    ...{ stopped: none, "time, early": none, "time, late": none },
    ...{ passed: none, failed: none, "passed, of another probe": none },
    unknown: none,
  },
  "starting, asking": {
    ...{ booted: bootedAsking, adopted: none, stopped: rested, "time, early": none },
    "time, late": "starting waiting until 20000 +0 -2; abandon 5; wake 20000",
    passed: "healthy waiting until 11000 -0; turned healthy; wake 11000",
    failed: "starting waiting until 11000 +0 -2; wake 11000",
    "passed, of another probe": none,
    unknown: "starting waiting until 11000 +1 -1; wake 11000",
  },
  "starting in grace, asking": {
    ...{ booted: bootedAsking, adopted: none, stopped: rested, "time, early": none },
    "time, late": "starting waiting until 20000 +0 -0; abandon 5; wake 20000",
    passed: "starting waiting until 11000 +1 -0; wake 11000",
    failed: "starting waiting until 11000 +0 -0; wake 11000",
    "passed, of another probe": none,
    unknown: "starting waiting until 11000 +0 -0; wake 11000",
  },
  "starting, waiting": {
    ...{ booted: bootedWaiting, adopted: none, stopped: "resting next 6", "time, early": none },
    "time, late": `starting asking 6 +1 -1; ${asksNow}`,
    ...{ passed: none, failed: none, "passed, of another probe": none },
    unknown: none,
  },
  "healthy, asking": {
    ...{ booted: bootedAsking, adopted: none, stopped: rested, "time, early": none },
    "time, late": "healthy waiting until 20000 -2; abandon 5; wake 20000",
    passed: "healthy waiting until 11000 -0; wake 11000",
    failed: "healthy waiting until 11000 -2; wake 11000",
    "passed, of another probe": none,
    unknown: "healthy waiting until 11000 -1; wake 11000",
  },
  "healthy at its last failure, asking": {
    ...{ booted: bootedAsking, adopted: none, stopped: rested, "time, early": none },
    "time, late": "unhealthy waiting until 20000 +0; abandon 5; turned unhealthy; wake 20000",
    passed: "healthy waiting until 11000 -0; wake 11000",
    failed: "unhealthy waiting until 11000 +0; turned unhealthy; wake 11000",
    "passed, of another probe": none,
    unknown: "healthy waiting until 11000 -2; wake 11000",
  },
  "healthy, waiting": {
    ...{ booted: bootedWaiting, adopted: none, stopped: "resting next 6", "time, early": none },
    "time, late": `healthy asking 6 -1; ${asksNow}`,
    ...{ passed: none, failed: none, "passed, of another probe": none },
    unknown: none,
  },
  "unhealthy, asking": {
    ...{ booted: bootedAsking, adopted: none, stopped: rested, "time, early": none },
    "time, late": "unhealthy waiting until 20000 +0; abandon 5; wake 20000",
    passed: "healthy waiting until 11000 -0; turned healthy; wake 11000",
    failed: "unhealthy waiting until 11000 +0; wake 11000",
    "passed, of another probe": none,
    unknown: "unhealthy waiting until 11000 +1; wake 11000",
  },
  "unhealthy, waiting": {
    ...{ booted: bootedWaiting, adopted: none, stopped: "resting next 6", "time, early": none },
    "time, late": `unhealthy asking 6 +1; ${asksNow}`,
    ...{ passed: none, failed: none, "passed, of another probe": none },
    unknown: none,
  },
};

describe("cells", () => {
  for (const state of Object.keys(states) as StateName[]) {
    for (const event of Object.keys(events) as EventName[]) {
      test(`${state}: ${event}`, () => expect(told(state, event)).toBe(cells[state][event]));
    }
  }
});

/** A world in which every wish to be woken is fulfilled, and the probe answers as it is told. */
function story(
  chosen: HealthPlan,
  answer: (time: number) => "passed" | "failed" | "silent",
  until: number,
): { readonly turns: readonly string[]; readonly probes: readonly number[] } {
  let step = stepHealth(chosen, initialHealth, { kind: "running", booted: true }, 0);
  const turns: string[] = [];
  const probes: number[] = [];
  let wake = Number.POSITIVE_INFINITY;
  for (let time = 0; time <= until; ) {
    const asked: HealthEvent[] = [];
    for (const effect of step.effects) {
      if (effect.kind === "wake") wake = effect.at;
      if (effect.kind === "turned") turns.push(`${time} ${turnOf(effect.turn)}`);
      if (effect.kind !== "probe") continue;
      probes.push(time);
      const said = answer(time);
      const outcome = said === "passed" ? { kind: said } : ({ kind: "failed", reason } as const);
      if (said !== "silent") asked.push({ kind: "answered", number: effect.number, outcome });
    }
    const [event] = asked;
    if (event === undefined) time = wake;
    step = stepHealth(chosen, step.state, event ?? { kind: "time" }, time);
  }
  return { turns, probes };
}

const turnOf = (turn: HealthTurn) =>
  turn.to === "healthy" ? turn.to : `${turn.to} after ${turn.failures}: ${turn.reason}`;

describe("stories", () => {
  test("a machine that is never well is unhealthy after its grace and so many failures", () => {
    expect(story(plan, () => "failed", 100_000).turns).toEqual([
      "80000 unhealthy after 3: refused",
    ]);
  });

  test("one that never answers is asked on, and is unhealthy", () => {
    const { turns, probes } = story(plan, () => "silent", 100_000);
    expect(turns).toEqual(["82000 unhealthy after 3: no answer within 2000 ms"]);
    expect(probes.slice(0, 3)).toEqual([0, 10_000, 20_000]);
  });

  test("one that falls ill and gets well again turns each time, and only then", () => {
    const answer = (time: number) => (time > 100_000 && time < 200_000 ? "failed" : "passed");
    expect(story(plan, answer, 300_000).turns).toEqual([
      "10000 healthy",
      "130000 unhealthy after 3: refused",
      "210000 healthy",
    ]);
  });

  test("failures that are not in a row make nobody unhealthy", () => {
    const answer = (time: number) => ((time / 10_000) % 3 === 0 ? "passed" : "failed");
    expect(story({ ...plan, healthyAfter: 1 }, answer, 500_000).turns).toEqual(["0 healthy"]);
  });

  test("a timeout longer than the interval never has two probes under way", () => {
    const slow = { ...plan, interval: 1_000, timeout: 5_000 };
    expect(story(slow, () => "silent", 20_000).probes).toEqual([0, 5_000, 10_000, 15_000, 20_000]);
  });

  test("from a seed: numbers never come again, and a turn is always another one", () => {
    const seed = Number(process.env["HOSTLER_TEST_SEED"] ?? 20_261_128);
    const chance = new SeededChance(seed);
    let state: HealthState = initialHealth;
    const numbers: number[] = [];
    let last: string | undefined;
    for (let now = 0; now < 5_000_000; now += chance.below(4_000)) {
      const outcome = chance.happens(0.5) ? ({ kind: "passed" } as const) : failed;
      const number = (numbers.at(-1) ?? 1) - chance.below(2);
      const event = chance.pick<HealthEvent>([
        ...[{ kind: "time" } as const, { kind: "answered", number, outcome } as const],
        ...(chance.happens(0.1) ? [{ kind: "stopped" } as const] : []),
        ...(chance.happens(0.2) ? [{ kind: "running", booted: chance.happens(0.5) } as const] : []),
      ]);
      const step = stepHealth(plan, state, event, now);
      if (event.kind === "running" && event.booted) last = undefined;
      if (event.kind === "stopped") last = undefined;
      for (const effect of step.effects) {
        if (effect.kind === "probe") numbers.push(effect.number);
        if (effect.kind !== "turned") continue;
        expect(effect.turn.to, `seed ${seed}`).not.toBe(last as string);
        last = effect.turn.to;
      }
      state = step.state;
    }
    expect(numbers).toEqual([...new Set(numbers)].toSorted((a, b) => a - b));
    expect(numbers.length).toBeGreaterThan(100);
  });
});

describe("patterns", () => {
  test.each([
    ["ready", "is ready now", true],
    ["ready", "is rady now", false],
    ["a*c", "xxabbbcxx", true],
    ["a*c", "c then a", false],
    ["*", "", true],
    ["a*a", "a", false],
    [".*", "anything", false],
    ["(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", false],
  ])("%s in %s: %p", (pattern, text, matches) => {
    expect(matchesPattern(pattern, text)).toBe(matches);
  });
});

describe("configurations", () => {
  const read = (value: unknown) =>
    v.safeParse(v.pipe(healthCheckSchema, v.transform(healthPlanOf)), value);

  test("have defaults for all but the kind and what only the kind needs", () => {
    expect(read({ kind: "http" }).output).toEqual({
      check: {
        ...{ kind: "http", port: 80, path: "/", body: undefined },
        status: { least: 200, most: 399 },
      },
      ...{ interval: 10_000, timeout: 2_000, grace: 60_000, unhealthyAfter: 3, healthyAfter: 1 },
      ...{ onUnhealthy: "tell", stopGrace: 10_000 },
    });
    expect(read({ kind: "tcp", port: 22, grace: "0ms" }).success).toBe(true);
    const exact = read({ kind: "http", status: 204, path: "/x?y=1", body: "ok*" }).output;
    expect(exact).toMatchObject({ check: { status: { least: 204, most: 204 }, body: "ok*" } });
  });

  test.each([
    [{}],
    [{ kind: "tcp" }],
    [{ kind: "tcp", port: 0 }],
    [{ kind: "tcp", port: 65_536 }],
    [{ kind: "tcp", port: 22, path: "/" }],
    [{ kind: "http", path: "healthz" }],
    [{ kind: "http", path: "/a b" }],
    [{ kind: "http", path: "/\r\nX: y" }],
    [{ kind: "http", path: `/${"x".repeat(healthLimits.pathLength)}` }],
    [{ kind: "http", status: 99 }],
    [{ kind: "serial" }],
    [{ kind: "serial", pattern: "" }],
    [{ kind: "serial", pattern: "x".repeat(LONGEST_PATTERN + 1) }],
    [{ kind: "agent", interval: "99ms" }],
    [{ kind: "agent", interval: "61min" }],
    [{ kind: "agent", timeout: "soon" }],
    [{ kind: "agent", unhealthyAfter: 0 }],
    [{ kind: "agent", healthyAfter: healthLimits.most + 1 }],
  ])("%j is refused", (value) => expect(read(value).success).toBe(false));

  test("of one machine are bounded", () => {
    const many = (count: number) => Array.from({ length: count }, () => ({ kind: "agent" }));
    const isFine = (count: number) => v.safeParse(healthSchema, many(count)).success;
    expect([isFine(healthLimits.checks), isFine(healthLimits.checks + 1)]).toEqual([true, false]);
  });
});
