/** Blocks that know where they belong: what is written, and what a changed one is taken for. */
import { describe, expect, test } from "bun:test";
import { crc32c, crc32cOfPair, KnownTails } from "../../../src/hardware/disk/crc32c.ts";
import { MarkedBlocks, UNIT } from "../../../src/vetting/perform/disks/marked-blocks.ts";
import { SeededChance } from "../../support/chance.ts";

const BLOCK = 16 * UNIT;
const nonce = (seed: number) => Uint8Array.from({ length: 16 }, (_, index) => seed + index);
const encode = (text: string) => new TextEncoder().encode(text);

describe("CRC-32C", () => {
  // RFC 3720, appendix B.4, whose bytes are in the order of the wire.
  test.each([
    ["123456789", encode("123456789"), 0xe3069283],
    ["32 zeros", new Uint8Array(32), 0x8a9136aa],
    ["32 ones", new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ["0 to 31", Uint8Array.from({ length: 32 }, (_, index) => index), 0x46dd794e],
    ["nothing", new Uint8Array(0), 0],
  ])("of %s", (_name, bytes, sum) => {
    expect(crc32c(bytes)).toBe(sum);
  });

  test("in parts it is the same, wherever it is cut", () => {
    const bytes = Uint8Array.from({ length: 100 }, (_, index) => (index * 37) & 0xff);
    for (let cut = 0; cut <= bytes.length; cut++) {
      expect(crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut)))).toBe(crc32c(bytes));
    }
  });

  test("of eight bytes as two numbers, and with an end that is known", () => {
    const bytes = Uint8Array.from({ length: 8 + 4_060 }, (_, index) => (index * 91) & 0xff);
    const view = new DataView(bytes.buffer);
    const before = crc32c(encode("beginning"));
    const head = crc32cOfPair(view.getUint32(0, true), view.getUint32(4, true), before);
    expect(head).toBe(crc32c(bytes.subarray(0, 8), before));
    const tails = new KnownTails(4_060);
    const tail = tails.add(bytes.subarray(8));
    expect(tails.follow(head, tail)).toBe(crc32c(bytes, before));
    expect(() => tails.add(new Uint8Array(1))).toThrow("Expected 4060 bytes, received 1");
  });
});

describe("marked blocks", () => {
  test("each unit says where it belongs, whose it is, and its sum", () => {
    const blocks = new MarkedBlocks(nonce(1), BLOCK);
    const memory = new Uint8Array(BLOCK);
    const offset = 3 * BLOCK + 2 ** 33;
    blocks.fill(memory, offset);
    for (let at = 0; at < BLOCK; at += UNIT) {
      const unit = memory.subarray(at, at + UNIT);
      const view = new DataView(unit.buffer, unit.byteOffset, UNIT);
      expect(new TextDecoder().decode(unit.subarray(0, 8))).toBe("hostlerV");
      expect(unit.subarray(8, 24)).toEqual(nonce(1));
      expect(view.getBigUint64(24, true)).toBe(BigInt(offset + at));
      const sum = crc32c(unit.subarray(36), crc32c(unit.subarray(0, 32)));
      expect(view.getUint32(32, true)).toBe(sum);
    }
    expect(blocks.examine(memory, offset)).toEqual([]);
  });

  test("a memory that is used again has the next block whole", () => {
    const blocks = new MarkedBlocks(nonce(1), BLOCK);
    const memory = new Uint8Array(BLOCK);
    blocks.fill(memory, 0);
    blocks.fill(memory, BLOCK);
    expect(blocks.examine(memory, BLOCK)).toEqual([]);
    expect(blocks.examine(memory, 0)).toHaveLength(16);
  });

  test("parts of a block are the same bytes, and leave no others behind", () => {
    const blocks = new MarkedBlocks(nonce(1), BLOCK);
    const whole = new Uint8Array(BLOCK);
    blocks.fill(whole, BLOCK);
    const part = new Uint8Array(BLOCK);
    blocks.fill(part.subarray(0, 3 * UNIT), BLOCK + 5 * UNIT);
    expect(part.subarray(0, 3 * UNIT)).toEqual(whole.subarray(5 * UNIT, 8 * UNIT));
    blocks.fill(part, BLOCK);
    expect(part).toEqual(whole);
  });

  test("the last unit may be a short one, and is marked as well", () => {
    const blocks = new MarkedBlocks(nonce(1), BLOCK);
    const memory = new Uint8Array(2 * UNIT + 512);
    blocks.fill(memory, BLOCK);
    expect(blocks.examine(memory, BLOCK)).toEqual([]);
    memory[2 * UNIT + 100] = (memory[2 * UNIT + 100] ?? 0) ^ 1;
    expect(blocks.examine(memory, BLOCK)).toEqual([
      { offset: BLOCK + 2 * UNIT, length: 512, reason: "1 bit differs, at byte 100" },
    ]);
  });

  test("two runs have nothing in common", () => {
    const one = new Uint8Array(BLOCK);
    const two = new Uint8Array(BLOCK);
    new MarkedBlocks(nonce(1), BLOCK).fill(one, 0);
    new MarkedBlocks(nonce(2), BLOCK).fill(two, 0);
    let equal = 0;
    for (let index = 0; index < BLOCK; index++) if (one[index] === two[index]) equal += 1;
    // Of random bytes one in 256 is equal; marks are, too.
    expect(equal).toBeLessThan(BLOCK / 64);
  });

  test("a nonce of nothing but zeros draws no zeros", () => {
    const memory = new Uint8Array(BLOCK);
    new MarkedBlocks(new Uint8Array(16), BLOCK).fill(memory, 0);
    expect(memory.filter((byte) => byte === 0).length).toBeLessThan(BLOCK / 64);
  });
});

describe("what is found", () => {
  const blocks = new MarkedBlocks(nonce(1), BLOCK);
  const fresh = (offset = 0, seed = 1): Uint8Array => {
    const memory = new Uint8Array(BLOCK);
    new MarkedBlocks(nonce(seed), BLOCK).fill(memory, offset);
    return memory;
  };

  test.each<[string, (memory: Uint8Array) => void, string]>([
    ["zeros", (memory) => memory.fill(0, 0, UNIT), "it is zero"],
    [
      "a write that was lost",
      (memory) => memory.set(fresh(0, 9).subarray(0, UNIT)),
      "it holds what an earlier run wrote: this write was lost",
    ],
    [
      "a write that came to another place",
      (memory) => memory.set(fresh(7 * BLOCK).subarray(0, UNIT)),
      "it holds what belongs at byte 458752",
    ],
    ["other bytes", (memory) => memory.fill(0x5a, 8, UNIT), "bits differ, from byte 8"],
  ])("%s", (_name, change, reason) => {
    const memory = fresh();
    change(memory);
    const found = blocks.examine(memory, 0);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ offset: 0, length: UNIT });
    expect(found[0]?.reason).toEndWith(reason);
  });

  test("one flipped bit, wherever it is: found N of N", () => {
    const chance = new SeededChance(0x5eed);
    const memory = fresh();
    const wanted = memory.slice();
    for (let turn = 0; turn < 2_000; turn++) {
      // The marks of the first unit, one bit after the other, and then anywhere.
      const bit = turn < 36 * 8 ? turn : chance.below(BLOCK * 8);
      const at = bit >> 3;
      memory[at] = (memory[at] ?? 0) ^ (1 << (bit & 7));
      const found = blocks.examine(memory, 0);
      expect([bit, found.length, found[0]?.offset]).toEqual([bit, 1, at - (at % UNIT)]);
      memory[at] = wanted[at] ?? 0;
    }
  });
});
