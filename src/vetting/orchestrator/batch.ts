import { ProblemError } from "../../http/problem.ts";
import { isNoRoom } from "../../store/database.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { LiveEvent } from "../protocol-operator.ts";

/** One thing that is written with others; each has an answer that waits until all are durable. */
export interface Change {
  readonly write: () => void;
  /** Takes back what is in memory of it: nothing that was not written is decided by. */
  readonly undo: () => void;
  /** What is told of it when it is durable. */
  readonly tell?: () => readonly LiveEvent[];
}

/** Between the first change of a batch and its commit: others come with it. */
const SOON: Milliseconds = 10;
/** Of lines and readings, which nobody waits for, and of which a thousand hosts send many. */
export const LATER: Milliseconds = 200;

export interface BatchOptions {
  readonly transaction: (act: () => void) => void;
  readonly wakeAfter: (wait: Milliseconds, call: () => void) => Disposable;
  readonly onTold: (events: readonly LiveEvent[]) => void;
  readonly onTrouble: (message: string) => void;
}

/**
 * Writes what comes within a short moment in one transaction. All of it is durable, or none is and
 * all who wait are refused: a host tells again, and an operator is told what to do.
 */
export class BatchWriter {
  readonly #options: BatchOptions;
  readonly #commits = { done: 0, failed: 0 };
  #changes: Change[] = [];
  #waiting = Promise.withResolvers<void>();
  #timer: Disposable | undefined;
  #isSoon = false;

  constructor(options: BatchOptions) {
    this.#options = options;
  }

  /** How often, since it began. */
  get commits(): { readonly done: number; readonly failed: number } {
    return this.#commits;
  }

  /** @returns when it is durable; rejected with a ProblemError when it could not be written */
  add(change: Change, within: Milliseconds = SOON): Promise<void> {
    this.#changes.push(change);
    if (this.#timer === undefined || (within === SOON && !this.#isSoon)) {
      this.#timer?.[Symbol.dispose]();
      this.#isSoon = within === SOON;
      this.#timer = this.#options.wakeAfter(within, () => this.commit());
    }
    return this.#waiting.promise;
  }

  /** What there is, at once. */
  commit(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    this.#isSoon = false;
    const changes = this.#changes;
    const waiting = this.#waiting;
    if (changes.length === 0) return;
    this.#changes = [];
    this.#waiting = Promise.withResolvers<void>();
    // Who asked may be gone, and nobody else waits.
    waiting.promise.catch(() => {});
    try {
      this.#options.transaction(() => {
        for (const { write } of changes) write();
      });
    } catch (error) {
      this.#commits.failed += 1;
      for (const { undo } of changes.toReversed()) undo();
      const problem = refusalOf(error);
      this.#options.onTrouble(problem.message);
      waiting.reject(problem);
      return;
    }
    this.#commits.done += 1;
    this.#options.onTold(changes.flatMap(({ tell }) => tell?.() ?? []));
    waiting.resolve();
  }
}

function refusalOf(error: unknown): ProblemError {
  const { message } = error as Error;
  if (isNoRoom(error)) {
    return new ProblemError("full", `The orchestrator's disk is full: ${message}`, {
      expected: "room for what is to be written",
      received: "none",
      hint: "Make room in its state directory, or keep less by --retain; then ask again",
      retryAfter: 10_000,
    });
  }
  return new ProblemError("unavailable", `The orchestrator could not write: ${message}`, {
    hint: "Its log has the reason; ask again",
    retryAfter: 10_000,
    cause: error,
  });
}
