/** Waiting in the demo: for what is told, never for time to pass, and never for ever. */

/** Generous, because a loaded machine is slow; what works never waits for it. */
const usualMilliseconds = 15_000;

/** What was waited for did not come, or the demo was interrupted. */
export class NotSeen extends Error {
  override readonly name = "NotSeen";
}

/**
 * Something that grows by calls of `tell`, and can be waited on.
 * `Tidings.until` looks after each call, so that nothing is missed between two looks.
 */
export class Tidings {
  readonly #listeners = new Set<() => void>();
  #over: string | undefined;

  /** Something new came. */
  tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** Nothing more will come: whoever waits is told why. */
  end(reason: string): void {
    this.#over ??= reason;
    this.tell();
  }

  /**
   * @param description completes "Waited … for"
   * @returns the first value of `look` that is not undefined
   * @throws NotSeen after the deadline, or when nothing more can come
   */
  until<T>(
    description: string,
    look: () => T | undefined,
    milliseconds: number = usualMilliseconds,
  ): Promise<T> {
    const seen = Promise.withResolvers<T>();
    const listener = () => {
      const found = look();
      if (found !== undefined) seen.resolve(found);
      else if (this.#over !== undefined) {
        seen.reject(new NotSeen(`Waited for ${description}; ${this.#over}`));
      }
    };
    const timer = setTimeout(() => {
      seen.reject(new NotSeen(`Waited ${milliseconds / 1000} s for ${description}`));
    }, milliseconds);
    this.#listeners.add(listener);
    listener();
    return seen.promise.finally(() => {
      clearTimeout(timer);
      this.#listeners.delete(listener);
    });
  }
}
