import { viewOf } from "./octets.ts";

/**
 * CRC-32C (Castagnoli; RFC 3720, appendix B.4): the polynomial that disks and file systems take,
 * reflected. Bun.hash.crc32 and zlib's are of another one. Pure.
 */
const POLYNOMIAL = 0x82f63b78;

type EightTables = readonly [
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
  Uint32Array,
];

/** Of 256 each: what a byte does to the sum from each place of eight. */
const eightTables: EightTables = makeTables();

function makeTables(): EightTables {
  const first = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let sum = byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ ((sum & 1) === 1 ? POLYNOMIAL : 0);
    first[byte] = sum >>> 0;
  }
  const next = (table: Uint32Array) =>
    table.map((sum) => (sum >>> 8) ^ (first[sum & 0xff] as number));
  const second = next(first);
  const third = next(second);
  const fourth = next(third);
  const fifth = next(fourth);
  const sixth = next(fifth);
  const seventh = next(sixth);
  return [first, second, third, fourth, fifth, sixth, seventh, next(seventh)];
}

/** @param before of what stands before these bytes; 0 of nothing */
export function crc32c(bytes: Uint8Array, before = 0): number {
  return ~advance(bytes, ~before) >>> 0;
}

/** The sum without the inversions at its beginning and end, which is linear. */
function advance(bytes: Uint8Array, start: number): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = eightTables;
  const whole = bytes.length - (bytes.length % 8);
  const view = viewOf(bytes);
  let sum = start;
  let index = 0;
  for (; index < whole; index += 8) {
    const low = sum ^ view.getInt32(index, true);
    const high = view.getInt32(index + 4, true);
    sum =
      (t7[low & 0xff] as number) ^
      (t6[(low >>> 8) & 0xff] as number) ^
      (t5[(low >>> 16) & 0xff] as number) ^
      (t4[low >>> 24] as number) ^
      (t3[high & 0xff] as number) ^
      (t2[(high >>> 8) & 0xff] as number) ^
      (t1[(high >>> 16) & 0xff] as number) ^
      (t0[high >>> 24] as number);
  }
  for (; index < bytes.length; index++) {
    sum = (sum >>> 8) ^ (t0[(sum ^ (bytes[index] as number)) & 0xff] as number);
  }
  return sum;
}

/** The sum with eight more bytes: two little-endian numbers of 32 bits. */
export function crc32cOfPair(low: number, high: number, before: number): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = eightTables;
  const first = ~before ^ low;
  return (
    ~(
      (t7[first & 0xff] as number) ^
      (t6[(first >>> 8) & 0xff] as number) ^
      (t5[(first >>> 16) & 0xff] as number) ^
      (t4[first >>> 24] as number) ^
      (t3[high & 0xff] as number) ^
      (t2[(high >>> 8) & 0xff] as number) ^
      (t1[(high >>> 16) & 0xff] as number) ^
      (t0[high >>> 24] as number)
    ) >>> 0
  );
}

/**
 * Sums of texts that end in one of a few long ones, all of one length: what such an end adds is
 * worked out once, because CRC is linear. `follow(crc32c(head), add(tail))` is
 * `crc32c(head + tail)`.
 */
export class KnownTails {
  readonly #length: number;
  /** What each of the sum's four bytes becomes when so many zeros follow. */
  readonly #shift: readonly [Uint32Array, Uint32Array, Uint32Array, Uint32Array];

  constructor(length: number) {
    this.#length = length;
    const zeros = new Uint8Array(length);
    const bits = Array.from({ length: 32 }, (_, bit) => advance(zeros, 1 << bit));
    const byteAt = (place: number) =>
      Uint32Array.from({ length: 256 }, (_, byte) => {
        let sum = 0;
        for (let bit = 0; bit < 8; bit++) {
          if (((byte >> bit) & 1) === 1) sum ^= bits[place * 8 + bit] ?? 0;
        }
        return sum;
      });
    this.#shift = [byteAt(0), byteAt(1), byteAt(2), byteAt(3)];
  }

  /** @returns what `follow` is told of this end */
  add(tail: Uint8Array): number {
    if (tail.length !== this.#length) {
      throw new RangeError(`Expected ${this.#length} bytes, received ${tail.length}`);
    }
    return advance(tail, 0);
  }

  follow(head: number, tail: number): number {
    const [s0, s1, s2, s3] = this.#shift;
    const sum = ~head;
    return (
      ~(
        (s0[sum & 0xff] as number) ^
        (s1[(sum >>> 8) & 0xff] as number) ^
        (s2[(sum >>> 16) & 0xff] as number) ^
        (s3[sum >>> 24] as number) ^
        tail
      ) >>> 0
    );
  }
}
