/** A fleet from a seed: no unheard commit, nothing forgotten, never too many at once, an end. */
import { describe, expect, test } from "bun:test";
import type { OperatorFaults } from "../support/fleet-operator/simulation/operator.ts";
import { InvariantBroken, simulateFleet } from "../support/fleet-operator/simulation/simulation.ts";

const everything = process.env["HOSTLER_TEST_ALL"] === "1";
const chosen = process.env["SIMULATION_SEED"];
const seeds =
  chosen === undefined
    ? Array.from({ length: everything ? 400 : 12 }, (_value, index) => index + 1)
    : [Number.parseInt(chosen, 10)];

const small = { devices: 12, trouble: 60, calm: 60, end: 60 } as const;

test(`twelve devices under trouble, ${seeds.length} seeds`, () => {
  const results = seeds.map((seed) => simulateFleet({ seed, ...small }));
  if (chosen !== undefined) return;
  const total = (count: (one: (typeof results)[number]) => number) =>
    results.reduce((sum, one) => sum + count(one), 0);
  // The troubles do come, and what they are about does happen.
  const often = {
    operatorDeaths: total(({ operatorDeaths }) => operatorDeaths),
    powerCuts: total(({ powerCuts }) => powerCuts),
    lostAnswers: total(({ lostAnswers }) => lostAnswers),
    forgotten: total(({ forgotten }) => forgotten),
    done: total(({ done }) => done),
    commits: total(({ commits }) => commits),
    remembered: total(({ remembered }) => remembered),
  };
  const seldom = {
    rewinds: total(({ rewinds }) => rewinds),
    conflicts: total(({ conflicts }) => conflicts),
    reverts: total(({ reverts }) => reverts),
    holds: total(({ holds }) => holds),
    paused: total(({ paused }) => paused),
  };
  for (const [what, count] of Object.entries(often)) {
    expect([what, count > seeds.length]).toEqual([what, true]);
  }
  for (const [what, count] of Object.entries(seldom)) {
    expect([what, count > 0]).toEqual([what, true]);
  }
}, 600_000);

test("a thousand devices under trouble", () => {
  const seed = Number.parseInt(chosen ?? "1", 10);
  const result = simulateFleet({ seed, devices: 1_000, trouble: 8, calm: 8, end: 30 });
  expect(result.commits).toBeGreaterThanOrEqual(1_000);
  // The last rollout alone has 200 places.
  expect(result.mostUnavailable).toBeGreaterThan(50);
}, 300_000);

test("the same seed gives the same run", () => {
  expect(simulateFleet({ seed: 5, ...small })).toEqual(simulateFleet({ seed: 5, ...small }));
}, 60_000);

/** Whether one of so many seeds finds it. */
function isNoticed(fault: keyof OperatorFaults, most: number): boolean {
  return Array.from({ length: most }, (_value, index) => index + 1).some((seed) => {
    try {
      simulateFleet({ seed, ...small, faults: { [fault]: true } });
      return false;
    } catch (error) {
      if ((error as Error).cause instanceof InvariantBroken) return true;
      throw error;
    }
  });
}

describe("what is broken on purpose is noticed", () => {
  test.each(["mistakesCanonical", "forgetsLost", "givesMorePlaces", "forgetsPast"] as const)(
    "%s",
    (fault) => {
      expect(isNoticed(fault, 20)).toBe(true);
    },
    120_000,
  );
});
