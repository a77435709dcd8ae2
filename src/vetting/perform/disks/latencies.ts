import type { Pass } from "../../tasks/disk.ts";

/** From a microsecond on, each doubling in so many steps: a percentile is at most 5 % too high. */
const STEPS = 16;
/** 2^40 µs are twelve days. */
const BUCKETS = 40 * STEPS;

/** How long transfers took, in steps, because a large disk has millions of them. */
export class Latencies {
  readonly #counts = new Float64Array(BUCKETS);
  #total = 0;
  slowest = 0;
  slowestOffset = 0;

  add(milliseconds: number, offset: number): void {
    const steps = Math.ceil(Math.log2(Math.max(1, milliseconds * 1_000)) * STEPS);
    const bucket = Math.min(BUCKETS - 1, steps);
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#total += 1;
    if (milliseconds <= this.slowest) return;
    this.slowest = milliseconds;
    this.slowestOffset = offset;
  }

  percentiles(): Pass["latency_ms"] {
    return { p50: this.#at(0.5), p90: this.#at(0.9), p99: this.#at(0.99), p999: this.#at(0.999) };
  }

  #at(part: number): number {
    const wanted = Math.ceil(this.#total * part);
    let sum = 0;
    for (let bucket = 0; bucket < BUCKETS && wanted > 0; bucket++) {
      sum += this.#counts[bucket] ?? 0;
      if (sum >= wanted) return Math.min(this.slowest, 2 ** (bucket / STEPS) / 1_000);
    }
    return 0;
  }
}
