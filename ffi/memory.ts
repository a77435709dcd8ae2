import { type Pointer, ptr, read } from "bun:ffi";

/**
 * Memory that a system call may read or write: zeroed, at an address that stays the same as long
 * as this object is reachable. (A small typed array made by its length alone may move when its
 * `.buffer` is first asked for; one made from an ArrayBuffer does not.)
 */
export class NativeMemory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  readonly address: Pointer;

  constructor(size: number) {
    const buffer = new ArrayBuffer(Math.max(size, 1));
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.address = ptr(buffer);
  }

  get size(): number {
    return this.bytes.length;
  }

  /** The address of a byte inside this memory. */
  at(offset: number): Pointer {
    return (this.address + offset) as Pointer;
  }

  /** Writes an address as a 64-bit little-endian pointer. */
  setPointer(offset: number, value: number): void {
    this.view.setUint32(offset, value >>> 0, true);
    this.view.setUint32(offset + 4, Math.floor(value / 0x1_0000_0000), true);
  }

  /** Writes a non-negative integer below 2^53 as 64 bits, little-endian. */
  setUnsigned64(offset: number, value: number): void {
    this.setPointer(offset, value);
  }

  /** Reads 64 bits as a number; exact below 2^53. */
  getUnsigned64(offset: number): number {
    const high = this.view.getUint32(offset + 4, true);
    return high * 0x1_0000_0000 + this.view.getUint32(offset, true);
  }
}

/** The address that C calls NULL. */
export const nullAddress = null as unknown as Pointer;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * The text as a C string: UTF-8, ended by a zero byte.
 * @throws RangeError when the text itself holds a zero byte, which C would take for the end.
 */
export function cString(text: string): NativeMemory {
  if (text.includes("\0")) {
    throw new RangeError(`Expected text without a zero byte, received ${JSON.stringify(text)}`);
  }
  const encoded = encoder.encode(text);
  const memory = new NativeMemory(encoded.length + 1);
  memory.bytes.set(encoded);
  return memory;
}

/** Reads the C string at an address that the C library gave us; at most `limit` bytes. */
export function readCString(address: Pointer, limit = 4096): string {
  const bytes: number[] = [];
  for (let offset = 0; offset < limit; offset++) {
    const byte = read.u8(address, offset);
    if (byte === 0) break;
    bytes.push(byte);
  }
  return decoder.decode(new Uint8Array(bytes));
}

/** A C array of C strings that ends with NULL (argv, envp), in one piece of memory. */
export class StringVector {
  readonly memory: NativeMemory;
  /** Where each string starts, in bytes from the start of the memory. */
  readonly offsets: readonly number[];

  constructor(strings: readonly string[]) {
    const encoded = strings.map((text) => {
      if (text.includes("\0")) {
        throw new RangeError(`Expected text without a zero byte, received ${JSON.stringify(text)}`);
      }
      return encoder.encode(text);
    });
    const head = (strings.length + 1) * 8;
    const size = encoded.reduce((sum, bytes) => sum + bytes.length + 1, head);
    this.memory = new NativeMemory(size);
    const offsets: number[] = [];
    let offset = head;
    encoded.forEach((bytes, index) => {
      this.memory.setPointer(index * 8, this.memory.at(offset));
      this.memory.bytes.set(bytes, offset);
      offsets.push(offset);
      offset += bytes.length + 1;
    });
    this.offsets = offsets;
  }

  get address(): Pointer {
    return this.memory.address;
  }
}
