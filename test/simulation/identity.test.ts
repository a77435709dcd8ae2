/** Who is in and who is not, under every trouble that a seed brings. */
import { expect, test } from "bun:test";
import { type IdentitySimulationResult, simulateIdentity } from "../support/identity-simulation.ts";

const everything = process.env["HOSTLER_TEST_ALL"] === "1";
const chosen = process.env["HOSTLER_SIMULATION_SEED"];
const seeds =
  chosen === undefined
    ? Array.from({ length: everything ? 300 : 30 }, (_value, seed) => seed)
    : [Number.parseInt(chosen, 10)];

test(`${seeds.length} seeds`, async () => {
  const total: IdentitySimulationResult = {
    deaths: 0,
    lost: 0,
    refused: 0,
    sessions: 0,
    restores: 0,
    thefts: 0,
  };
  for (const seed of seeds) {
    const result = await simulateIdentity({ seed, steps: 60 });
    for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += result[key];
  }
  console.log(`${seeds.length} seeds: ${JSON.stringify(total)}`);
  if (chosen !== undefined) return;
  // The troubles do come.
  for (const count of Object.values(total)) expect(count).toBeGreaterThan(seeds.length / 2);
}, 280_000);
