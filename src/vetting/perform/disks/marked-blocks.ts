import { crc32c, crc32cOfPair, KnownTails } from "../../../hardware/disk/crc32c.ts";
import { viewOf } from "../../../hardware/disk/octets.ts";
import type { FailedRange } from "../../tasks/disk.ts";

/**
 * What is written over a disk: units of 4096 bytes, each of which says where it belongs, whose it
 * is, and what it sums up to, so that a unit that is found can be told from one that was lost, came
 * to another place, or changed. Little-endian:
 *
 *     0 "hostlerV"   8 nonce of the run, 16 bytes   24 offset on the disk   32 CRC-32C of the rest
 *
 * After that stands chance, drawn from the nonce, so that a disk cannot make it smaller. The disk's
 * last unit may be a short one.
 */
export const UNIT = 4_096;
const MAGIC = new TextEncoder().encode("hostlerV");
const NONCE_AT = 8;
export const NONCE_BYTES = 16;
const OFFSET_AT = 24;
const SUM_AT = 32;
const HEAD = 36;

export class MarkedBlocks {
  readonly #blockBytes: number;
  /** A block with everything in it but offsets and sums. */
  readonly #pattern: Buffer;
  /** The same with those of the block that is looked for. */
  readonly #expected: Buffer;
  readonly #expectedWords: Uint32Array;
  /** Of what stands before the offset. */
  readonly #beginning: number;
  readonly #tails = new KnownTails(UNIT - HEAD);
  /** By the unit's place in the block. */
  readonly #tailSums: Uint32Array;
  /** Memory that has the pattern in it already, and is changed by nobody else. */
  readonly #prepared = new WeakSet<ArrayBufferLike>();

  /** @param blockBytes a multiple of UNIT */
  constructor(nonce: Uint8Array, blockBytes: number) {
    if (nonce.length !== NONCE_BYTES || blockBytes % UNIT !== 0) {
      throw new RangeError(`Bug: a nonce of ${nonce.length} bytes, blocks of ${blockBytes}`);
    }
    this.#blockBytes = blockBytes;
    this.#pattern = Buffer.from(new Uint8Array(blockBytes).buffer);
    drawInto(this.#pattern, nonce);
    for (let at = 0; at < blockBytes; at += UNIT) {
      this.#pattern.set(MAGIC, at);
      this.#pattern.set(nonce, at + NONCE_AT);
    }
    this.#expected = Buffer.from(new Uint8Array(blockBytes).buffer);
    this.#expected.set(this.#pattern);
    this.#expectedWords = wordsOf(this.#expected);
    this.#beginning = crc32c(this.#pattern.subarray(0, OFFSET_AT));
    this.#tailSums = Uint32Array.from({ length: blockBytes / UNIT }, (_, index) =>
      this.#tails.add(this.#pattern.subarray(index * UNIT + HEAD, (index + 1) * UNIT)),
    );
  }

