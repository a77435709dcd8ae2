import { monotonicNow } from "../../event-loop/clock.ts";
import { formatDuration, type MonotonicTime } from "../../units/units.ts";
import type { Liveness } from "../specification.ts";
import type { ManagedProcess, Partition } from "./partition.ts";
import { type Cancel, type CommandHandlers, checkFor } from "./readiness.ts";

export interface LivenessHandlers extends CommandHandlers {
  /** Said at each failure that is one too many, in a row. */
  onUnhealthy(reason: string): void;
  /** The first success after that. */
  onHealthy(): void;
  /** Hears what waits on the socket of its notices. */
  hearNotices(): void;
}

/** Watches whether one instance does its work, until nobody asks any more. */
export interface LivenessWatch {
  /** WATCHDOG=1 of it. */
  beat(): void;
  cancel(): void;
}

export function watchLiveness(
  partition: Partition,
  managed: ManagedProcess,
  handlers: LivenessHandlers & { readonly wasUnhealthy: boolean },
): LivenessWatch {
  const { liveness } = managed.specification;
  if (liveness === undefined) return { beat: () => {}, cancel: () => {} };
  const { wasUnhealthy } = handlers;
  const watched = { partition, managed, liveness, wasUnhealthy };
  if (liveness.check.kind === "watchdog") return new Watchdog(watched, handlers);
  return new PeriodicCheck(watched, handlers);
}

interface Watched {
  readonly partition: Partition;
  readonly managed: ManagedProcess;
  readonly liveness: Liveness;
  /** By the last word of a watch before this one. */
  readonly wasUnhealthy: boolean;
}

/** Its own word, again and again. */
class Watchdog implements LivenessWatch {
  readonly #watched: Watched;
  readonly #handlers: LivenessHandlers;
  #timer: Disposable | undefined;
  #heardAt: MonotonicTime = monotonicNow();
  #isSilent: boolean;

  constructor(watched: Watched, handlers: LivenessHandlers) {
    this.#watched = watched;
    this.#handlers = handlers;
    this.#isSilent = watched.wasUnhealthy;
    this.#wait();
  }

  #wait(): void {
    const { partition, liveness } = this.#watched;
    this.#timer = partition.loop.wakeAt(this.#heardAt + liveness.interval, () => this.#look());
  }

  #look(): void {
    // This daemon may itself have been held up: what was said meanwhile waits to be heard.
    this.#handlers.hearNotices();
    const { interval } = this.#watched.liveness;
    if (monotonicNow() - this.#heardAt < interval) {
      this.#wait();
      return;
    }
    if (this.#isSilent) return;
    this.#isSilent = true;
    this.#handlers.onUnhealthy(`no WATCHDOG=1 for ${formatDuration(interval)}`);
  }

  beat(): void {
    this.#heardAt = monotonicNow();
    if (!this.#isSilent) return;
    this.#isSilent = false;
    this.#handlers.onHealthy();
    this.#timer?.[Symbol.dispose]();
    this.#wait();
  }

  cancel(): void {
    this.#timer?.[Symbol.dispose]();
  }
}

/** A check at each interval, which may take so long, and may fail so often in a row. */
class PeriodicCheck implements LivenessWatch {
  readonly #watched: Watched;
  readonly #handlers: LivenessHandlers;
  #timer: Disposable | undefined;
  #timeout: Disposable | undefined;
  #cancelCheck: Cancel = () => {};
  #failures = 0;
  #isUnhealthy: boolean;
  #isCancelled = false;

  constructor(watched: Watched, handlers: LivenessHandlers) {
    this.#watched = watched;
    this.#handlers = handlers;
    this.#isUnhealthy = watched.wasUnhealthy;
    this.#waitForNext();
  }

  #waitForNext(): void {
    const { partition, liveness } = this.#watched;
    this.#timer = partition.loop.wakeAfter(liveness.interval, () => this.#check());
  }

  #check(): void {
    const { partition, managed, liveness } = this.#watched;
    let isOver = false;
    const settle = (why: string | undefined) => {
      if (isOver || this.#isCancelled) return;
      isOver = true;
      this.#timeout?.[Symbol.dispose]();
      // Nobody is there who could look, or who would answer: that says nothing of the process.
      if (why === undefined || !partition.isSilent) this.#note(why);
      if (!this.#isCancelled) this.#waitForNext();
    };
    if (!partition.canCheck) {
      this.#waitForNext();
      return;
    }
    const { check, timeout } = liveness;
    if (check.kind === "watchdog") return;
    this.#timeout = partition.loop.wakeAfter(timeout, () => {
      const why = `its check takes longer than ${formatDuration(timeout)}`;
      settle(why);
      this.#cancelCheck();
    });
    const handlers = this.#handlers;
    const look = checkFor(partition, managed, { check, within: timeout, handlers });
    this.#cancelCheck = look((result) =>
      settle(result === "ready" ? undefined : `its check fails (${result.why})`),
    );
  }

  #note(why: string | undefined): void {
    if (why === undefined) {
      this.#failures = 0;
      if (this.#isUnhealthy) this.#handlers.onHealthy();
      this.#isUnhealthy = false;
      return;
    }
    this.#failures += 1;
    if (this.#failures < this.#watched.liveness.failures || this.#isUnhealthy) return;
    this.#isUnhealthy = true;
    const often = this.#failures === 1 ? "" : `, ${this.#failures} times in a row`;
    this.#handlers.onUnhealthy(`${why}${often}`);
  }

  /** It says nothing by itself. */
  beat(): void {}

  cancel(): void {
    this.#isCancelled = true;
    this.#timer?.[Symbol.dispose]();
    this.#timeout?.[Symbol.dispose]();
    this.#cancelCheck();
  }
}
