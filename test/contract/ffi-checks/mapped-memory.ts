/** Memory outside of the heap, and the processor that a thread is tied to. */
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { readFileSync } from "node:fs";
import { currentProcessor, MOST_PROCESSORS, tieThread } from "../../../ffi/affinity.ts";
import { MappedMemory, mapMemory } from "../../../ffi/mapped-memory.ts";
import { monotonicNanoseconds, threadNanoseconds } from "../../../ffi/process.ts";
import type { Check } from "./check.ts";

const SIZE = 2 * 1024 ** 2;

/** The numbers of a list such as "0-3,8". */
function allowedProcessors(): number[] {
  const status = readFileSync("/proc/thread-self/status", "utf8");
  const list = /^Cpus_allowed_list:\s*(.+)$/m.exec(status)?.[1] ?? "";
  return list.split(",").flatMap((part) => {
    const [first = 0, last = first] = part.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}

export const mappedMemoryChecks: readonly Check[] = [
  {
    name: "mapped memory is zero, takes bytes, compares, and reads words",
    run: () => {
      using memory = mapMemory(SIZE);
      using other = mapMemory(SIZE);
      strictEqual(memory.wordAt(SIZE - 8), 0n);
      other.words()[2] = 0x89abcdef;
      other.words()[3] = 0x01234567;
      memory.copyFrom(other.address, { offset: 0, size: SIZE });
      strictEqual(memory.wordAt(8), 0x0123_4567_89ab_cdefn);
      strictEqual(memory.equals(other.address, { offset: 0, size: SIZE }), true);
      memory.words()[SIZE / 4 - 1] = 1;
      strictEqual(memory.equals(other.address, { offset: 0, size: SIZE }), false);
      strictEqual(memory.equals(other.address, { offset: 0, size: SIZE - 4 }), true);
      memory.copyTo(other.at(0), { offset: SIZE - 8, size: 8 });
      strictEqual(other.wordAt(0), 0x1_0000_0000n);
    },
  },
  {
    name: "nothing is read or written outside of mapped memory, or after it was given back",
    run: () => {
      const memory = mapMemory(4096);
      throws(() => memory.copyFrom(memory.address, { offset: 4000, size: 97 }), RangeError);
      throws(() => memory.equals(memory.address, { offset: -1, size: 1 }), RangeError);
      throws(() => memory.wordAt(4089), RangeError);
      memory[Symbol.dispose]();
      memory[Symbol.dispose]();
      throws(() => memory.wordAt(0), /given back/);
    },
  },
  {
    name: "mapped memory is bound to a node that there is, and to no other",
    unlikeEmulator: "the emulator knows no mbind",
    run: () => {
      using memory = mapMemory(SIZE);
      strictEqual(memory.bindToNode(0), true);
      strictEqual(memory.bindToNode(63), false);
      strictEqual(memory.bindToNode(64), false);
    },
  },
  {
    name: "more than the machine can address is not mapped",
    run: () => strictEqual(MappedMemory.map(2 ** 50), undefined),
  },
  {
    name: "a thread is tied to one processor, and to none that is not there",
    unlikeEmulator: "a thread's processors are those of the emulator's own thread",
    run: () => {
      const allowed = allowedProcessors();
      strictEqual(tieThread([MOST_PROCESSORS - 1]), false);
      throws(() => tieThread([MOST_PROCESSORS]), RangeError);
      throws(() => tieThread([-1]), RangeError);
      for (const processor of allowed) {
        strictEqual(tieThread([processor]), true);
        strictEqual(currentProcessor(), processor);
        deepStrictEqual(allowedProcessors(), [processor]);
      }
      strictEqual(tieThread(allowed), true);
      deepStrictEqual(allowedProcessors(), allowed);
    },
  },
  {
    name: "the time that a thread has had is no more than has passed",
    run: () => {
      const [begin, had] = [monotonicNanoseconds(), threadNanoseconds()];
      let sum = 0;
      while (threadNanoseconds() - had < 2_000_000) sum += 1;
      strictEqual(sum > 0, true);
      strictEqual(monotonicNanoseconds() - begin >= 2_000_000, true);
    },
  },
];
