import type { MonotonicTime } from "../units/units.ts";
import { isAtRest, type ProcessState, type StopReason } from "./lifecycle.ts";

/** What is counted of processes for whoever measures them. Pure: states and times come in. */

/**
 * Why an instance came after another one: it died, it was not ready in time, it did its work no
 * more, somebody asked.
 */
export const restartReasons = ["died", "unready", "unhealthy", "asked"] as const;
export type RestartReason = (typeof restartReasons)[number];

/** Seconds from a death that was noticed to the next start; back-off is part of it. */
export const RESTART_BUCKETS: readonly number[] = [0.001, 0.002_5, 0.01, 0.05, 0.25, 1, 5, 30];

/** Of one process, as it is handed to another program. */
export interface MeterState {
  readonly name: string;
  /** When it came into the phase that it is in. */
  readonly since: MonotonicTime;
  readonly restarts: Readonly<Record<RestartReason, number>>;
  /** By `RESTART_BUCKETS`, and one more for what took longer. */
  readonly counts: readonly number[];
  /** Seconds, of all of them. */
  readonly sum: number;
  /** Why the next start would be a restart. */
  readonly reason: RestartReason;
  /** The death that the next start answers. */
  readonly diedAt: MonotonicTime | undefined;
}

/** Counts what becomes of each process, from one state to the next. */
export class ProcessMeter {
  readonly #meters = new Map<string, MeterState>();

  constructor(names: readonly string[], now: MonotonicTime) {
    this.renew(names, now);
  }

  /** Counts for these names; for those that it knows it goes on. */
  renew(names: readonly string[], now: MonotonicTime): void {
    const kept = new Set(names);
    for (const name of this.#meters.keys()) {
      if (!kept.has(name)) this.#meters.delete(name);
    }
    for (const name of names) {
      if (this.#meters.has(name)) continue;
      const restarts = { died: 0, unready: 0, unhealthy: 0, asked: 0 };
      const counts = Array<number>(RESTART_BUCKETS.length + 1).fill(0);
      const begun = { reason: "asked", diedAt: undefined } as const;
      this.#meters.set(name, { name, since: now, restarts, counts, sum: 0, ...begun });
    }
  }

  of(name: string): MeterState | undefined {
    return this.#meters.get(name);
  }

  save(): MeterState[] {
    return [...this.#meters.values()];
  }

  /** Goes on with what was counted before; of one that counted otherwise only since when it is. */
  restore(states: readonly MeterState[]): void {
    for (const state of states) {
      const fresh = this.#meters.get(state.name);
      if (fresh === undefined) continue;
      const isSame = state.counts.length === fresh.counts.length;
      this.#meters.set(state.name, isSame ? state : { ...fresh, since: state.since });
    }
  }

  /** Has a step of the lifecycle counted. */
  note(name: string, step: { before: ProcessState; after: ProcessState; now: MonotonicTime }) {
    const meter = this.#meters.get(name);
    if (meter === undefined) return;
    const { before, after, now } = step;
    const since = before.phase === after.phase ? meter.since : now;
    this.#meters.set(name, { ...this.#counted(meter, step), since });
  }

  #counted(
    meter: MeterState,
    { before, after, now }: { before: ProcessState; after: ProcessState; now: MonotonicTime },
  ): MeterState {
    if (after.phase === "clearing") {
      return { ...meter, reason: reasonOf(after.why), diedAt: after.diedAt };
    }
    // From here on nothing starts it by itself.
    const isOver = isAtRest(after);
    if (isOver) return { ...meter, reason: "asked", diedAt: undefined };
    const hasArrived = after.lastInvocation !== before.lastInvocation;
    if (!hasArrived) return meter;
    const arrived = { ...meter, diedAt: undefined };
    if (after.restarts === before.restarts) return arrived;
    const restarts = { ...meter.restarts, [meter.reason]: meter.restarts[meter.reason] + 1 };
    if (meter.diedAt === undefined) return { ...arrived, restarts };
    const seconds = (now - meter.diedAt) / 1_000;
    const found = RESTART_BUCKETS.findIndex((bound) => seconds <= bound);
    const index = found < 0 ? RESTART_BUCKETS.length : found;
    const counts = meter.counts.with(index, (meter.counts[index] ?? 0) + 1);
    return { ...arrived, restarts, counts, sum: meter.sum + seconds };
  }
}

function reasonOf(why: StopReason | undefined): RestartReason {
  if (why === undefined) return "died";
  return why === "unready" || why === "unhealthy" ? why : "asked";
}
