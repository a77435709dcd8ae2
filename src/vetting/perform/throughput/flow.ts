import { type MappedMemory, mapMemory } from "../../../../ffi/mapped-memory.ts";
import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { pollDescriptor } from "../../../../ffi/poll.ts";
import { Errno, errnoName } from "../../../../ffi/system-call-error.ts";
import { receiveBytes, sendBytes } from "../../../../ffi/tcp-socket.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import { nextTurn } from "../../../store/files.ts";
import type { Milliseconds } from "../../../units/units.ts";
import { PATTERN_BYTES, patternWords } from "../../throughput/protocol.ts";

/** Bytes through a socket, as fast as they go, in a process that does nothing else. */

/** Bytes of one call. */
const CHUNK = 256 * 1024;
/** A turn for others at least so often, and the longest wait for the other end. Milliseconds. */
const SLICE: Milliseconds = 100;

export interface Flowed {
  readonly bytes: number;
  /** From the first byte to the last. */
  readonly seconds: number;
  /** Bytes that came, and were not what the other end had sent. */
  readonly corrupted: number;
  /** Why it ended: "time" and "end" are as it should be; else the name of an error. */
  readonly ended: string;
}

export class Flow implements Disposable {
  /** The pattern, and its beginning once more: a chunk may begin anywhere. */
  readonly #pattern = mapMemory(PATTERN_BYTES + CHUNK);
  readonly #buffer = mapMemory(CHUNK);

  constructor() {
    const words = patternWords();
    this.#pattern.words().set(words);
    this.#pattern.words().set(words.subarray(0, CHUNK / 4), words.length);
  }

  /** Sends until the time is over. What is still on its way then is the other end's to count. */
  async send(socket: OwnedDescriptor, time: Milliseconds, signal: AbortSignal): Promise<Flowed> {
    const begin = monotonicNow();
    let turned = begin;
    let position = 0;
    const flowed = (ended: string): Flowed => {
      return { bytes: position, seconds: (monotonicNow() - begin) / 1_000, corrupted: 0, ended };
    };
    for (;;) {
      const now = monotonicNow();
      if (signal.aborted) return flowed("aborted");
      if (now - begin >= time) return flowed("time");
      if (now - turned >= SLICE) {
        await nextTurn();
        turned = now;
      }
      const sent = sendBytes(socket, this.#pattern.at(position % PATTERN_BYTES), CHUNK);
      if (sent === -Errno.EAGAIN) pollDescriptor(socket, "writable", SLICE);
      else if (sent < 0) return flowed(errnoName(-sent));
      else position += sent;
    }
  }

  /**
   * Receives until the other end writes no more.
   * @param most of silence before its first byte and between two; of all of it
   */
  async receive(
    socket: OwnedDescriptor,
    most: { readonly silence: Milliseconds; readonly all: Milliseconds },
    signal: AbortSignal,
  ): Promise<Flowed> {
    const begin = monotonicNow();
    let [turned, first, last] = [begin, begin, begin];
    let [position, corrupted] = [0, 0];
    const flowed = (ended: string): Flowed => {
      return { bytes: position, seconds: (last - first) / 1_000, corrupted, ended };
    };
    for (;;) {
      const now = monotonicNow();
      if (signal.aborted) return flowed("aborted");
      if (now - last > most.silence || now - begin > most.all) return flowed("ETIMEDOUT");
      if (now - turned >= SLICE) {
        await nextTurn();
        turned = now;
      }
      const came = receiveBytes(socket, this.#buffer.address, CHUNK);
      if (came === -Errno.EAGAIN) {
        pollDescriptor(socket, "readable", SLICE);
        continue;
      }
      if (came === 0) return flowed("end");
      if (came < 0) return flowed(errnoName(-came));
      last = monotonicNow();
      if (position === 0) first = now;
      corrupted += this.#wrongBytes(position, came);
      position += came;
    }
  }

  #wrongBytes(position: number, size: number): number {
    const at = position % PATTERN_BYTES;
    if (this.#buffer.equals(this.#pattern.at(at), { offset: 0, size })) return 0;
    const [came, sent] = [bytesOf(this.#buffer), bytesOf(this.#pattern)];
    let wrong = 0;
    for (let index = 0; index < size; index += 1) {
      if (came[index] !== sent[at + index]) wrong += 1;
    }
    return wrong;
  }

  [Symbol.dispose](): void {
    this.#pattern[Symbol.dispose]();
    this.#buffer[Symbol.dispose]();
  }
}

const bytesOf = (memory: MappedMemory) => new Uint8Array(memory.words().buffer);
