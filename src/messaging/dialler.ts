import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { errnoMessage } from "../../ffi/system-call-error.ts";
import { connectUnix, makeUnixSocket } from "../../ffi/unix-socket.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import type { Milliseconds } from "../units/units.ts";

/** Waits between attempts: doubled each time up to the cap, each varied by a fifth. */
const FIRST_WAIT: Milliseconds = 50;
const LONGEST_WAIT: Milliseconds = 5_000;
const JITTER = 0.2;

export interface DiallerHandlers {
  readonly onConnection: (socket: OwnedDescriptor) => void;
  /** Told at each failure, with the kernel's reason and the wait before the next attempt. */
  readonly onFailure: (reason: string, wait: Milliseconds) => void;
}

/** Connects to a Unix socket, for ever: whoever listens there may come late or come again. */
export class Dialler {
  readonly #loop: EventLoop;
  readonly #path: string;
  readonly #handlers: DiallerHandlers;
  #failures = 0;
  #timer: Disposable | undefined;
  #stopped = false;

  constructor(loop: EventLoop, path: string, handlers: DiallerHandlers) {
    this.#loop = loop;
    this.#path = path;
    this.#handlers = handlers;
  }

  /** Connects now, and again after each failure until it stands. */
  dial(): void {
    if (this.#stopped) return;
    const socket = makeUnixSocket("stream");
    const result = connectUnix(socket, this.#path);
    if (result === 0) {
      this.#handlers.onConnection(socket);
      return;
    }
    socket.close();
    const wait = this.#nextWait();
    this.#handlers.onFailure(errnoMessage(-result), wait);
    this.#timer = this.#loop.wakeAfter(wait, () => this.dial());
  }

  /** Somebody knows that the other side listens: the wait before the next attempt ends. */
  dialNow(): void {
    this.#timer?.[Symbol.dispose]();
    this.dial();
  }

  /** The connection served: the next failure starts with the shortest wait again. */
  succeed(): void {
    this.#failures = 0;
  }

  /** The connection was lost: connects again, at once if the last one served. */
  redial(): void {
    if (this.#stopped) return;
    this.#timer?.[Symbol.dispose]();
    const wait = this.#failures === 0 ? 0 : this.#nextWait();
    if (this.#failures === 0) this.#failures = 1;
    this.#timer = this.#loop.wakeAfter(wait, () => this.dial());
  }

  #nextWait(): Milliseconds {
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 30);
    return wait * (1 + JITTER * (2 * Math.random() - 1));
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.[Symbol.dispose]();
  }
}
