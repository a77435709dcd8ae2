/** A worker and its machines, under every trouble that a seed brings. */
import { describe, expect, test } from "bun:test";
import { type Table, table } from "../../src/vm/lifecycle.ts";
import { begin, crash, forgetCapture } from "../../src/vm/lifecycle-moves.ts";
import { type SimulationOptions, simulate } from "../support/vm-simulation.ts";

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

/** The first thing that a simulation finds within so many seeds. */
function findViolation(options: Omit<SimulationOptions, "seed">, most = 400): string | undefined {
  for (let seed = 0; seed < most; seed += 1) {
    try {
      simulate({ ...options, seed });
    } catch (error) {
      return error instanceof Error ? error.message.split("\n").at(-1) : String(error);
    }
  }
  return undefined;
}

/** A VMM that does not answer is ended, and started anew. */
const endsWhatIsSilent: Table = {
  ...table,
  detached: {
    ...table.detached,
    "attach-refused": (state, { refusal }, context) =>
      crash(state, state.instance, refusal.message, context),
  },
};

/** A spawn without an answer is made again, and nobody looks for the first. */
const startsWithoutLooking: Table = {
  ...table,
  starting: { ...table.starting, deadline: (state, _event, context) => begin(state, context) },
};

/** The new VMM is spawned while the old one lives. */
const replacesWithoutEnding: Table = {
  ...table,
  capturing: {
    ...table.capturing,
    done: (state, event, context) => {
      const { done } = table.capturing;
      if (typeof done !== "function") return { state, effects: [] };
      const outcome = done(state, event, context);
      const isTaken = outcome.state.phase === "stopping";
      return isTaken ? begin(outcome.state, context) : outcome;
    },
  },
};

/** What a VMM refused to take is given up. */
const dropsWhatIsRefused: Table = {
  ...table,
  restoring: {
    ...table.restoring,
    refused: (state, { refusal }, context) =>
      crash(forgetCapture(state).state, state.instance, refusal.message, context),
  },
};

const forgetsWhatIsRefused: Table = {
  ...table,
  restoring: { ...table.restoring, refused: (state) => forgetCapture(state) },
};

/** A VMM that gave its machine away, and ended, is taken for one that crashed. */
const ignoresWhatWasCaptured: Table = {
  ...table,
  clearing: {
    ...table.clearing,
    cleared: (state, event, context) => {
      const { cleared } = table.clearing;
      if (typeof cleared !== "function") return { state, effects: [] };
      return cleared(state, { ...event, captured: false }, context);
    },
  },
};

/** A machine that runs from an older state than the one in which it was left. */
const keepsWhatIsSpent: Table = {
  ...table,
  restoring: {
    ...table.restoring,
    done: (state, event, context) => {
      const { done } = table.restoring;
      if (typeof done !== "function") return { state, effects: [] };
      const outcome = done(state, event, context);
      const effects = outcome.effects.filter(({ kind }) => kind !== "forget-capture");
      return { state: { ...outcome.state, capture: state.capture }, effects };
    },
  },
};

describe("the simulation notices", () => {
  const found = (options: Omit<SimulationOptions, "seed">) => findViolation(options) ?? "nothing";

  test("a VMM that is ended because it does not answer", () => {
    expect(found({ table: endsWhatIsSilent })).toContain("is ended by mistake");
  });

  test("a start without a look for the one whose answer was lost", () => {
    expect(found({ table: startsWithoutLooking })).toMatch(/2 VMMs of \w+ live/);
  });

  test("a start while the former VMM lives", () => {
    expect(found({ table: replacesWithoutEnding })).toMatch(/2 VMMs of \w+ live/);
  });

  test("a captured state that is dropped when a VMM refuses it", () => {
    expect(found({ table: forgetsWhatIsRefused })).toMatch(/is dropped, and no VMM has/);
    expect(found({ table: dropsWhatIsRefused })).toMatch(/left over|gone/);
  });

  test("a captured state that is dropped when the VMM that gave it has ended", () => {
    expect(found({ table: ignoresWhatWasCaptured })).toMatch(/is dropped, and no VMM has/);
  });

  test("a captured state that is kept when its machine runs on", () => {
    expect(found({ table: keepsWhatIsSpent })).toMatch(/older than its memory|is old|left over/);
  });

  test("a note that is written after what it speaks of", () => {
    expect(found({ faults: { notesLate: true } })).toContain("noted first");
  });

  test("a worker that takes living VMMs for dead, or does not know of them", () => {
    expect(found({ faults: { takesForDead: true } })).toMatch(/is cleared|VMMs of/);
    expect(found({ faults: { forgetsNotes: true } })).toMatch(/VMMs of|nobody knows|lives/);
  });

  test("a reconciler that collects what does not answer", () => {
    expect(found({ faults: { collectsDetached: true } })).toContain("is detached, and told");
  });

  test("each violation names the seed that replays it", () => {
    expect(found({ table: startsWithoutLooking })).toMatch(/SIMULATION_SEED=\d+ replays it/);
  });
});
