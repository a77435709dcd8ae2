/** A worker and its machines, under every trouble that a seed brings. */
import { describe, expect, test } from "bun:test";
import { simulate } from "../support/vm-simulation.ts";

const everything = process.env["HOSTLER_TEST_ALL"] === "1";
const chosen = process.env["SIMULATION_SEED"];
const seeds = chosen === undefined ? everythingOrPart() : [Number.parseInt(chosen, 10)];

function everythingOrPart(): number[] {
  return Array.from({ length: everything ? 5_000 : 300 }, (_value, seed) => seed);
}

describe("a worker and its machines", () => {
  test(`${seeds.length} seeds`, () => {
    const total = {
      ...{ events: 0, spawns: 0, workerDeaths: 0, adoptions: 0, searches: 0, replacements: 0 },
      ...{ detachments: 0, commands: 0 },
    };
    for (const seed of seeds) {
      const result = simulate({ seed });
      for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += result[key];
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
