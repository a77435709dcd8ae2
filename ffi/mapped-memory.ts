import { type Pointer, read, toArrayBuffer } from "bun:ffi";
import { libc } from "./c-library.ts";
import {
  MADV_DONTDUMP,
  MADV_HUGEPAGE,
  MAP_ANONYMOUS,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MPOL_BIND,
  PROT_READ,
  PROT_WRITE,
  SYS_mbind,
} from "./constants.ts";
import { NativeMemory, nullAddress } from "./memory.ts";
import { attempt, check, SystemCallError } from "./system-call-error.ts";

/** 64 nodes: one word of a mask. A kernel that has more is told of the first ones alone. */
const MOST_NODES = 64;

/**
 * Memory outside of the engine's heap, at an address that stays, whole pages of it: mmap(2). The
 * kernel gives the pages when they are first written to.
 */
export class MappedMemory implements Disposable {
  readonly size: number;
  #address: number;
  #words: Uint32Array | undefined;

  private constructor(address: number, size: number) {
    this.#address = address;
    this.size = size;
  }

  /** undefined when there is no room for it (ENOMEM). */
  static map(size: number): MappedMemory | undefined {
    const protection = PROT_READ | PROT_WRITE;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const address = attempt(() => libc.mmap(nullAddress, size, protection, flags, -1, 0));
    if (address < 0) return undefined;
    const memory = new MappedMemory(address, size);
    // Large pages make it faster, and a core dump of it helps nobody; neither is needed.
    libc.madvise(memory.address, size, MADV_HUGEPAGE);
    libc.madvise(memory.address, size, MADV_DONTDUMP);
    return memory;
  }

  get address(): Pointer {
    if (this.#address === 0) throw new Error("Bug: memory was used after it was given back");
    return this.#address as Pointer;
  }

  /** The address of a byte inside of it. */
  at(offset: number): Pointer {
    return (this.address + offset) as Pointer;
  }

  /** Has its pages come from one NUMA node alone; false where the kernel refuses: mbind(2). */
  bindToNode(node: number): boolean {
    if (node >= MOST_NODES) return false;
    const mask = new NativeMemory(8);
    mask.setUnsigned64(0, 2 ** node);
    const { address, size } = this;
    // The kernel takes one bit less than it is told of.
    const bits = MOST_NODES + 1;
    const call = () => libc.syscall(SYS_mbind, address, size, MPOL_BIND, mask.address, bits, 0);
    return attempt(call) >= 0;
  }

  /** Takes all pages now and keeps them; false where the kernel refuses: mlock(2). */
  lock(): boolean {
    return attempt(() => libc.mlock(this.address, this.size)) >= 0;
  }

  /** Copies into it, from other memory of C's. */
  copyFrom(source: Pointer, range: { readonly offset: number; readonly size: number }): void {
    this.#checkRange(range);
    libc.memcpy(this.at(range.offset), source, range.size);
  }

  /** Copies out of it. */
  copyTo(target: Pointer, range: { readonly offset: number; readonly size: number }): void {
    this.#checkRange(range);
    libc.memcpy(target, this.at(range.offset), range.size);
  }

  /** Whether it holds what stands at another address: memcmp(3). */
  equals(other: Pointer, range: { readonly offset: number; readonly size: number }): boolean {
    this.#checkRange(range);
    return libc.memcmp(this.at(range.offset), other, range.size) === 0;
  }

  /** 64 bits, as the memory has them now. */
  wordAt(offset: number): bigint {
    this.#checkRange({ offset, size: 8 });
    return read.u64(this.address, offset);
  }

  /** All of it, without a copy; not to be used after it was given back. */
  words(): Uint32Array {
    this.#words ??= new Uint32Array(toArrayBuffer(this.address, 0, this.size));
    return this.#words;
  }

  #checkRange({ offset, size }: { offset: number; size: number }): void {
    if (offset >= 0 && size >= 0 && offset + size <= this.size) return;
    throw new RangeError(
      `Expected a range inside of ${this.size} bytes, received ${offset}+${size}`,
    );
  }

  [Symbol.dispose](): void {
    if (this.#address === 0) return;
    const address = this.address;
    this.#address = 0;
    this.#words = undefined;
    check("munmap", libc.munmap(address, this.size));
  }
}

/** @throws SystemCallError where there is no room */
export function mapMemory(size: number): MappedMemory {
  const memory = MappedMemory.map(size);
  if (memory === undefined) throw new SystemCallError("mmap", 12, `of ${size} bytes`);
  return memory;
}
