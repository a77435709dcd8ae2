import type { MonotonicTime } from "../units/units.ts";
import type { StoredLine } from "./log-book.ts";

/**
 * Lines on their way to a file: bounded, taken whole, and counted where they are dropped. Pure: the
 * words for a time come from whoever makes one.
 */

/** Characters that may wait for one file: what comes beyond is dropped. */
export const QUEUED_CHARACTERS = 4 * 1024 * 1024;
/** The same for all files together, as where one disk hangs that they all are on. */
export const QUEUED_CHARACTERS_OF_ALL = 64 * 1024 * 1024;
/** Bytes that are written at once. */
export const CHUNK_BYTES = 256 * 1024;

export interface LogChunk {
  readonly bytes: Uint8Array;
  readonly lines: number;
}

/** Room for characters that several queues share. */
export class QueueRoom {
  #left: number;

  constructor(characters = QUEUED_CHARACTERS_OF_ALL) {
    this.#left = characters;
  }

  get isFull(): boolean {
    return this.#left <= 0;
  }

  take(characters: number): void {
    this.#left -= characters;
  }

  give(characters: number): void {
    this.#left += characters;
  }
}

export class LogQueue {
  readonly #prefixOf: (line: Pick<StoredLine, "at" | "stream">) => string;
  readonly #room: QueueRoom;
  readonly #limit: number;
  #lines: string[] = [];
  #first = 0;
  #characters = 0;
  /** Lines that come in one reading have one time: its words are made once. */
  #known: { readonly at: MonotonicTime; readonly stream: string; readonly prefix: string } = {
    at: Number.NaN,
    stream: "",
    prefix: "",
  };

  /** @param prefixOf what stands before a line, with its space; "" for nothing */
  constructor(
    prefixOf: (line: Pick<StoredLine, "at" | "stream">) => string,
    room: QueueRoom,
    limit = QUEUED_CHARACTERS,
  ) {
    this.#prefixOf = prefixOf;
    this.#room = room;
    this.#limit = limit;
  }

  /** Lines that wait. */
  get length(): number {
    return this.#lines.length - this.#first;
  }

  /** False when there is no room for it. */
  add(line: StoredLine): boolean {
    if (this.#characters >= this.#limit || this.#room.isFull) return false;
    const { at, stream } = line;
    if (at !== this.#known.at || stream !== this.#known.stream) {
      this.#known = { at, stream, prefix: this.#prefixOf(line) };
    }
    this.#push(`${this.#known.prefix}${line.line}\n`);
    return true;
  }

  #push(text: string): void {
    this.#lines.push(text);
    this.#characters += text.length;
    this.#room.take(text.length);
  }

  /** The next lines in so many bytes, at most a chunk; undefined when none fits, or waits. */
  take(room: number): LogChunk | undefined {
    const most = Math.min(room, CHUNK_BYTES);
    let size = 0;
    let end = this.#first;
    for (; end < this.#lines.length; end += 1) {
      const line = this.#lines[end] ?? "";
      const bytes = Buffer.byteLength(line);
      if (size + bytes > most) break;
      size += bytes;
      this.#characters -= line.length;
      this.#room.give(line.length);
    }
    const lines = end - this.#first;
    if (lines === 0) return undefined;
    const bytes = new TextEncoder().encode(this.#lines.slice(this.#first, end).join(""));
    this.#first = end;
    if (this.#first * 2 > this.#lines.length) {
      this.#lines = this.#lines.slice(this.#first);
      this.#first = 0;
    }
    return { bytes, lines };
  }

  /** Drops what waits, and says how many lines that were. */
  clear(): number {
    const count = this.length;
    this.#lines = [];
    this.#first = 0;
    this.#room.give(this.#characters);
    this.#characters = 0;
    return count;
  }

  /** As they will be written, for another program to write. */
  save(): string[] {
    return this.#lines.slice(this.#first);
  }

  restore(lines: readonly string[]): void {
    for (const line of lines) this.#push(line);
  }
}

/** Of a chunk of which so much was written: where its last whole line ends, and the lines to it. */
export function wholeLines(bytes: Uint8Array, written: number): { end: number; lines: number } {
  const NEWLINE = 0x0a;
  let lines = 0;
  let end = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0 && at < written; at = bytes.indexOf(NEWLINE, end)) {
    lines += 1;
    end = at + 1;
  }
  return { end, lines };
}
