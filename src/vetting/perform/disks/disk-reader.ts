import { DirectQueue } from "../../../../ffi/direct-queue.ts";
import { errnoName } from "../../../../ffi/system-call-error.ts";
import type { ReadDisk } from "../../../hardware/disk/signatures.ts";
import type { OpenDisk } from "./planned-disk.ts";

const CHUNK = 64 * 1024;

/** Reads any bytes of a disk that is open past the page cache, one place after the other. */
export class DiskReader implements Disposable {
  readonly #disk: Pick<OpenDisk, "size" | "logicalBlock">;
  readonly #queue: DirectQueue;

  constructor(disk: Pick<OpenDisk, "descriptor" | "size" | "logicalBlock">) {
    this.#disk = disk;
    this.#queue = new DirectQueue(disk.descriptor, { depth: 1, blockBytes: CHUNK });
  }

  readonly read: ReadDisk = (offset, length) => {
    const { size, logicalBlock } = this.#disk;
    const start = Math.floor(offset / logicalBlock) * logicalBlock;
    const end = Math.min(size, Math.ceil((offset + length) / logicalBlock) * logicalBlock);
    const bytes = new Uint8Array(Math.max(0, end - start));
    for (let at = 0; at < bytes.length; at += CHUNK) {
      const part = Math.min(CHUNK, bytes.length - at);
      this.#readPart(start + at, part);
      bytes.set(this.#queue.memory(0).subarray(0, part), at);
    }
    return bytes.subarray(offset - start, offset - start + length);
  };

  #readPart(offset: number, length: number): void {
    const submitted = this.#queue.submit(0, { way: "read", offset, length });
    const result = submitted === 0 ? this.#wait() : submitted;
    if (result !== length) {
      const why = result < 0 ? errnoName(-result) : `only ${result} bytes came`;
      throw new Error(`Cannot read ${length} bytes at ${offset}: ${why}`);
    }
  }

  /** A disk may take its time: whoever waits for this child has a deadline. */
  #wait(): number {
    for (;;) {
      const [done] = this.#queue.take(1_000);
      if (done !== undefined) return done.result;
    }
  }

  [Symbol.dispose](): void {
    this.#queue[Symbol.dispose]();
  }
}
