/** A device and its upgrades: cut at every write, and under every trouble that a seed brings. */
import { describe, expect, test } from "bun:test";
import { type Table, table } from "../../src/fleet/lifecycle.ts";
import { abort, go, revert } from "../../src/fleet/lifecycle-moves.ts";
import { SeededChance } from "../support/chance.ts";
import { type CutPlan, InvariantBroken } from "../support/fleet-simulation/device.ts";
import { type ReleaseKind, releaseKinds } from "../support/fleet-simulation/releases.ts";
import {
  type SimulationOptions,
  type SimulationResult,
  simulate,
} from "../support/fleet-simulation/simulation.ts";
import { rotating } from "../support/rotation.ts";

const stories: readonly (readonly [ReleaseKind, string])[] = [
  ["good", "done"],
  ["corrupt", "aborted"],
  ["crashing", "aborted"],
  ["hanging", "aborted"],
  ["silent", "aborted"],
  ["crashing as canonical", "rolled-back"],
  ["mute as canonical", "rolled-back"],
];

describe.each(stories)("a version that is %s", (kind, ending) => {
  const whole = simulate({ seed: 1, releases: [kind] });

  test(`ends as ${ending}`, () => {
    expect(whole).toMatchObject({ endings: [ending], boots: 1, upgrades: 1 });
  });

  const ways = (["power", "kill"] as const).flatMap((how) =>
    (["before", "after"] as const).map((when) => ({ how, when })),
  );
  test.each(ways)("$how: cut $when every write", ({ how, when }) => {
    for (let write = 1; write <= whole.writes; write += 1) {
      const result = simulate({ seed: 1, releases: [kind], cuts: [{ write, when, how }] });
      expect(result.current).toBe(whole.current);
      expect(result.boots).toBe(how === "power" ? 2 : 1);
    }
  });

  test("the power is cut after every write, and again before each of the next ten", () => {
    const pairs = Array.from({ length: 10 * whole.writes }, (_value, index) => index);
    for (const pair of rotating(`cuts of ${kind}`, pairs, { outOf: 4 })) {
      const first = 1 + Math.floor(pair / 10);
      const cuts: CutPlan[] = [
        { write: first, when: "after", how: "power" },
        { write: first + 1 + (pair % 10), when: "before", how: "power" },
      ];
      expect(simulate({ seed: 1, releases: [kind], cuts }).current).toBe(whole.current);
    }
  });
});

const everything = process.env["HOSTLER_TEST_ALL"] === "1";
const chosen = process.env["SIMULATION_SEED"];
const seeds =
  chosen === undefined
    ? Array.from({ length: everything ? 5_000 : 300 }, (_value, index) => index)
    : [Number.parseInt(chosen, 10)];

/** Up to four versions, half of them good, and half an hour of trouble. */
function simulateTrouble(
  seed: number,
  options: Pick<SimulationOptions, "faults" | "table"> = {},
): SimulationResult {
  const chance = new SeededChance(seed * 7 + 1);
  const releases = Array.from({ length: 1 + chance.below(4) }, () =>
    chance.happens(0.5) ? "good" : chance.pick(releaseKinds),
  );
  return simulate({ seed, releases, troubleTime: 1_800_000, ...options });
}

describe("under trouble", () => {
  test(`${seeds.length} seeds`, () => {
    const total = { boots: 0, starts: 0, swaps: 0, holds: 0, aborts: 0, upgrades: 0 };
    let reverts = 0;
    for (const seed of seeds) {
      const result = simulateTrouble(seed);
      for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += result[key];
      reverts += result.reverts;
    }
    console.log(`${seeds.length} seeds: ${JSON.stringify({ ...total, reverts })}`);
    if (chosen !== undefined) return;
    // The troubles do come.
    for (const count of Object.values(total)) expect(count).toBeGreaterThan(seeds.length / 4);
    expect(reverts).toBeGreaterThan(seeds.length / 10);
  }, 280_000);

  test("a seed gives the same run again", () => {
    expect(simulateTrouble(7)).toEqual(simulateTrouble(7));
  });
});

/** What each of so many seeds finds, up to the first that is like this. */
function findViolation(
  options: Pick<SimulationOptions, "faults" | "table">,
  expected: RegExp,
): string {
  const found = new Set<string>();
  for (let seed = 0; seed < 400; seed += 1) {
    try {
      simulateTrouble(seed, options);
    } catch (error) {
      const { cause } = error as Error;
      if (!(cause instanceof InvariantBroken)) throw error;
      if (expected.test(cause.message)) return cause.message;
      found.add(cause.message);
    }
  }
  return [...found].join("\n");
}

/** Whoever does not hear of the candidate blames it, as those do that have no control group. */
const blames: Table = {
  ...table,
  "cutover-ready": {
    ...table["cutover-ready"],
    time: (state, _event, context) =>
      abort(state, context, { reason: "nothing was heard of it", cause: "candidate" }),
  },
};

/** A commit for any instance will do. */
const takesAnyCommit: Table = {
  ...table,
  "cutover-ready": {
    ...table["cutover-ready"],
    marker: (state, { marker }) => {
      const { instance } = state.life;
      const commit = { transaction: marker.transaction, instance };
      const until = state.life.readyAt + 60_000;
      return go(state, {
        ...{ phase: "commit-seen", stage: "swapping", until, instance, lastWords: null },
        ...{ marker: { ...marker, commit }, from: state.current, before: state.previous },
      });
    },
  },
};

/** A version that answered once is done, whatever comes. */
const neverReverts: Table = {
  ...table,
  swapped: { ...table.swapped, time: { ignored: "a mutation" } },
};

/** The operator's silence leads back, as nothing but this host's own evidence may. */
const revertsForSilence: Table = {
  ...table,
  canonical: {
    ...table.canonical,
    time: (state, _event, context) =>
      revert(state, context, { reason: "the operator is silent", lastWords: null }),
  },
};

describe("what is broken on purpose is noticed", () => {
  test.each([
    ["nobody asks the boot guard", { faults: { unguarded: true } }, /damaged|stuck/],
    ["links before the commit", { faults: { swapsEarly: true } }, /nobody has committed/],
    ["a journal that is not read", { faults: { forgetsJournal: true } }, /not proven|stuck|went/],
    ["notes after what they speak of", { faults: { notesLate: true } }, /no journal knows/],
    ["no control group", { table: blames }, /blamed for its environment/],
    ["any commit", { table: takesAnyCommit }, /a commit that nobody has written/],
    ["no deadline after the swap", { table: neverReverts }, /stuck/],
    ["a way back for a silence", { table: revertsForSilence }, /stuck/],
  ])(
    "%s",
    (_name, options, expected) => {
      expect(findViolation(options, expected)).toMatch(expected);
    },
    120_000,
  );
});
