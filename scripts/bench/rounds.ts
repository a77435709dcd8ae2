import { chanceFrom, quantile, shuffle } from "./statistics.ts";

/** Every row in each round, in an order that chance decides. @returns their samples, row by row */
export async function takeRounds<Sample>(
  rows: Readonly<Record<string, () => Promise<Sample>>>,
  { rounds, seed }: { readonly rounds: number; readonly seed: number },
): Promise<{ readonly name: string; readonly samples: readonly Sample[] }[]> {
  const taken = Object.entries(rows).map(([name, run]) => ({ name, run, samples: [] as Sample[] }));
  const chance = chanceFrom(seed);
  for (let round = 0; round < rounds; round += 1) {
    for (const { run, samples } of shuffle(taken, chance)) samples.push(await run());
  }
  return taken.map(({ name, samples }) => ({ name, samples }));
}

/** "median (10th to 90th percentile)" */
export function formatSpread(samples: readonly number[], digits: number): string {
  const [low, median, high] = [0.1, 0.5, 0.9].map((part) => quantile(samples, part));
  return `${median?.toFixed(digits)} (${low?.toFixed(digits)} to ${high?.toFixed(digits)})`;
}
