/** luod, its holder and its clients, under every trouble that a seed brings. */
import { describe, expect, test } from "bun:test";
import { type Handlers, handlers } from "../../src/live-update/lifecycle.ts";
import { findCatcher, makeMutants, observe } from "../support/live-update-mutants.ts";
import { type SimulationResult, simulate } from "../support/live-update-simulation.ts";

const everything = process.env["HOSTLER_TEST_ALL"] === "1";
const chosen = process.env["SIMULATION_SEED"];
const seeds =
  chosen === undefined
    ? Array.from({ length: everything ? 20_000 : 800 }, (_value, seed) => seed)
    : [Number.parseInt(chosen, 10)];

/** Of a hundred mutants, so many must be caught. */
const leastCaught = 95;

describe("updates, and what came over them", () => {
  test(`${seeds.length} seeds`, () => {
    const total: SimulationResult = {
      events: 0,
      kexecs: 0,
      refused: 0,
      aborted: 0,
      crashes: 0,
      claims: 0,
    };
    for (const seed of seeds) {
      const result = simulate({ seed });
      for (const key of Object.keys(total) as (keyof SimulationResult)[]) total[key] += result[key];
    }
    console.log(`${seeds.length} seeds: ${JSON.stringify(total)}`);
    if (chosen !== undefined) return;
    // The troubles do come.
    for (const count of Object.values(total)) expect(count).toBeGreaterThan(seeds.length / 4);
  }, 280_000);

  test("a seed gives the same run again", () => {
    expect(simulate({ seed: 7 })).toEqual(simulate({ seed: 7 }));
  });
});

describe("the simulation notices", () => {
  test(`at least ${leastCaught} % of what is taken away`, () => {
    const mutants = makeMutants(observe(60));
    const survivors = mutants.filter((mutant) => findCatcher(mutant, 150) === undefined);
    const caught = mutants.length - survivors.length;
    console.log(`${caught} of ${mutants.length} mutants of luod's decisions were caught`);
    for (const { name } of survivors) console.log(`survived: ${name}`);
    expect(mutants.length).toBeGreaterThan(60);
    expect((100 * caught) / mutants.length).toBeGreaterThanOrEqual(leastCaught);
  }, 280_000);

  test("a violation names the seed that replays it", () => {
    const claim: Handlers["claim"] = (state) => ({ state, effects: [] });
    const run = () => {
      for (let seed = 0; seed < 100; seed += 1)
        simulate({ seed, handlers: { ...handlers, claim } });
    };
    expect(run).toThrow(/SIMULATION_SEED=\d+ replays it/);
  });
});
