import { describe, expect, test } from "bun:test";
import {
  type BlockEntry,
  mostFrameBytes,
  nextRange,
  readBlockMap,
  writeBlockMap,
} from "../../../src/artifact/protocol-blocks.ts";
import { lookAtExecutable } from "../../../src/artifact/protocol-executable.ts";
import { executable } from "../../support/artifact.ts";
import { SeededChance } from "../../support/chance.ts";

const blockBytes = 4_096;
const entryOf = (number: number, frameSize: number): BlockEntry => ({
  digest: new Uint8Array(32).fill(number),
  frameDigest: new Uint8Array(32).fill(number + 100),
  frameSize,
});
const size = blockBytes * 4 + 100;
const entries = [10, 20, 30, 40, 50].map((frameSize, index) => entryOf(index, frameSize));
const bytes = writeBlockMap({ blockBytes, size, entries });

const mapOf = (of: Uint8Array, told = size) => {
  const map = readBlockMap(of, told);
  if (!("blocks" in map)) throw new Error(map.expected);
  return map;
};

describe("a block map", () => {
  test("says of each block where it is, and where its frame is", () => {
    const map = mapOf(bytes);
    expect(map.frameBytes).toBe(150);
    expect(map.blocks.map(({ position }) => position)).toEqual([0, 4_096, 8_192, 12_288, 16_384]);
    expect(map.blocks.map((block) => block.size)).toEqual([4_096, 4_096, 4_096, 4_096, 100]);
    expect(map.blocks.map(({ framePosition }) => framePosition)).toEqual([0, 10, 30, 60, 100]);
    expect(map.blocks[3]?.digest).toEqual(new Uint8Array(32).fill(3));
    expect(map.blocks[3]?.frameDigest).toEqual(new Uint8Array(32).fill(103));
  });

  test("has 32 bytes, and 68 for each block", () => {
    expect(bytes.length).toBe(32 + 5 * 68);
    expect(new TextDecoder().decode(bytes.subarray(0, 16))).toBe("hostler-blocks-1");
  });

  const changed = (change: (view: DataView, copy: Uint8Array) => void): Uint8Array => {
    const copy = bytes.slice();
    change(new DataView(copy.buffer), copy);
    return copy;
  };
  test.each<[string, Uint8Array, string]>([
    ["is too short", bytes.subarray(0, 31), "31 bytes"],
    ["begins otherwise", changed((_view, copy) => copy.set([0], 3)), "something else"],
    ["has small blocks", changed((view) => view.setUint32(16, 1_024, true)), "1024"],
    ["has large blocks", changed((view) => view.setUint32(16, 8_388_608, true)), "8388608"],
    ["has no size for its blocks", changed((view) => view.setUint32(16, 0, true)), "0"],
    ["has another size", changed((view) => view.setBigUint64(24, 1n, true)), "1"],
    ["has too few blocks", changed((view) => view.setUint32(20, 4, true)), "4"],
    [
      "has too many blocks",
      changed((view) => view.setUint32(20, 4_000_000_000, true)),
      "4000000000",
    ],
    ["is cut", bytes.subarray(0, -1), `${bytes.length - 1} bytes`],
    ["is longer", Buffer.concat([bytes, Buffer.alloc(1)]), `${bytes.length + 1} bytes`],
    ["has an empty frame", changed((view) => view.setUint32(32 + 64, 0, true)), "0"],
    [
      "has a frame that unpacks to more than a block",
      changed((view) => view.setUint32(32 + 4 * 68 + 64, mostFrameBytes(100) + 1, true)),
      `${mostFrameBytes(100) + 1}`,
    ],
  ])("that %s is refused", (_what, wrong, received) => {
    expect(readBlockMap(wrong, size)).toMatchObject({ received });
  });

  test("of changed bytes is read or refused, and never throws", () => {
    const chance = new SeededChance(6);
    for (let count = 0; count < 2_000; count += 1) {
      const copy = bytes.slice(0, chance.happens(0.2) ? chance.below(bytes.length) : bytes.length);
      for (let changes = chance.below(4); changes >= 0 && copy.length > 0; changes -= 1) {
        copy[chance.below(copy.length)] = chance.below(256);
      }
      const map = readBlockMap(copy, size);
      expect("blocks" in map ? map.blocks.length : map.received.length).toBeGreaterThan(0);
    }
  });
});

describe("what is asked for at once", () => {
  const map = mapOf(bytes);

  test("is missing neighbours", () => {
    expect(nextRange(map, [1, 2, 4], 1_000)).toEqual({ first: 1, end: 3, position: 10, bytes: 50 });
    expect(nextRange(map, [4], 1_000)).toEqual({ first: 4, end: 5, position: 100, bytes: 50 });
  });

  test("is no more than fits, and one frame at least", () => {
    expect(nextRange(map, [0, 1, 2], 30)).toEqual({ first: 0, end: 2, position: 0, bytes: 30 });
    expect(nextRange(map, [3, 4], 1)).toEqual({ first: 3, end: 4, position: 60, bytes: 40 });
  });

  test("is nothing where nothing is missing", () => {
    expect(nextRange(map, [], 1_000)).toBeUndefined();
  });
});

describe("an executable", () => {
  const of = (options: { machine?: number; interpreter?: string }) =>
    lookAtExecutable(executable({ size: 4_096, seed: 1, ...options }));

  test("says for whom it is", () => {
    expect(of({})).toEqual({ kind: "executable", architecture: "x64", libc: "glibc" });
    expect(of({ machine: 183, interpreter: "/lib/ld-linux-aarch64.so.1" })).toEqual({
      ...{ kind: "executable", architecture: "arm64", libc: "glibc" },
    });
    expect(of({ interpreter: "/lib/ld-musl-x86_64.so.1" })).toMatchObject({ libc: "musl" });
  });

  test("of another kind is told as what it is", () => {
    expect(of({ machine: 40 })).toEqual({ kind: "other", received: "an ELF file for machine 40" });
    expect(of({ interpreter: "/lib/ld.so" })).toMatchObject({
      received: 'an ELF file for "/lib/ld.so"',
    });
    expect(lookAtExecutable(Buffer.from("#!/bin/sh\n"))).toMatchObject({ received: "no ELF file" });
    expect(lookAtExecutable(new Uint8Array())).toMatchObject({ received: "no ELF file" });
  });

  test("whose headers lead out of it is none", () => {
    const bytes = executable({ size: 4_096, seed: 1 });
    bytes.writeBigUInt64LE(1n << 60n, 32);
    expect(lookAtExecutable(bytes)).toMatchObject({
      received: "an ELF file without an interpreter",
    });
    const far = executable({ size: 4_096, seed: 1 });
    far.writeBigUInt64LE(1n << 60n, 72);
    expect(lookAtExecutable(far)).toMatchObject({ kind: "other" });
  });

  test("of changed bytes never throws", () => {
    const chance = new SeededChance(7);
    for (let count = 0; count < 2_000; count += 1) {
      const bytes = executable({ size: 300, seed: 1 });
      for (let changes = 0; changes < 3; changes += 1) bytes[chance.below(256)] = chance.below(256);
      expect(lookAtExecutable(bytes.subarray(0, chance.below(300))).kind).toBeString();
    }
  });
});