  /** What is to be written from this byte of the disk on, a multiple of UNIT. */
  fill(memory: Uint8Array, offset: number): void {
    const isWhole = memory.length === this.#blockBytes && offset % this.#blockBytes === 0;
    if (!isWhole || !this.#prepared.has(memory.buffer)) {
      const at = offset % this.#blockBytes;
      memory.set(this.#pattern.subarray(at, at + memory.length));
      if (isWhole) this.#prepared.add(memory.buffer);
      else this.#prepared.delete(memory.buffer);
    }
    this.#mark(memory, wordsOf(memory), offset);
  }

  /** Units that are not as they were written, and what they are in place of it. */
  examine(memory: Uint8Array, offset: number): FailedRange[] {
    const at = offset % this.#blockBytes;
    const expected = this.#expected.subarray(at, at + memory.length);
    this.#mark(expected, this.#expectedWords.subarray(at / 4), offset);
    if (expected.equals(memory)) return [];
    const wrong: FailedRange[] = [];
    for (let start = 0; start < memory.length; start += UNIT) {
      const found = memory.subarray(start, start + UNIT);
      const wanted = expected.subarray(start, start + UNIT);
      if (wanted.equals(found)) continue;
      const reason = this.#describe(found, wanted);
      wrong.push({ offset: offset + start, length: found.length, reason });
    }
    return wrong;
  }

  /** Offsets and sums of whole units by words; of a short one by its bytes. */
  #mark(memory: Uint8Array, words: Uint32Array, offset: number): void {
    const whole = Math.floor(memory.length / UNIT);
    let place = (offset % this.#blockBytes) / UNIT;
    let position = offset;
    for (let word = OFFSET_AT / 4; word < (whole * UNIT) / 4; word += UNIT / 4) {
      const low = position >>> 0;
      const high = (position / 0x1_0000_0000) | 0;
      const head = crc32cOfPair(low, high, this.#beginning);
      words[word] = low;
      words[word + 1] = high;
      words[word + 2] = this.#tails.follow(head, this.#tailSums[place] as number);
      place += 1;
      position += UNIT;
    }
    if (memory.length % UNIT !== 0) markShort(memory.subarray(whole * UNIT), position);
  }

  #describe(found: Uint8Array, wanted: Uint8Array): string {
    if (found.every((byte) => byte === 0)) return "it is zero";
    const isOurs = startsWith(found, MAGIC) && sumOf(found) === readSum(found);
    if (!isOurs) return differences(found, wanted);
    const isThisRun = Buffer.compare(found.subarray(0, OFFSET_AT), wanted.subarray(0, OFFSET_AT));
    if (isThisRun !== 0) return "it holds what an earlier run wrote: this write was lost";
    return `it holds what belongs at byte ${readOffset(found)}`;
  }
}

function markShort(unit: Uint8Array, offset: number): void {
  const view = viewOf(unit);
  view.setBigUint64(OFFSET_AT, BigInt(offset), true);
  view.setUint32(SUM_AT, sumOf(unit), true);
}

function sumOf(unit: Uint8Array): number {
  return crc32c(unit.subarray(HEAD), crc32c(unit.subarray(0, SUM_AT)));
}

const readSum = (unit: Uint8Array): number => viewOf(unit).getUint32(SUM_AT, true);
const readOffset = (unit: Uint8Array): number => Number(viewOf(unit).getBigUint64(OFFSET_AT, true));

function startsWith(bytes: Uint8Array, beginning: Uint8Array): boolean {
  return beginning.every((byte, index) => bytes[index] === byte);
}

/** "1 bit differs, at byte 77", of this unit. */
function differences(found: Uint8Array, wanted: Uint8Array): string {
  let bits = 0;
  let first = -1;
  for (let index = 0; index < wanted.length; index++) {
    let changed = (found[index] ?? 0) ^ (wanted[index] ?? 0);
    if (changed !== 0 && first < 0) first = index;
    for (; changed !== 0; changed &= changed - 1) bits += 1;
  }
  return bits === 1 ? `1 bit differs, at byte ${first}` : `${bits} bits differ, from byte ${first}`;
}

/** xoshiro128**, of Blackman and Vigna: fast, and no two runs alike. */
function drawInto(bytes: Uint8Array, nonce: Uint8Array): void {
  const words = wordsOf(bytes);
  const seed = viewOf(nonce);
  let [a, b, c, d] = [0, 4, 8, 12].map((at) => seed.getUint32(at, true)) as [
    number,
    number,
    number,
    number,
  ];
  // A state of nothing but zeros stays one.
  if ((a | b | c | d) === 0) a = 1;
  for (let index = 0; index < words.length; index++) {
    words[index] = Math.imul(rotate(Math.imul(b, 5), 7), 9);
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = rotate(d, 11);
  }
}

const rotate = (value: number, bits: number): number => (value << bits) | (value >>> (32 - bits));

/** Whole words alone; a memory for transfers begins at a multiple of 4096. */
function wordsOf(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, Math.floor(bytes.length / 4));
}
