/** The rounds: every row in each of them, in an order that chance decides. */
import type { Step } from "../terminal.ts";
import type { Harness } from "./harness.ts";
import type { Memory } from "./process-status.ts";
import { shuffle } from "./statistics.ts";
import type { Row } from "./supervisors.ts";

/** All that was found out about a row. */
export interface Findings {
  readonly name: string;
  /** Milliseconds, by the round in which they were taken. */
  readonly short: Map<number, number[]>;
  readonly long: Map<number, number[]>;
  /** Restarts that did not come. */
  missed: number;
  /** Milliseconds from the start of the supervisor to the first instruction of its child. */
  readonly starts: number[];
  memory: Memory | undefined;
}

export interface Work {
  readonly rows: readonly Row[];
  readonly findings: readonly Findings[];
  readonly harness: Harness;
  readonly chance: () => number;
  readonly quick: boolean;
}

const shortGap = 20_000;
const longGap = 1_500_000;
/** Restarts of each child before the first that counts. */
const warmUps = 60;
/** Of each row in each round of short gaps; one more comes before them, whose gap was longer. */
const burst = 10;

/** Lets every daemon do what it does for the first time. */
export async function warmUp({ rows, harness }: Work): Promise<void> {
  for (const [index, { waits }] of rows.entries()) {
    await harness.kill(index, shortGap, waits === undefined ? warmUps : 2);
  }
}

/** Kills in bursts; rows that wait a second by design give one sample in some of the rounds. */
export async function measureShortGaps(work: Work, step: Step): Promise<void> {
  const { rows, harness, chance, quick } = work;
  const rounds = quick ? 10 : 40;
  const waitingRounds = quick ? 3 : 12;
  for (let round = 0; round < rounds; round += 1) {
    step.say(`round ${round + 1} of ${rounds}`);
    for (const index of shuffle([...rows.keys()], chance)) {
      const isWaiting = rows[index]?.waits !== undefined;
      if (isWaiting && round >= waitingRounds) continue;
      const times = isWaiting ? 1 : burst;
      const [, ...taken] = await harness.kill(index, shortGap, times + 1);
      note(work, { index, round, gap: "short", taken });
    }
  }
}

/** One kill of each row a round, when all of them have rested. */
export async function measureLongGaps(work: Work, step: Step): Promise<void> {
  const { rows, harness, chance, quick } = work;
  const rounds = quick ? 15 : 60;
  for (let round = 0; round < rounds; round += 1) {
    step.say(`round ${round + 1} of ${rounds}`);
    await harness.rest();
    for (const index of shuffle([...rows.keys()], chance)) {
      // One that takes a second each time holds up the others; five samples in a row suffice.
      if (rows[index]?.waits === "always" && round % 5 !== 0) continue;
      note(work, { index, round, gap: "long", taken: await harness.kill(index, longGap, 1) });
    }
  }
}

function note(
  { findings }: Work,
  result: {
    readonly index: number;
    readonly round: number;
    readonly gap: "short" | "long";
    readonly taken: readonly (number | undefined)[];
  },
): void {
  const found = findings[result.index];
  if (found === undefined) return;
  const came = result.taken.filter((sample) => sample !== undefined);
  found.missed += result.taken.length - came.length;
  found[result.gap].set(result.round, came);
}
