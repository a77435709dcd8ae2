/** The mutation run: what is taken away from the table is missed by a scenario. */
import { expect, test } from "bun:test";
import { findCatcher, handledCells, makeMutants, observe } from "../support/lifecycle/mutants.ts";

/** Of a hundred mutants, so many must be caught. */
const leastCaught = 95;

const observed = observe();

test("every cell that does something is seen to do it", () => {
  const active = [...observed].filter(
    ([, { leadsTo, effects }]) => leadsTo.size + effects.size > 0,
  );
  const seen = new Set(active.map(([key]) => key));
  expect(handledCells().filter((key) => !seen.has(key))).toEqual([]);
});

test(`at least ${leastCaught} % of the mutants of the table are caught`, () => {
  const mutants = makeMutants(observed);
  const survivors = mutants.filter((mutant) => findCatcher(mutant) === undefined);
  const caught = mutants.length - survivors.length;
  console.log(`${caught} of ${mutants.length} mutants of the lifecycle's table were caught`);
  for (const { name } of survivors) console.log(`survived: ${name}`);
  expect(mutants.length).toBeGreaterThan(200);
  expect((100 * caught) / mutants.length).toBeGreaterThanOrEqual(leastCaught);
}, 60_000);
