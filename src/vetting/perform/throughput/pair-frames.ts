import { PATTERN_BYTES, patternWords } from "../../throughput/protocol.ts";

/** Bytes of the shortest frame of Ethernet, less its header and its checksum. */
export const LEAST_FRAME = 46;

const MARK = new TextEncoder().encode("hostlerP");
const NONCE_BYTES = 16;
const NUMBER_AT = MARK.length + NONCE_BYTES;
const HEADER = NUMBER_AT + 4;

const pattern = new Uint8Array(patternWords().buffer);

/**
 * Frames of one pair in one direction: short and as long as the link takes in turn. Each has a
 * mark, a nonce that no other pair has, its number, and bytes of the pattern that its number says.
 */
export class PairFrames {
  readonly #longest: number;
  readonly #nonce: Uint8Array;
  readonly #seen = new Set<number>();
  /** Frames that came, each once, and those of them that hold other bytes than were sent. */
  received = 0;
  wrong = 0;

  constructor(longest: number, nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES))) {
    this.#longest = Math.min(longest, PATTERN_BYTES / 2);
    this.#nonce = nonce;
  }

  frame(number: number): Uint8Array {
    const bytes = new Uint8Array(number % 2 === 0 ? this.#longest : LEAST_FRAME);
    const from = (number * 64) % (PATTERN_BYTES / 2);
    bytes.set(pattern.subarray(from, from + bytes.length));
    bytes.set(MARK);
    bytes.set(this.#nonce, MARK.length);
    new DataView(bytes.buffer).setUint32(NUMBER_AT, number, true);
    return bytes;
  }

  /** @returns false for what is none of these, or came before */
  take(bytes: Uint8Array): boolean {
    if (bytes.length < HEADER) return false;
    const begin = Buffer.from(bytes.subarray(0, NUMBER_AT));
    if (!begin.equals(Buffer.concat([MARK, this.#nonce]))) return false;
    const number = new DataView(bytes.buffer, bytes.byteOffset).getUint32(NUMBER_AT, true);
    if (this.#seen.has(number)) return false;
    this.#seen.add(number);
    this.received += 1;
    const expected = this.frame(number);
    // A card may fill what is shorter than Ethernet's least.
    if (!Buffer.from(bytes.subarray(0, expected.length)).equals(expected)) this.wrong += 1;
    return true;
  }
}
