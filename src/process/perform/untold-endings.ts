import { statusOf } from "./process-table.ts";

/**
 * Of one process so many dead instances may wait to be reaped by others, each with its pidfd. Where
 * nobody reaps what an agent that was killed has left, there would be one more for each restart.
 */
export const UNTOLD_LIMIT = 3;

/** A dead instance of which nobody has told how it ended. */
export interface Untold {
  readonly processId: number;
  /** Whoever inherited it from its agent has not reaped it. */
  readonly isLeftUnreaped: boolean;
  /** Its ending is unknown from now on. */
  giveUp(): void;
}

/** Dead instances of each process whose endings are awaited: the newest few. */
export class UntoldEndings {
  readonly #byName = new Map<string, readonly Untold[]>();
  readonly #onUnreaped: (message: string) => void;
  #isSaid = false;

  /** @param onUnreaped told once, with the cause and the mend */
  constructor(onUnreaped: (message: string) => void) {
    this.#onUnreaped = onUnreaped;
  }

  /** Notes one more; the oldest is given up when there are more than may be. */
  add(name: string, instance: Untold): void {
    const untold = [...(this.#byName.get(name) ?? []), instance];
    const oldest = untold.length > UNTOLD_LIMIT ? untold.shift() : undefined;
    this.#byName.set(name, untold);
    if (oldest === undefined) return;
    if (oldest.isLeftUnreaped && !this.#isSaid) {
      this.#isSaid = true;
      this.#onUnreaped(describeUnreaped(statusOf(oldest.processId)?.parentId));
    }
    oldest.giveUp();
  }

  /** It was told, or is given up. */
  delete(name: string, instance: Untold): void {
    const untold = (this.#byName.get(name) ?? []).filter((other) => other !== instance);
    if (untold.length === 0) this.#byName.delete(name);
    else this.#byName.set(name, untold);
  }
}

/** Who should reap in a partition, as the host numbers it, does not. */
function describeUnreaped(parentId: number | undefined): string {
  const who = parentId === undefined ? "the first process there" : `process ${parentId}`;
  return (
    `nobody reaps what an agent that is gone has left: expected that ${who}, which inherited it, ` +
    "waits for it. How it ended stays unknown, and zombies pile up. Give the partition a first " +
    "process that reaps, as podman run --init does"
  );
}
