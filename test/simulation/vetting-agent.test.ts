/** An agent from a seed: no result is lost, no directive counts twice, never two stages at once. */
import { expect, test } from "bun:test";
import { path } from "../../src/vetting/protocol.ts";
import { SeededChance } from "../support/chance.ts";
import { type AgentTrouble, AgentWorld } from "../support/vetting/agent-world.ts";

const everything = process.env["HOSTLER_TEST_ALL"] === "1";
const chosen = process.env["SIMULATION_SEED"];
const seeds =
  chosen === undefined
    ? Array.from({ length: everything ? 2_000 : 100 }, (_value, index) => index + 1)
    : [Number.parseInt(chosen, 10)];

const trouble: AgentTrouble = { lost: 0.15, doubled: 0.15, late: 0.1, killed: 0.01 };
const calm: AgentTrouble = { lost: 0, doubled: 0, late: 0, killed: 0 };
const who = "operator alice";
const minute = 60_000;

/** Words of an operator, most of them at a time when they mean something. */
function direct(world: AgentWorld, chance: SeededChance): void {
  const { run } = world.story;
  const retry = { kind: "retry", who, stage: null, wipe: [], mayWipe: false, reason: "" } as const;
  const word = chance.random();
  if (run.state === "FailedHolding" && chance.happens(0.5)) world.order(retry);
  else if (word < 0.02) world.order({ kind: "cancel", who, reason: "" });
  else if (word < 0.04) world.order({ kind: "abort", who, reason: "" });
}

test.each(seeds.map((seed) => [seed]))("seed %d", (seed) => {
  const chance = new SeededChance(seed);
  const world = new AgentWorld(chance, trouble);
  for (let count = 0; count < 30; count++) {
    world.pass(minute);
    direct(world, chance);
  }
  world.trouble = calm;
  world.pass(30 * minute);
  // With nobody in the way all comes to an end, and nothing that was found is lost on the way.
  expect(world.owed).toEqual([]);
  const { run } = world.story;
  const isAtRest = run.ended !== null || run.state === "FailedHolding";
  expect({ seed, state: run.state, phase: world.phase, isAtRest }).toMatchObject({
    isAtRest: true,
  });
  const results = world.story.steps
    .flatMap(({ writes }) => writes)
    .flatMap((write) => (write.kind === "result" ? [write.result] : []))
    .filter(({ source }) => source === "agent")
    .map(({ stage, attempt }) => `${stage} ${attempt}`);
  expect(new Set(results).size).toBe(results.length);
});

test.each(seeds.map((seed) => [seed]))("ten minutes without an answer, seed %d", (seed) => {
  const world = new AgentWorld(new SeededChance(seed), calm);
  // From the hello to the last result: each seed has another moment.
  world.pass((seed * 7_919) % (3 * minute));
  const before = world.story.run.state;
  world.trouble = { ...calm, lost: 1 };
  world.pass(10 * minute);
  const meanwhile = world.story.run.state;
  // A host that is on its way is lost to the orchestrator, and nothing is said of its hardware.
  if (path.some((state) => state === before)) expect(meanwhile).toBe("Lost");
  world.trouble = calm;
  world.pass(30 * minute);
  const { run } = world.story;
  expect(world.owed).toEqual([]);
  expect(["Completed", "FailedHolding"]).toContain(run.state);
  // What was going on was not begun again for want of an answer.
  for (const { begun } of Object.values(run.stages)) expect(begun).toBe(1);
});

test("the seeds bring what they are to bring", () => {
  const worlds = seeds.slice(0, 20).map((seed) => {
    const world = new AgentWorld(new SeededChance(seed), trouble);
    world.pass(30 * minute);
    return world;
  });
  if (chosen !== undefined) return;
  expect(worlds.some(({ kills }) => kills > 0)).toBe(true);
  expect(worlds.some(({ story }) => story.run.state === "Completed")).toBe(true);
  expect(worlds.some(({ story }) => story.run.state === "FailedHolding")).toBe(true);
});
