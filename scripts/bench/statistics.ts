/** Medians and spread of samples that were taken round by round. */

/** What one row took at one gap: for each round its samples, in milliseconds. */
export type Rounds = ReadonlyMap<number, readonly number[]>;

export interface Summary {
  readonly count: number;
  /** All three in the unit of the samples. */
  readonly low: number;
  readonly median: number;
  readonly high: number;
}

/** @param fraction 0.5 is the median @returns NaN when there are no samples */
export function quantile(samples: readonly number[], fraction: number): number {
  const sorted = samples.toSorted((left, right) => left - right);
  const position = fraction * (sorted.length - 1);
  const below = sorted[Math.floor(position)] ?? Number.NaN;
  const above = sorted[Math.ceil(position)] ?? Number.NaN;
  return below + (above - below) * (position - Math.floor(position));
}

/** The median, with the tenth and the ninetieth percentile; undefined without samples. */
export function summarize(samples: readonly number[]): Summary | undefined {
  if (samples.length === 0) return undefined;
  return {
    count: samples.length,
    low: quantile(samples, 0.1),
    median: quantile(samples, 0.5),
    high: quantile(samples, 0.9),
  };
}

/**
 * How much longer a row takes than the floor: the median, over the rounds that have both, of the
 * ratio of their medians. Both stood under the same load then.
 */
export function pairedRatio(row: Rounds, floor: Rounds): number | undefined {
  const ratios = [...row].flatMap(([round, samples]) => {
    const beside = floor.get(round) ?? [];
    if (samples.length === 0 || beside.length === 0) return [];
    return [quantile(samples, 0.5) / quantile(beside, 0.5)];
  });
  return ratios.length === 0 ? undefined : quantile(ratios, 0.5);
}

/** How much longer a row takes than the floor: the difference of their medians, round by round. */
export function pairedDifferences(row: Rounds, floor: Rounds): number[] {
  return [...row].flatMap(([round, samples]) => {
    const beside = floor.get(round) ?? [];
    if (samples.length === 0 || beside.length === 0) return [];
    return [quantile(samples, 0.5) - quantile(beside, 0.5)];
  });
}

/** A generator of numbers from 0 to 1 (mulberry32), the same ones for the same seed. */
export function chanceFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The items in an order that chance decides. */
export function shuffle<Item>(items: readonly Item[], chance: () => number): Item[] {
  return items
    .map((item) => ({ item, key: chance() }))
    .sort((left, right) => left.key - right.key)
    .map(({ item }) => item);
}
