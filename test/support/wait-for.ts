/**
 * Waiting in tests. A test waits for what it is about, with a deadline; it never waits for time
 * to pass. This file alone may sleep: between two looks at something that announces nothing.
 */

/** Time between two looks. */
const lookMilliseconds = 5;
/** Generous, because a loaded machine is slow; a test that passes never waits for it. */
const usualDeadlineMilliseconds = 20_000;

/** What was waited for did not come. */
export class DeadlineError extends Error {
  constructor(description: string, options: { milliseconds: number; cause?: unknown }) {
    super(`Waited ${options.milliseconds} ms for ${description}`, { cause: options.cause });
    this.name = "DeadlineError";
  }
}

/**
 * Looks until the probe gives something else than undefined or false.
 * @param description completes "Waited 20000 ms for …"
 * @returns what the probe gave
 * @throws DeadlineError, whose cause is what the probe threw last
 */
export async function waitFor<T>(
  description: string,
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  deadlineMilliseconds: number = usualDeadlineMilliseconds,
): Promise<T> {
  const end = performance.now() + deadlineMilliseconds;
  for (;;) {
    const look = await lookOnce(probe);
    if (look.kind === "found") return look.value;
    if (performance.now() >= end) {
      throw new DeadlineError(description, {
        milliseconds: deadlineMilliseconds,
        ...(look.kind === "threw" && { cause: look.error }),
      });
    }
    await Bun.sleep(lookMilliseconds);
  }
}

type Look<T> =
  | { kind: "found"; value: T }
  | { kind: "nothing" }
  | { kind: "threw"; error: unknown };

async function lookOnce<T>(
  probe: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<Look<T>> {
  try {
    const value = await probe();
    return value === undefined || value === false ? { kind: "nothing" } : { kind: "found", value };
  } catch (error) {
    return { kind: "threw", error };
  }
}

/**
 * Waits for an event that a promise stands for.
 * @throws DeadlineError when it does not come; whatever the promise is rejected with
 */
export async function withDeadline<T>(
  description: string,
  event: Promise<T>,
  deadlineMilliseconds: number = usualDeadlineMilliseconds,
): Promise<T> {
  let timer: Timer | undefined;
  const deadline = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(
      () => reject(new DeadlineError(description, { milliseconds: deadlineMilliseconds })),
      deadlineMilliseconds,
    );
  });
  try {
    return await Promise.race([event, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * What a promise is rejected with. Use this in place of `expect(promise).rejects`: Bun's runs the
 * event loop inside of itself until the promise settles, and then the end of a child's pipe can
 * be lost (seen with 1.4.5, in about one of three runs).
 */
export async function rejectionOf(promise: Promise<unknown>): Promise<Error> {
  const outcome = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (outcome instanceof Error) return outcome;
  throw new Error(`Expected a rejection with an Error, and got ${Bun.inspect(outcome)}`);
}
