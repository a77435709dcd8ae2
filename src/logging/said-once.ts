/**
 * What has been said since something changed: a peer that tries again and again says nothing new.
 * Of the newest so many it is known; whoever gives a reason anew each time is heard again.
 */
export class SaidOnce {
  readonly #limit: number;
  readonly #said = new Set<string>();

  /** @param limit 1: what was said last alone, so that a change back is said as well */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** True when it has not been said yet; it counts as said from now on. */
  isNew(message: string): boolean {
    if (this.#said.has(message)) return false;
    const [oldest] = this.#said;
    if (this.#said.size >= this.#limit && oldest !== undefined) this.#said.delete(oldest);
    this.#said.add(message);
    return true;
  }

  /** Things are different: all is new again. */
  forget(): void {
    this.#said.clear();
  }
}
