/** A cluster from a seed: nothing runs twice, nothing is lost, and what is declared comes to be. */
import { describe, expect, test } from "bun:test";
import { onlyInAll } from "../support/rotation.ts";
import {
  InvariantBroken,
  type MasterFaults,
  simulateCluster,
} from "../support/vm-master/simulation.ts";

const everything = process.env["HOSTLER_TEST_ALL"] === "1";
const chosen = process.env["SIMULATION_SEED"];
const seeds =
  chosen === undefined
    ? Array.from({ length: everything ? 1_500 : 25 }, (_value, index) => index + 1)
    : [Number.parseInt(chosen, 10)];

test(`a cluster under trouble, ${seeds.length} seeds`, () => {
  const results = seeds.map((seed) => simulateCluster({ seed }));
  if (chosen !== undefined) return;
  const total = (count: (one: (typeof results)[number]) => number) =>
    results.reduce((sum, one) => sum + count(one), 0);
  // The troubles do come, and machines do move.
  expect(total(({ moves }) => moves)).toBeGreaterThan(0);
  expect(total(({ masterDeaths }) => masterDeaths)).toBeGreaterThan(seeds.length);
  expect(total(({ workerDeaths }) => workerDeaths)).toBeGreaterThan(seeds.length);
  expect(total(({ powerCuts }) => powerCuts)).toBeGreaterThan(seeds.length);
  expect(total(({ hooks }) => hooks)).toBeGreaterThan(0);
  expect(total(({ crashes }) => crashes)).toBeGreaterThan(0);
  expect(total(({ restores }) => restores)).toBeGreaterThan(0);
}, 600_000);

test("the same seed gives the same run", () => {
  expect(simulateCluster({ seed: 5 })).toEqual(simulateCluster({ seed: 5 }));
}, 60_000);

/** Whether one of so many seeds finds it. */
function isNoticed(fault: keyof MasterFaults, most: number): boolean {
  return Array.from({ length: most }, (_value, index) => index + 1).some((seed) => {
    try {
      simulateCluster({ seed, faults: { [fault]: true } });
      return false;
    } catch (error) {
      if ((error as Error).cause instanceof InvariantBroken) return true;
      throw error;
    }
  });
}

describe("what is broken on purpose is noticed", () => {
  test.each(["forgetsRecords", "collectsUnnamed", "startsUnheard"] as const)(
    "%s",
    (fault) => {
      expect(isNoticed(fault, 100)).toBe(true);
    },
    120_000,
  );

  onlyInAll(() => {
    test.each([
      "believesFailedHook",
      "trustsSilence",
      "givesFirst",
      "ignoresLease",
      "ignoresStale",
    ] as const)(
      "%s",
      (fault) => {
        expect(isNoticed(fault, 1_000)).toBe(true);
      },
      600_000,
    );
  });
});
