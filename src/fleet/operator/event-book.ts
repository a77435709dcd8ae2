import { operatorLimits, type ToldHappening } from "../protocol-operator.ts";

/** What happened last, for those who come late, and for those who follow it as it happens. */
export class HappeningBook {
  /** New in each process, so that nobody goes on in another one's numbers. */
  readonly #run: string;
  readonly #limit: number;
  #kept: { readonly sequence: number; readonly happening: ToldHappening }[] = [];
  #sequence = 0;
  readonly #wakers = new Set<() => void>();

  constructor(run: string, limit: number = operatorLimits.events) {
    this.#run = run;
    this.#limit = limit;
  }

  /** The id of the last that happened; of none before the first. */
  get last(): string {
    return `${this.#run}-${this.#sequence}`;
  }

  add(happening: ToldHappening): void {
    this.#sequence += 1;
    if (this.#kept.length >= 2 * this.#limit) this.#kept = this.#kept.slice(-this.#limit);
    this.#kept.push({ sequence: this.#sequence, happening });
    for (const wake of [...this.#wakers]) wake();
  }

  /** Kept ones after an id; all of them for none, or for one that is none of its own. */
  after(id: string | undefined): readonly { readonly id: string; readonly data: ToldHappening }[] {
    return this.#from(this.#sequenceOf(id)).map(({ sequence, happening }) => ({
      id: `${this.#run}-${sequence}`,
      data: happening,
    }));
  }

  /** What was kept after an id, then what happens, until the signal ends it. */
  async *follow(
    id: string | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<{ readonly id: string; readonly data: ToldHappening }> {
    let last = this.#sequenceOf(id);
    while (!signal.aborted) {
      // Nothing waits for a slow reader but its place: it reads on in the book.
      const [next] = this.#from(last);
      if (next === undefined) {
        await this.#news(signal);
        continue;
      }
      last = next.sequence;
      yield { id: `${this.#run}-${next.sequence}`, data: next.happening };
    }
  }

  async #news(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => resolve();
    this.#wakers.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    await promise;
    signal.removeEventListener("abort", wake);
    this.#wakers.delete(wake);
  }

  #sequenceOf(id: string | undefined): number {
    const [, run, sequence] = /^(.+)-(\d{1,15})$/.exec(id ?? "") ?? [];
    const isOwn = run === this.#run && Number(sequence) <= this.#sequence;
    return isOwn ? Number(sequence) : 0;
  }

  #from(last: number) {
    const first = Math.max(last, this.#sequence - this.#limit);
    const [oldest] = this.#kept;
    if (oldest === undefined) return [];
    return this.#kept.slice(Math.max(0, first + 1 - oldest.sequence));
  }
}
