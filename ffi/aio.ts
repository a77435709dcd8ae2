import { libc } from "./c-library.ts";
import {
  EPOLLIN,
  IOCB_CMD_POLL,
  IOCB_FLAG_RESFD,
  SYS_io_destroy,
  SYS_io_getevents,
  SYS_io_setup,
  SYS_io_submit,
} from "./constants.ts";
import { isMadeAbsent } from "./fault-hooks.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import type { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, SystemCallError } from "./system-call-error.ts";

/** Completions that can wait to be taken; there is never more than one. */
const QUEUE = 8;

/**
 * Has the kernel count up an event counter when a descriptor becomes readable: io_submit(2) with
 * IOCB_CMD_POLL and IOCB_FLAG_RESFD, Linux 4.19. So whoever can wait for an event counter can wait
 * for anything that poll(2) knows, without a thread that does.
 */
export class ReadableSignal implements Disposable {
  readonly #context: number;
  readonly #request = new NativeMemory(layouts.iocb.size);
  readonly #list = new NativeMemory(8);
  readonly #events = new NativeMemory(QUEUE * layouts.io_event.size);
  readonly #noTime = new NativeMemory(layouts.timespec.size);
  #open = true;

  private constructor(context: number, watched: OwnedDescriptor, counter: OwnedDescriptor) {
    this.#context = context;
    const layout = layouts.iocb;
    this.#request.view.setUint16(layout.aio_lio_opcode, IOCB_CMD_POLL, true);
    this.#request.view.setUint32(layout.aio_fildes, watched.number, true);
    this.#request.setUnsigned64(layout.aio_buf, EPOLLIN);
    this.#request.view.setUint32(layout.aio_flags, IOCB_FLAG_RESFD, true);
    this.#request.view.setUint32(layout.aio_resfd, counter.number, true);
    this.#list.setPointer(0, this.#request.address);
  }

  /** Undefined where the kernel has no such requests, or this process may not make any. */
  static open(watched: OwnedDescriptor, counter: OwnedDescriptor): ReadableSignal | undefined {
    if (isMadeAbsent("aio")) return undefined;
    const context = new NativeMemory(8);
    const made = attempt(() => libc.syscall(SYS_io_setup, QUEUE, context.address, 0, 0, 0, 0));
    if (made < 0) return undefined;
    const signal = new ReadableSignal(context.getUnsigned64(0), watched, counter);
    if (signal.#submit() >= 0) return signal;
    signal[Symbol.dispose]();
    return undefined;
  }

  #submit(): number {
    return attempt(() =>
      libc.syscall(SYS_io_submit, this.#context, 1, this.#list.address, 0, 0, 0),
    );
  }

  /** Takes the completion that was signalled, and asks for the next one. @throws SystemCallError */
  again(): void {
    const { address } = this.#events;
    const time = this.#noTime.address;
    attempt(() => libc.syscall(SYS_io_getevents, this.#context, 0, QUEUE, address, time, 0));
    const result = this.#submit();
    if (result < 0) throw new SystemCallError("io_submit", -result);
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    libc.syscall(SYS_io_destroy, this.#context, 0, 0, 0, 0, 0);
  }
}
