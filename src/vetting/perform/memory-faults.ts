import type { MemoryFlips } from "../../../ffi/fault-hooks.ts";
import type { MappedMemory } from "../../../ffi/mapped-memory.ts";
import { type MemoryPattern, memoryPatterns } from "../tasks/memory.ts";

/**
 * For the build for fault tests: flips bits of memory that was filled and is not yet compared, each
 * in a word of its own, at places that a seed says, the patterns in turn.
 */
export function flipBits({ count, seed }: MemoryFlips) {
  return (pattern: MemoryPattern, regions: readonly MappedMemory[]): void => {
    const size = regions.reduce((sum, region) => sum + region.size / 8, 0);
    if (size < count) return;
    const flipped = new Set<number>();
    let state = (seed >>> 0) + memoryPatterns.indexOf(pattern) + 1;
    for (let number = 0; number < count; number += 1) {
      if (number % memoryPatterns.length !== memoryPatterns.indexOf(pattern)) continue;
      do {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      } while (flipped.has(state % size));
      flipped.add(state % size);
      flip(regions, state % size, state >>> 27);
    }
  };
}

/** Flips one bit of the lower half of a word, counted over all regions. */
function flip(regions: readonly MappedMemory[], word: number, bit: number): void {
  let left = word;
  for (const region of regions) {
    const words = region.size / 8;
    if (left >= words) {
      left -= words;
      continue;
    }
    const halves = region.words();
    halves[left * 2] = (halves[left * 2] ?? 0) ^ (1 << bit);
    return;
  }
}
