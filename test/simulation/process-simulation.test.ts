/** Many agents and one orchestrator, under every trouble that a seed brings. */
import { describe, expect, test } from "bun:test";
import { type ProcessState, type Table, table } from "../../src/process/lifecycle.ts";
import { type SimulationOptions, simulate } from "../support/process-simulation.ts";
import { CertainRestarts } from "../support/simulation/certain-restarts.ts";

const everything = process.env["HOSTLER_TEST_ALL"] === "1";
const chosen = process.env["SIMULATION_SEED"];
const seeds = chosen === undefined ? everythingOrPart() : [Number.parseInt(chosen, 10)];

function everythingOrPart(): number[] {
  return Array.from({ length: everything ? 5_000 : 300 }, (_value, seed) => seed);
}

describe("an orchestrator and its agents", () => {
  test(`${seeds.length} seeds`, () => {
    const total = { events: 0, starts: 0, deaths: 0, searches: 0, adoptions: 0 };
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

describe("an orchestrator that becomes another program, again and again", () => {
  const fewer = seeds.filter((_seed, index) => index % 3 === 0);

  test(`${fewer.length} seeds`, () => {
    const total = { reexecutions: 0, held: 0, deaths: 0 };
    for (const seed of fewer) {
      const result = simulate({ seed, reexecutes: "well" });
      for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += result[key];
    }
    console.log(`${fewer.length} seeds: ${JSON.stringify(total)}`);
    if (chosen !== undefined) return;
    // Much happens in the gaps.
    expect(total.reexecutions).toBeGreaterThan(10 * fewer.length);
    expect(total.held).toBeGreaterThan(total.reexecutions);
  }, 280_000);
});

describe("an orchestrator that is killed, again and again, and has a holder", () => {
  const fewer = seeds.filter((_seed, index) => index % 3 === 1 || chosen !== undefined);

  test(`${fewer.length} seeds: never two, and no exit is lost`, () => {
    const total = { crashes: 0, goneOnWith: 0, lost: 0, deaths: 0 };
    for (const seed of fewer) {
      const result = simulate({ seed, crashes: "well" });
      for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += result[key];
    }
    console.log(`${fewer.length} seeds: ${JSON.stringify(total)}`);
    if (chosen !== undefined) return;
    expect(total.crashes).toBeGreaterThan(10 * fewer.length);
    expect(total.goneOnWith).toBeGreaterThan(total.crashes);
    expect(total.lost).toBeGreaterThan(fewer.length);
  }, 280_000);
});

describe("an orchestrator whose configuration is edited, again and again", () => {
  const fewer = seeds.filter((_seed, index) => index % 3 === 2 || chosen !== undefined);

  test(`${fewer.length} seeds: what runs is what the file says`, () => {
    const total = { reloads: 0, renewed: 0, deaths: 0 };
    for (const seed of fewer) {
      const result = simulate({ seed, reloads: "well" });
      for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += result[key];
    }
    console.log(`${fewer.length} seeds: ${JSON.stringify(total)}`);
    if (chosen !== undefined) return;
    expect(total.reloads).toBeGreaterThan(4 * fewer.length);
    expect(total.renewed).toBeGreaterThan(total.reloads);
  }, 280_000);
});

describe("a restart that is certain before the end", () => {
  const fewer = seeds.filter((_seed, index) => index % 5 === 0);

  test(`follows every end at once, in every state of ${fewer.length} seeds`, () => {
    const restarts = new CertainRestarts();
    for (const seed of fewer) simulate({ seed, onState: (moment) => restarts.check(moment) });
    console.log(`${restarts.checked} ends of instances whose restart was certain`);
    if (chosen === undefined) expect(restarts.checked).toBeGreaterThan(1_000 * fewer.length);
  }, 280_000);

  test("is not found so where the decisions are others", () => {
    const restarts = new CertainRestarts({ ...table, clearing: neverRestarts });
    const check = () => simulate({ seed: 1, onState: (moment) => restarts.check(moment) });
    expect(check).toThrow(/is followed by failed/);
  });
});

const neverRestarts: Table["clearing"] = {
  ...table.clearing,
  cleared: (state) => ({ state: { ...state, phase: "failed", reason: "none" }, effects: [] }),
};

/** The first thing that a simulation finds within so many seeds. */
function findViolation(options: Omit<SimulationOptions, "seed">, most = 200): string | undefined {
  for (let seed = 0; seed < most; seed += 1) {
    try {
      simulate({ ...options, seed });
    } catch (error) {
      return error instanceof Error ? error.message.split("\n").at(-1) : String(error);
    }
  }
  return undefined;
}

/** What a search that found nothing does, in a state that nobody looked in. */
const startsWithoutLooking: Table = {
  ...table,
  starting: {
    ...table.starting,
    "answer-lost": (state, event, context) => {
      const cell = table.uncertain["not-found"];
      if (typeof cell !== "function") return { state, effects: [] };
      const { invocation } = event;
      const uncertain = { ...state, phase: "uncertain", invocation } as Extract<
        ProcessState,
        { phase: "uncertain" }
      >;
      return cell(uncertain, { kind: "not-found", invocation }, context);
    },
  },
};

/** A restart that does not wait until the rest of the former instance is gone. */
const startsWithoutClearing: Table = {
  ...table,
  ready: {
    ...table.ready,
    died: (state, event, context) => {
      const died = table.ready.died;
      const cleared = table.clearing.cleared;
      if (typeof died !== "function" || typeof cleared !== "function") {
        return { state, effects: [] };
      }
      const first = died(state, event, context);
      if (first.state.phase !== "clearing") return first;
      const { invocation } = event;
      const second = cleared(first.state, { kind: "cleared", invocation }, context);
      return { state: second.state, effects: [...first.effects, ...second.effects] };
    },
  },
};

/** An ending that nobody knows is taken for a success. */
const inventsEndings: Table = {
  ...table,
  ready: {
    ...table.ready,
    died: (state, event, context) => {
      const died = table.ready.died;
      if (typeof died !== "function") return { state, effects: [] };
      const ending = event.ending ?? { kind: "exited", status: 0 };
      return died(state, { ...event, ending }, context);
    },
  },
};

describe("the simulation notices", () => {
  test("a start without a look for the one whose answer was lost", () => {
    expect(findViolation({ table: startsWithoutLooking })).toMatch(/live|was used before/);
  });

  test("a start before the former instance is cleared", () => {
    const early = findViolation({ table: startsWithoutClearing });
    expect(early).toMatch(/2 instances of \S+ live|an instance of \S+ lives, and it is/);
  });

  test("an invented ending", () => {
    expect(findViolation({ table: inventsEndings })).toContain("is invented");
  });

  test("an ending that is forgotten, and a process that then never runs again", () => {
    const clearing = { ...table.clearing, cleared: { ignored: "a fault" } };
    expect(findViolation({ table: { ...table, clearing } })).toMatch(/clearing when all is well/);
  });

  test("an agent that starts what was asked on a connection that has ended", () => {
    expect(findViolation({ faults: { agentIgnoresHangUp: true } })).toMatch(/live/);
  });

  test("a search while the request may still be read", () => {
    expect(findViolation({ faults: { findKeepsLink: true } })).toMatch(/live|answered twice/);
  });

  test("a program that goes on without what came before it", () => {
    const lost = findViolation({ reexecutes: "loses what comes meanwhile" });
    expect(lost).toMatch(/the shutdown does not end|when all is well/);
  });

  test("an orchestrator that starts anew beside what a killed one left", () => {
    const doubled = findViolation({ crashes: "starts anew beside it" });
    expect(doubled).toMatch(/2 instances of \S+ live|an instance of \S+ lives, and it is/);
  });

  test("an orchestrator that forgets who ended while nobody watched", () => {
    const forgotten = findViolation({ crashes: "forgets exits" });
    expect(forgotten).toMatch(/is lost|when all is well|does not end/);
  });

  test("a configuration that is put in while something of the former one runs", () => {
    const early = findViolation({ reloads: "before it has stopped" });
    expect(early).toMatch(/is gone, and lives|runs by a former configuration/);
  });

  test("whoever is to go, and is never stopped", () => {
    expect(findViolation({ reloads: "forgets who goes" })).toMatch(/a reload does not end/);
  });

  test("each violation names the seed that replays it", () => {
    expect(findViolation({ table: startsWithoutClearing })).toMatch(
      /SIMULATION_SEED=\d+ replays it/,
    );
  });
});
