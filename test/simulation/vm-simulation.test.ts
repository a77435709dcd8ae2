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

/** What each of so many seeds finds, up to the first that is like this. */
function findViolation(
  options: Omit<SimulationOptions, "seed">,
  expected: RegExp,
  most = 400,
): string {
  const found = new Set<string>();
  for (let seed = 0; seed < most; seed += 1) {
    try {
      simulate({ ...options, seed });
    } catch (error) {
      const violation = error instanceof Error ? error.message.split("\n").at(-1) : undefined;
      found.add(violation ?? String(error));
      if (expected.test(violation ?? "")) return violation ?? "";
    }
  }
  return [...found].join("\n");
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
      const isTaken = outcome.state.phase === "restoring";
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
  const expectFound = (options: Omit<SimulationOptions, "seed">, expected: RegExp) =>
    expect(findViolation(options, expected)).toMatch(expected);

  test("a VMM that is ended because it does not answer", () => {
    expectFound({ table: endsWhatIsSilent }, /is ended by mistake/);
  });

  test("a start without a look for the one whose answer was lost", () => {
    expectFound({ table: startsWithoutLooking }, /2 VMMs of \w+ live/);
  });

  test("a start while the former VMM lives", () => {
    expectFound({ table: replacesWithoutEnding }, /2 VMMs of \w+ live/);
  });

  test("a captured state that is dropped when a VMM refuses it", () => {
    expectFound({ table: forgetsWhatIsRefused }, /is dropped, and no VMM has/);
    expectFound({ table: dropsWhatIsRefused }, /left over|gone|is dropped/);
  });

  test("a captured state that is dropped when the VMM that gave it has ended", () => {
    expectFound({ table: ignoresWhatWasCaptured }, /is dropped, and no VMM has/);
  });

  test("a captured state that is kept when its machine runs on", () => {
    expectFound({ table: keepsWhatIsSpent }, /older than its memory|is old|left over/);
  });

  test("a note that is written after what it speaks of", () => {
    expectFound({ faults: { notesLate: true } }, /noted first/);
  });

  test("a worker that takes living VMMs for dead, or does not know of them", () => {
    expectFound({ faults: { takesForDead: true } }, /is cleared|VMMs of/);
    expectFound({ faults: { forgetsNotes: true } }, /VMMs of|nobody knows|lives/);
  });

  test("a VMM that is left beside the one that has the machine", () => {
    expectFound({ faults: { leavesBeside: true } }, /VMMs of|nobody knows|still has/);
  });

  test("a reconciler that collects what does not answer", () => {
    expectFound({ faults: { collectsDetached: true } }, /is detached, and told/);
  });

  test("each violation names the seed that replays it", () => {
    expectFound({ table: startsWithoutLooking }, /SIMULATION_SEED=\d+ replays it/);
  });
});
