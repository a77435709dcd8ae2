import type { CounterSource, Reading, Sensor } from "../../hardware/samples.ts";
import type { Delta } from "../protocol-result.ts";
import { resultLimits } from "../protocol-result.ts";
import type { StageDone } from "../stages/stage.ts";

/** What the sampler told, and what of it belongs to the stage that runs. */
export class SampleBook {
  #first: Reading | undefined;
  #last: Reading | undefined;
  #before: Reading | undefined;
  #peaks = new Map<string, Sensor>();
  #missing = new Map<string, string>();

  get last(): Reading | undefined {
    return this.#last;
  }

  take(reading: Reading): void {
    this.#first ??= reading;
    this.#last = reading;
    for (const sensor of reading.sensors) {
      if (sensor.kind !== "temperature") continue;
      const peak = this.#peaks.get(sensor.key);
      if (peak === undefined || sensor.value > peak.value) this.#peaks.set(sensor.key, sensor);
    }
    for (const { key, reason } of reading.missing) this.#missing.set(key, reason);
  }

  /** From here on, what rises belongs to a stage. */
  begin(): void {
    this.#before = this.#last;
    this.#peaks.clear();
    this.#missing.clear();
  }

  /** @param silence why the last reading is not of the stage's end; undefined where it is */
  end(silence: string | undefined): Pick<StageDone, "deltas" | "peaks" | "missing"> {
    const missing = [...this.#missing].map(([key, reason]) => ({ key, reason }));
    if (silence !== undefined) missing.push({ key: "sampler", reason: silence });
    return { deltas: this.#deltas(), peaks: [...this.#peaks.values()], missing };
  }

  /** One that was not there before is counted from 0: some are there with their first error. */
  #deltas(): Delta[] {
    const [before, after] = [this.#before, this.#last];
    if (before === undefined || after === undefined || before === after) return [];
    const earlier = new Map(before.counters.map((one) => [keyOf(one), one.value]));
    return after.counters
      .flatMap((counter) => {
        const { source, component, value } = counter;
        const was = earlier.get(keyOf(counter)) ?? 0;
        return was === value ? [] : [{ source, component, before: was, after: value }];
      })
      .slice(0, resultLimits.deltas);
  }

  /** By source, what its counters rose by since the first reading. */
  sumsOf(reading: Reading): Record<string, number> {
    const first = new Map((this.#first ?? reading).counters.map((one) => [keyOf(one), one.value]));
    const sums: Record<string, number> = {};
    for (const counter of reading.counters) {
      const risen = Math.max(0, counter.value - (first.get(keyOf(counter)) ?? 0));
      sums[counter.source] = (sums[counter.source] ?? 0) + risen;
    }
    return sums;
  }
}

const keyOf = ({ source, component }: { source: CounterSource; component: string }): string =>
  `${source} ${component}`;
