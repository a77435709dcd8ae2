import type { Bytes, Milliseconds } from "../units/units.ts";

const day: Milliseconds = 24 * 3_600_000;

/** What there was at a moment. */
export interface UsageSample {
  readonly clock: Milliseconds;
  readonly bytes: Bytes;
}

/** How something grows. */
export interface Growth {
  readonly bytesPerDay: number;
  /** Until it is full, 0 where it is; undefined when it does not grow, or too little is known. */
  readonly fullAfter: Milliseconds | undefined;
}

/** Samples that must span this much before anything is foretold from them. */
const shortestSpan: Milliseconds = 3_600_000;

/**
 * The line through the samples by least squares, and when it meets the limit; pure.
 * @param room what is left now; without any it is full now, however it grows
 */
export function foretell(samples: readonly UsageSample[], room: Bytes): Growth {
  const growth = lineThrough(samples, room);
  return room > 0 ? growth : { ...growth, fullAfter: 0 };
}

function lineThrough(samples: readonly UsageSample[], room: Bytes): Growth {
  const first = samples[0];
  const last = samples.at(-1);
  if (first === undefined || last === undefined || last.clock - first.clock < shortestSpan) {
    return { bytesPerDay: 0, fullAfter: undefined };
  }
  const meanClock = mean(samples.map(({ clock }) => clock));
  const meanBytes = mean(samples.map(({ bytes }) => bytes));
  let covariance = 0;
  let variance = 0;
  for (const { clock, bytes } of samples) {
    covariance += (clock - meanClock) * (bytes - meanBytes);
    variance += (clock - meanClock) ** 2;
  }
  const slope = covariance / variance;
  const bytesPerDay = slope * day;
  if (bytesPerDay < 1) return { bytesPerDay, fullAfter: undefined };
  return { bytesPerDay, fullAfter: room / slope };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
