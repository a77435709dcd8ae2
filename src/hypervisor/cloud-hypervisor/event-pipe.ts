import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage } from "../../../ffi/system-call-error.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import type { Bytes } from "../../units/units.ts";
import { VmmUnreachable } from "../driver.ts";
import { EventParser, type MonitorEvent } from "./events.ts";

/** What a pipe holds, by default: pipe(7). */
const READ_BYTES = 65_536;
/** Reads in one turn: a VMM that floods must not keep others waiting. */
const READS_A_TURN = 4;

export interface EventPipeHandlers {
  readonly onEvent: (event: MonitorEvent) => void;
  /** Bytes that are no event. Reading goes on. */
  readonly onGarbage: (reason: string) => void;
  /** The VMM has closed its end, which it does by ending. Called once. */
  readonly onEnd: () => void;
}

/**
 * The named pipe that a VMM writes its events to. It waits in its start until the pipe is opened
 * here; a worker that comes later opens it again, and hears what happens from then on. Whoever
 * has it open to read learns of the VMM's end by it, because nobody else writes.
 */
export class EventPipe implements Disposable {
  readonly #descriptor: OwnedDescriptor;
  readonly #watch: Watch;
  readonly #parser: EventParser;
  readonly #handlers: EventPipeHandlers;
  readonly #memory = new NativeMemory(READ_BYTES);

  /** @throws VmmUnreachable when no named pipe is there */
  constructor(
    loop: EventLoop,
    path: string,
    options: { readonly eventBytes: Bytes; readonly handlers: EventPipeHandlers },
  ) {
    this.#handlers = options.handlers;
    this.#parser = new EventParser(options.eventBytes);
    this.#descriptor = openPipe(path);
    this.#watch = loop.watch(this.#descriptor, "readable", () => this.#read());
  }

  #read(): void {
    for (let count = 0; count < READS_A_TURN && this.#descriptor.isOpen; count++) {
      const length = readInto(this.#descriptor, this.#memory);
      if (length === -Errno.EAGAIN) return;
      if (length <= 0) {
        if (length < 0) this.#handlers.onGarbage(`cannot read events: ${errnoMessage(-length)}`);
        this[Symbol.dispose]();
        this.#handlers.onEnd();
        return;
      }
      for (const parsed of this.#parser.push(this.#memory.bytes.subarray(0, length))) {
        // A handler may have ended this.
        if (!this.#descriptor.isOpen) return;
        if (parsed.kind === "event") this.#handlers.onEvent(parsed.event);
        else this.#handlers.onGarbage(parsed.reason);
      }
    }
  }

  [Symbol.dispose](): void {
    if (!this.#descriptor.isOpen) return;
    this.#watch[Symbol.dispose]();
    this.#descriptor.close();
  }
}

/** To read alone: with our own end to write, the VMM's end would go unnoticed. */
function openPipe(path: string): OwnedDescriptor {
  let number: number;
  try {
    const { O_RDONLY, O_NONBLOCK, O_NOFOLLOW } = constants;
    number = openSync(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
  } catch (cause) {
    throw new VmmUnreachable(`Cannot open the pipe of events ${path}`, { cause });
  }
  if (fstatSync(number).isFIFO()) return new OwnedDescriptor(number);
  closeSync(number);
  throw new VmmUnreachable(`${path}: expected a named pipe, received a file of another kind`);
}
