/** What is to happen, in order of time, and of having been planned where times are equal. */
interface Appointment {
  readonly at: number;
  readonly sequence: number;
  readonly act: () => void;
}

export class Agenda {
  /** The false clock, in milliseconds. */
  now = 0;
  readonly #limit: number;
  readonly #heap: Appointment[] = [];
  #sequence = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get nextTime(): number | undefined {
    return this.#heap[0]?.at;
  }

  after(delay: number, act: () => void): void {
    if (this.#heap.length >= this.#limit) throw new Error(`more than ${this.#limit} events wait`);
    this.#sequence += 1;
    const heap = this.#heap;
    heap.push({ at: this.now + delay, sequence: this.#sequence, act });
    for (let child = heap.length - 1; child > 0; ) {
      const parent = (child - 1) >> 1;
      if (!this.#swapUnlessOrdered(parent, child)) break;
      child = parent;
    }
  }

  /** Lets the next thing happen; false when there is none. */
  advance(): boolean {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined) return false;
    if (heap.length > 0) {
      heap[0] = last;
      this.#sink();
    }
    this.now = first.at;
    first.act();
    return true;
  }

  #sink(): void {
    for (let parent = 0; ; ) {
      const [left, right] = [2 * parent + 1, 2 * parent + 2];
      const child = right < this.#heap.length && this.#isBefore(right, left) ? right : left;
      if (child >= this.#heap.length || !this.#swapUnlessOrdered(parent, child)) return;
      parent = child;
    }
  }

  #isBefore(one: number, other: number): boolean {
    const [first, second] = [this.#heap[one], this.#heap[other]];
    if (first === undefined || second === undefined) return false;
    if (first.at !== second.at) return first.at < second.at;
    return first.sequence < second.sequence;
  }

  #swapUnlessOrdered(parent: number, child: number): boolean {
    if (!this.#isBefore(child, parent)) return false;
    const [above, below] = [this.#heap[parent], this.#heap[child]];
    if (above === undefined || below === undefined) return false;
    this.#heap[parent] = below;
    this.#heap[child] = above;
    return true;
  }
}
