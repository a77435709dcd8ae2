/** The mutation run: what is taken away from the table is missed. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { step, table } from "../../src/fleet/lifecycle.ts";
import { repositoryRoot } from "../support/binary.ts";
import type { StepFunction } from "../support/fleet-agent/life.ts";
import { handledCells, type Mutant, makeMutants } from "../support/fleet-agent/mutants.ts";
import { keyOf, makeCases, observe } from "../support/fleet-agent/observe.ts";
import { stories } from "../support/fleet-agent/stories.ts";
import { writeCell, writeTableDocument } from "../support/fleet-agent/table-document.ts";
import { rotating } from "../support/rotation.ts";

/** Of a hundred mutants of any turn, so many are caught by stories, and with the document. */
const leastByStories = 60;
const leastCaught = 95;

const cases = makeCases();
const observed = observe(cases);
const written = writeTableDocument(observed);

test("every cell that does something is seen to do it", () => {
  const active = [...observed].filter(([, seen]) => seen.leadsTo.size + seen.effects.size > 0);
  const keys = new Set(active.map(([key]) => key));
  expect(handledCells().filter((key) => !keys.has(key))).toEqual([]);
});

function isCaughtByStory(mutant: Mutant): boolean {
  const mutated: StepFunction = (state, event, context) =>
    step(state, event, context, mutant.table);
  return stories.some((story) => {
    try {
      story.run(mutated);
      return false;
    } catch {
      return true;
    }
  });
}

/** The document that is checked in says something else of that cell. */
function isCaughtByDocument({ phase, event, table: mutated }: Mutant): boolean {
  const key = keyOf(phase, event);
  const own = cases.filter((one) => one.life.state.life.phase === phase && one.kind === event);
  const seen = observe(own, mutated).get(key);
  const line = writeCell(phase, event, observed.get(key));
  return writeCell(phase, event, seen) !== line && written.includes(line);
}

test(`at least ${leastCaught} % of the mutants of the table are caught`, async () => {
  const file = Bun.file(join(repositoryRoot, "src/fleet/lifecycle-table.md"));
  expect(await file.text()).toBe(written);
  const mutants = rotating("mutants of an upgrade", makeMutants(observed), { outOf: 2 });
  const missed = mutants.filter((mutant) => !isCaughtByStory(mutant));
  const survivors = missed.filter((mutant) => !isCaughtByDocument(mutant));
  const byStories = mutants.length - missed.length;
  const caught = mutants.length - survivors.length;
  console.log(`${mutants.length} mutants: ${byStories} caught by stories, ${caught} in all`);
  for (const { name } of survivors) console.log(`survived: ${name}`);
  expect(mutants.length).toBeGreaterThan(150);
  expect(Object.keys(table).length).toBe(13);
  expect((100 * byStories) / mutants.length).toBeGreaterThanOrEqual(leastByStories);
  expect((100 * caught) / mutants.length).toBeGreaterThanOrEqual(leastCaught);
}, 240_000);
