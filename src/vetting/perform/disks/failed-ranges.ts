import { diskTaskLimits, type FailedRange, type Pass } from "../../tasks/disk.ts";

/** Ranges that are kept one by one; over it they are counted alone, none of them joined. */
const KEPT = 65_536;

/** What of a disk failed: as many ranges as there are, of which the first are told. */
export class FailedRanges {
  readonly #kept: FailedRange[] = [];
  #bytes = 0;
  #beyond = 0;

  get bytes(): number {
    return this.#bytes;
  }

  add(range: FailedRange): void {
    this.#bytes += range.length;
    if (this.#kept.length < KEPT) this.#kept.push(range);
    else this.#beyond += 1;
  }

  /** In the order of the disk; what lies side by side, for the same reason, is one. */
  list(): Pass["failed"] {
    const joined: FailedRange[] = [];
    for (const range of this.#kept.toSorted((one, other) => one.offset - other.offset)) {
      const last = joined.at(-1);
      const isNext = last?.offset === range.offset - (last?.length ?? 0);
      if (last !== undefined && isNext && last.reason === range.reason) {
        joined[joined.length - 1] = { ...last, length: last.length + range.length };
      } else {
        joined.push(range);
      }
    }
    return {
      count: joined.length + this.#beyond,
      bytes: this.#bytes,
      ranges: joined.slice(0, diskTaskLimits.ranges),
    };
  }
}
