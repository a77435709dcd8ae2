import { makePipe, readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import type { LogBook, Stream } from "../log-book.ts";

const READ_SIZE = 65_536;
/** Reads of one pipe in one turn, so that a process that floods does not hold up the others. */
const READS_A_TURN = 4;

const memory = new NativeMemory(READ_SIZE);

export interface PipeEnds {
  readonly read: OwnedDescriptor;
  readonly write: OwnedDescriptor;
}

interface Pipe extends PipeEnds {
  readonly stream: Stream;
  readonly watch: Watch;
}

/**
 * The two pipes that a process writes to. They are the orchestrator's, both ends: they outlive
 * every instance, so that a restart makes none and an end loses no line.
 */
export class OutputPipes implements Disposable {
  readonly #book: LogBook;
  readonly #onLines: () => void;
  readonly #pipes: readonly Pipe[];

  /** @param carried both ends of stdout, then of stderr, of the program before this one */
  constructor(
    loop: EventLoop,
    book: LogBook,
    onLines: () => void,
    carried: readonly PipeEnds[] = [],
  ) {
    this.#book = book;
    this.#onLines = onLines;
    this.#pipes = (["stdout", "stderr"] as const).map((stream, index) => {
      const { read, write } = carried[index] ?? makePipe();
      const watch = loop.watch(read, "readable", () => this.#drain(read, stream));
      return { stream, read, write, watch };
    });
  }

  /** Both ends of stdout, then of stderr. */
  get ends(): readonly PipeEnds[] {
    return this.#pipes;
  }

  /** The ends that a child gets as its standard output and error. */
  get writers(): { readonly source: number; readonly target: number }[] {
    return this.#pipes.map((pipe, index) => ({ source: pipe.write.number, target: index + 1 }));
  }

  #drain(read: OwnedDescriptor, stream: Stream): void {
    for (let count = 0; count < READS_A_TURN; count++) {
      const length = readInto(read, memory);
      if (length <= 0) break;
      this.#book.push(stream, memory.bytes.subarray(0, length), monotonicNow());
      if (length < READ_SIZE) break;
    }
    this.#onLines();
  }

  /** Takes what is in the pipes now, and ends lines without a newline: the process is dead. */
  settle(): void {
    for (const pipe of this.#pipes) this.#drain(pipe.read, pipe.stream);
    this.#book.flush(monotonicNow());
    this.#onLines();
  }

  [Symbol.dispose](): void {
    for (const pipe of this.#pipes) {
      pipe.watch[Symbol.dispose]();
      pipe.read.close();
      pipe.write.close();
    }
  }
}
