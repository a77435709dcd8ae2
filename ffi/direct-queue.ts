import { ptr } from "bun:ffi";
import { libc } from "./c-library.ts";
import {
  IOCB_CMD_PREAD,
  IOCB_CMD_PWRITE,
  SYS_io_destroy,
  SYS_io_getevents,
  SYS_io_setup,
  SYS_io_submit,
} from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import type { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, SystemCallError } from "./system-call-error.ts";

/** Memory that any disk can read from and write to: O_DIRECT, open(2). */
const ALIGNMENT = 4_096;

export interface Transfer {
  readonly way: "read" | "write";
  readonly offset: number;
  readonly length: number;
}

export interface Completion {
  readonly slot: number;
  /** Bytes, or minus the error number. */
  readonly result: number;
}

/**
 * Reads and writes of one descriptor that are under way at the same time: io_submit(2). Each slot
 * has its own memory, and one transfer at a time.
 */
export class DirectQueue implements Disposable {
  readonly depth: number;
  readonly #descriptor: OwnedDescriptor;
  readonly #context: number;
  readonly #memory: readonly {
    readonly bytes: Uint8Array<ArrayBuffer>;
    readonly address: number;
  }[];
  readonly #requests: NativeMemory;
  readonly #list = new NativeMemory(8);
  readonly #events: NativeMemory;
  readonly #time = new NativeMemory(layouts.timespec.size);
  #open = true;

  /** @throws SystemCallError (EAGAIN: /proc/sys/fs/aio-max-nr is used up) */
  constructor(
    descriptor: OwnedDescriptor,
    { depth, blockBytes }: { readonly depth: number; readonly blockBytes: number },
  ) {
    const context = new NativeMemory(8);
    const made = attempt(() => libc.syscall(SYS_io_setup, depth, context.address, 0, 0, 0, 0));
    if (made < 0) throw new SystemCallError("io_setup", -made);
    this.#context = context.getUnsigned64(0);
    this.#descriptor = descriptor;
    this.depth = depth;
    this.#memory = Array.from({ length: depth }, () => alignedMemory(blockBytes));
    this.#requests = new NativeMemory(depth * layouts.iocb.size);
    this.#events = new NativeMemory(depth * layouts.io_event.size);
  }

  /** A slot's memory: what was read, or is to be written. */
  memory(slot: number): Uint8Array<ArrayBuffer> {
    const memory = this.#memory[slot];
    if (memory === undefined) throw new RangeError(`Bug: there is no slot ${slot}`);
    return memory.bytes;
  }

  /** 0, or minus the error number. It may block where the disk's own queue is full. */
  submit(slot: number, { way, offset, length }: Transfer): number {
    const memory = this.#memory[slot];
    if (memory === undefined) throw new RangeError(`Bug: there is no slot ${slot}`);
    const layout = layouts.iocb;
    const at = slot * layout.size;
    const { view } = this.#requests;
    this.#requests.bytes.fill(0, at, at + layout.size);
    this.#requests.setUnsigned64(at + layout.aio_data, slot);
    const command = way === "read" ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
    view.setUint16(at + layout.aio_lio_opcode, command, true);
    view.setUint32(at + layout.aio_fildes, this.#descriptor.number, true);
    this.#requests.setPointer(at + layout.aio_buf, memory.address);
    this.#requests.setUnsigned64(at + layout.aio_nbytes, length);
    this.#requests.setUnsigned64(at + layout.aio_offset, offset);
    this.#list.setPointer(0, this.#requests.at(at));
    const result = attempt(() =>
      libc.syscall(SYS_io_submit, this.#context, 1, this.#list.address, 0, 0, 0),
    );
    return Math.min(result, 0);
  }

  /** Waits for at least one, at most so long, and takes all that are there. */
  take(atMost: number): Completion[] {
    const { timespec, io_event } = layouts;
    this.#time.setUnsigned64(timespec.tv_sec, Math.floor(atMost / 1_000));
    this.#time.setUnsigned64(timespec.tv_nsec, Math.floor((atMost % 1_000) * 1_000_000));
    const { address } = this.#events;
    const count = attempt(() =>
      libc.syscall(SYS_io_getevents, this.#context, 1, this.depth, address, this.#time.address, 0),
    );
    if (count < 0) throw new SystemCallError("io_getevents", -count);
    const done: Completion[] = [];
    for (let index = 0; index < count; index++) {
      const at = index * io_event.size;
      done.push({
        slot: this.#events.getUnsigned64(at + io_event.data),
        // Bytes of one block, or an error number: 32 bits have room for both.
        result: this.#events.view.getInt32(at + io_event.res, true),
      });
    }
    return done;
  }

  /** Waits for all that is under way: io_destroy(2). */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.syscall(SYS_io_destroy, this.#context, 0, 0, 0, 0, 0);
  }
}

function alignedMemory(size: number): { bytes: Uint8Array<ArrayBuffer>; address: number } {
  const buffer = new ArrayBuffer(size + ALIGNMENT);
  const shift = (ALIGNMENT - (ptr(buffer) % ALIGNMENT)) % ALIGNMENT;
  return { bytes: new Uint8Array(buffer, shift, size), address: ptr(buffer) + shift };
}
