import { closeSync, constants, fstatSync, openSync, read as readBytes, readdirSync } from "node:fs";
import { join } from "node:path";
import { FileRefused, refusalCode } from "../journal/file-refused.ts";
import type { Bytes } from "../units/units.ts";
import { auditLimits } from "./limits.ts";

/** A segment is a file of lines, named by the sequence of its first record. */
export interface SegmentFile {
  readonly name: string;
  readonly path: string;
  readonly first: number;
}

/** Beside the segments: one writer at a time. */
export const lockName = "lock";
const pattern = /^segment-(\d{16})\.jsonl$/;

export function segmentName(first: number): string {
  return `segment-${String(first).padStart(16, "0")}.jsonl`;
}

/**
 * The segments of a folder, the oldest first. Other files are none of the log's.
 * @throws Error (ENOENT, EACCES …); FileRefused for more than a log can have
 */
export function listSegments(directory: string): SegmentFile[] {
  const segments = readdirSync(directory).flatMap((name) => {
    const digits = pattern.exec(name)?.[1];
    return digits === undefined ? [] : [{ name, path: join(directory, name), first: +digits }];
  });
  if (segments.length > auditLimits.segments) {
    throw new FileRefused(
      `Expected at most ${auditLimits.segments} segments in ${directory}, ` +
        `received ${segments.length}`,
    );
  }
  return segments.toSorted((one, other) => one.first - other.first);
}

/** Whether a folder is that of a log: an empty one has its lock. @throws Error (ENOENT …) */
export function isLogFolder(directory: string): boolean {
  return readdirSync(directory).some((name) => name === lockName || pattern.test(name));
}

/** A segment that is open for reading; `using` closes it. */
export class OpenSegment implements Disposable {
  readonly #file: number;

  /** @throws Error (ENOENT …); FileRefused: a FIFO would let its reader wait for ever */
  constructor(path: string) {
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    try {
      this.#file = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    } catch (error) {
      throw refusalCode(error) === "ELOOP" ? noSegment(path, "a symbolic link") : error;
    }
    if (fstatSync(this.#file).isFile()) return;
    closeSync(this.#file);
    throw noSegment(path, "something else");
  }

  get size(): number {
    return fstatSync(this.#file).size;
  }

  /** @returns how many bytes came; 0 at the end of the file */
  async read(into: Uint8Array, position: number): Promise<number> {
    const done = Promise.withResolvers<number>();
    readBytes(this.#file, into, 0, into.length, position, (error, count) => {
      if (error === null || error === undefined) done.resolve(count);
      else done.reject(error);
    });
    return await done.promise;
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}

/** A log's writer makes files alone. */
function noSegment(path: string, received: string): FileRefused {
  return new FileRefused(
    `Cannot read ${path}: expected a file, received ${received}. Somebody has put it there: see ` +
      "what it is, and move it out of the log's folder.",
  );
}

/** Bytes that are read at a time; a line is shorter. */
const chunkBytes = 256 * 1024;

/** A line without its newline, and where it stands. */
export interface Line {
  readonly bytes: Uint8Array;
  /** From 1. */
  readonly number: number;
  /** Longer than any of ours: only its beginning is here. */
  readonly isTooLong: boolean;
}

/** Reads lines of a segment, some at a time, as far as it goes just now. */
export class LineReader {
  readonly #segment: OpenSegment;
  readonly #buffer = Buffer.alloc(chunkBytes + auditLimits.lineBytes);
  /** Bytes at the beginning of the buffer that are no whole line yet. */
  #rest = 0;
  /** Where in the file the next bytes are. */
  #position = 0;
  /** Bytes of the file up to the last newline. */
  #whole = 0;
  #number = 1;
  #isTooLong = false;

  /** @param offset where a line begins; lines are numbered from there */
  constructor(segment: OpenSegment, offset: Bytes = 0) {
    this.#segment = segment;
    this.#position = offset;
    this.#whole = offset;
  }

  /** Bytes of the file that were read. */
  get position(): number {
    return this.#position;
  }

  /** Bytes of whole lines. */
  get wholeBytes(): number {
    return this.#whole;
  }

  /** What stands after the last newline; of a line that is too long, its beginning. */
  get rest(): Uint8Array {
    return this.#buffer.subarray(0, this.#rest);
  }

  get isRestTooLong(): boolean {
    return this.#isTooLong;
  }

  /** @returns the next lines, [] when there is more but no newline in it; undefined at the end */
  async next(): Promise<readonly Line[] | undefined> {
    const buffer = this.#buffer;
    const count = await this.#segment.read(
      buffer.subarray(this.#rest, this.#rest + chunkBytes),
      this.#position,
    );
    if (count === 0) return undefined;
    // A copy, because lines go on living while the buffer is filled again.
    const held = Buffer.from(buffer.subarray(0, this.#rest + count));
    const lines: Line[] = [];
    let start = 0;
    let end = held.indexOf(0x0a, this.#rest);
    for (; end >= 0; end = held.indexOf(0x0a, start)) {
      lines.push(this.#line(held.subarray(start, end)));
      start = end + 1;
      this.#whole = this.#position + start - this.#rest;
    }
    this.#position += count;
    this.#keep(held.subarray(start));
    return lines;
  }

  #line(bytes: Buffer): Line {
    const isTooLong = this.#isTooLong || bytes.length >= auditLimits.lineBytes;
    this.#isTooLong = false;
    const number = this.#number;
    this.#number += 1;
    return { bytes, number, isTooLong };
  }

  /** Of a line that is too long the beginning is kept, and the rest read past. */
  #keep(rest: Buffer): void {
    const length = Math.min(rest.length, auditLimits.lineBytes);
    if (rest.length > length) this.#isTooLong = true;
    rest.copy(this.#buffer, 0, 0, length);
    this.#rest = length;
  }
}

/**
 * The whole lines of a segment, the last one first. A piece after the last newline is left out:
 * it is being written, or was cut short. Lines that are too long are cut at their beginning.
 */
export async function* linesBackwards(segment: OpenSegment): AsyncGenerator<Buffer[]> {
  let position = segment.size;
  /** The end of a line whose beginning was not read yet; undefined before the last newline. */
  let tail: Buffer | undefined;
  while (position > 0) {
    const length = Math.min(chunkBytes, position);
    position -= length;
    const chunk = Buffer.alloc(length);
    let filled = 0;
    while (filled < length) {
      const count = await segment.read(chunk.subarray(filled), position + filled);
      if (count === 0) return;
      filled += count;
    }
    const lines: Buffer[] = [];
    let end = length;
    for (;;) {
      const newline = end === 0 ? -1 : chunk.lastIndexOf(0x0a, end - 1);
      if (newline < 0) break;
      if (tail !== undefined) lines.push(joined(chunk.subarray(newline + 1, end), tail));
      tail = Buffer.alloc(0);
      end = newline;
    }
    if (tail !== undefined) tail = joined(chunk.subarray(0, end), tail);
    if (lines.length > 0) yield lines;
  }
  if (tail !== undefined) yield [tail];
}

/** At most one byte more than a line can have: enough to see that it is too long. */
function joined(beginning: Buffer, ending: Buffer): Buffer {
  const whole = Buffer.concat([beginning, ending]);
  return whole.subarray(Math.max(0, whole.length - auditLimits.lineBytes));
}
