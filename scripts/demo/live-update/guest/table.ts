/**
 * A table of keys and values that is nothing but the bytes of a file in memory: an index of its
 * own would have to be made anew after a change of the kernel. Open addressing, linear probing.
 */
import { ftruncateSync } from "node:fs";

const slots = 2 ** 18;
/** A byte with the key's length (0: free), a byte with the value's, then both. */
const slotBytes = 128;
const headBytes = 2;
const contentBytes = slotBytes - headBytes;
/** A table that is nearly full would be searched for long. */
const fullest = 0.9;
export const tableBytes: number = slots * slotBytes;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Table {
  readonly #bytes: Uint8Array;
  #rows = 0;

  private constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    for (let at = 0; at < bytes.length; at += slotBytes) if (bytes[at] !== 0) this.#rows += 1;
  }

  /** The table in this file; an empty one gets its size. @param descriptor stays open */
  static open(descriptor: number, size: number): Table {
    if (size === 0) ftruncateSync(descriptor, tableBytes);
    else if (size !== tableBytes) {
      throw new Error(`Expected a table of ${tableBytes} bytes, received ${size}`);
    }
    return new Table(Bun.mmap(`/proc/self/fd/${descriptor}`, { shared: true }));
  }

  get rows(): number {
    return this.#rows;
  }

  get(key: string): string | undefined {
    const name = encoder.encode(key);
    const at = this.#find(name);
    const [keyBytes = 0, valueBytes = 0] = this.#bytes.subarray(at, at + headBytes);
    if (keyBytes === 0) return undefined;
    const begin = at + headBytes + keyBytes;
    return decoder.decode(this.#bytes.subarray(begin, begin + valueBytes));
  }

  /** @returns what is wrong with the row, or undefined */
  set(key: string, value: string): string | undefined {
    const name = encoder.encode(key);
    const content = encoder.encode(value);
    const size = name.length + content.length;
    if (name.length === 0 || size > contentBytes) {
      return `expected a key, and ${contentBytes} bytes with its value; received ${size} bytes`;
    }
    const at = this.#find(name);
    const isNew = this.#bytes[at] === 0;
    if (isNew && this.#rows >= slots * fullest) return `the table is full: ${this.#rows} rows`;
    this.#bytes.set(name, at + headBytes);
    this.#bytes.set(content, at + headBytes + name.length);
    this.#bytes[at + 1] = content.length;
    this.#bytes[at] = name.length;
    if (isNew) this.#rows += 1;
    return undefined;
  }

  /** Where the key's slot begins: its own, or the free one in which it would be. */
  #find(name: Uint8Array): number {
    let slot = hashOf(name) % slots;
    for (;;) {
      const at = slot * slotBytes;
      if (this.#bytes[at] === 0 || this.#isAt(at, name)) return at;
      slot = (slot + 1) % slots;
    }
  }

  #isAt(at: number, name: Uint8Array): boolean {
    if (this.#bytes[at] !== name.length) return false;
    return name.every((byte, index) => this.#bytes[at + headBytes + index] === byte);
  }
}

/** FNV-1a. */
function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c_9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x0100_0193);
  return hash >>> 0;
}
