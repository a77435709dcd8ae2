/** Where each event of a stream stands: its number, its id, and who waits for the one after it. */
export class EventPlaces {
  /** New in each process, so that nobody goes on in another one's numbers. */
  readonly #process: string;
  #last = 0;
  readonly #wakers = new Set<() => void>();

  constructor(process: string) {
    this.#process = process;
  }

  /** The number of the last that happened; 0 before the first. */
  get last(): number {
    return this.#last;
  }

  /** From 1, without gaps. */
  next(): number {
    this.#last += 1;
    return this.#last;
  }

  id(sequence: number): string {
    return `${this.#process}-${sequence}`;
  }

  /** @returns undefined for no id, and for one that is none of its own */
  sequenceOf(id: string | undefined): number | undefined {
    const [, process, sequence] = /^(.+)-(\d{1,15})$/.exec(id ?? "") ?? [];
    const isOwn = process === this.#process && Number(sequence) <= this.#last;
    return isOwn ? Number(sequence) : undefined;
  }

  /** Tells all who wait that there is more. */
  wake(): void {
    for (const wake of [...this.#wakers]) wake();
  }

  /** @returns when there is more, or the signal ends the wait */
  async news(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    this.#wakers.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    await promise;
    signal.removeEventListener("abort", wake);
    this.#wakers.delete(wake);
  }
}
