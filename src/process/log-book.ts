import type { MonotonicTime } from "../units/units.ts";

/**
 * The last lines that a process wrote: bounded in lines and bytes; what falls out is counted.
 * Pure: bytes and times in, lines out.
 */

/** A line longer than this is cut into several. */
export const LONGEST_LINE = 16_384;

export type Stream = "stdout" | "stderr";

export interface StoredLine {
  /** Rises by one with every line of this process, shown or dropped. */
  readonly sequence: number;
  readonly at: MonotonicTime;
  readonly stream: Stream;
  readonly line: string;
}

/** A book as it is handed to another program: the newest lines, and what has no end yet. */
export interface LogBookState {
  readonly lines: readonly (readonly [at: MonotonicTime, stream: Stream, line: string])[];
  /** Of the newest line. */
  readonly sequence: number;
  readonly dropped: number;
  /** Bytes behind the last newline of each stream, in base64. */
  readonly rest: Readonly<Record<Stream, string>>;
}

const NEWLINE = 0x0a;

/** Puts lines together from bytes as they come; keeps at most one line's worth. */
class LineSplitter {
  #rest = new Uint8Array(0);
  readonly #decoder = new TextDecoder();

  /** What stands after the last newline, in base64. */
  get rest(): string {
    return this.#rest.toBase64();
  }

  set rest(encoded: string) {
    this.#rest = Uint8Array.fromBase64(encoded);
  }

  push(bytes: Uint8Array, onLine: (line: string) => void): void {
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(NEWLINE, start);
      if (end < 0) break;
      if (this.#rest.length + end - start > LONGEST_LINE) {
        this.#keep(bytes.subarray(start, end), onLine);
        start = end;
      }
      onLine(this.#take(bytes.subarray(start, end)));
      start = end + 1;
    }
    this.#keep(bytes.subarray(start), onLine);
  }

  #take(tail: Uint8Array): string {
    if (this.#rest.length === 0) return this.#decoder.decode(tail);
    const whole = new Uint8Array(this.#rest.length + tail.length);
    whole.set(this.#rest);
    whole.set(tail, this.#rest.length);
    this.#rest = new Uint8Array(0);
    return this.#decoder.decode(whole);
  }

  #keep(tail: Uint8Array, onLine: (line: string) => void): void {
    if (tail.length === 0) return;
    const whole = new Uint8Array(this.#rest.length + tail.length);
    whole.set(this.#rest);
    whole.set(tail, this.#rest.length);
    let start = 0;
    while (whole.length - start > LONGEST_LINE) {
      onLine(this.#decoder.decode(whole.subarray(start, start + LONGEST_LINE)));
      start += LONGEST_LINE;
    }
    this.#rest = whole.slice(start);
  }

  /** What stands after the last newline, as when the writer is gone. */
  flush(onLine: (line: string) => void): void {
    if (this.#rest.length === 0) return;
    onLine(this.#take(new Uint8Array(0)));
  }
}

export class LogBook {
  #limit: { readonly lines: number; readonly bytes: number };
  readonly #splitters = { stdout: new LineSplitter(), stderr: new LineSplitter() };
  /** A ring would be faster to cut; cutting in halves keeps this one simple and as cheap. */
  #lines: StoredLine[] = [];
  #first = 0;
  #bytes = 0;
  readonly #onLine: (line: StoredLine) => void;
  #sequence = 0;
  #dropped = 0;

  /** @param onLine told each line that comes, and none that is restored */
  constructor(
    limit: { readonly lines: number; readonly bytes: number },
    onLine: (line: StoredLine) => void = () => {},
  ) {
    this.#limit = limit;
    this.#onLine = onLine;
  }

  /** What another program needs to go on with it: of the lines the newest, so many characters. */
  save(most: number): LogBookState {
    let first = this.#lines.length;
    for (let left = most; first > this.#first; first -= 1) {
      left -= this.#lines[first - 1]?.line.length ?? 0;
      if (left < 0) break;
    }
    const lines = this.#lines
      .slice(first)
      .map(({ at, stream, line }) => [at, stream, line] as const);
    const { stdout, stderr } = this.#splitters;
    const rest = { stdout: stdout.rest, stderr: stderr.rest };
    const dropped = this.#dropped + first - this.#first;
    return { lines, sequence: this.#sequence, dropped, rest };
  }

  /** Goes on with a book that was saved, in place of an empty one. */
  restore({ lines, sequence, dropped, rest }: LogBookState): void {
    this.#sequence = sequence - lines.length;
    this.#dropped = dropped;
    for (const [at, stream, line] of lines) this.#append(stream, line, at);
    for (const stream of ["stdout", "stderr"] as const) {
      this.#splitters[stream].rest = rest[stream];
    }
  }

  /** Keeps more or fewer lines from now on; what is too much falls out with the next one. */
  set limit(limit: { readonly lines: number; readonly bytes: number }) {
    this.#limit = limit;
  }

  /** Lines that fell out since the beginning. */
  get dropped(): number {
    return this.#dropped;
  }

  get size(): { readonly lines: number; readonly bytes: number } {
    return { lines: this.#lines.length - this.#first, bytes: this.#bytes };
  }

  /** Takes what a stream gave. */
  push(stream: Stream, bytes: Uint8Array, at: MonotonicTime): void {
    this.#splitters[stream].push(bytes, (line) => {
      this.#onLine(this.#append(stream, line, at));
    });
  }

  /** Ends lines that have no newline yet: their writer is gone. */
  flush(at: MonotonicTime): void {
    for (const stream of ["stdout", "stderr"] as const) {
      this.#splitters[stream].flush((line) => {
        this.#onLine(this.#append(stream, line, at));
      });
    }
  }

  #append(stream: Stream, line: string, at: MonotonicTime): StoredLine {
    this.#sequence += 1;
    const stored = { sequence: this.#sequence, at, stream, line };
    this.#lines.push(stored);
    this.#bytes += line.length;
    while (
      this.#lines.length - this.#first > this.#limit.lines ||
      this.#bytes > this.#limit.bytes
    ) {
      const oldest = this.#lines[this.#first];
      if (oldest === undefined) break;
      this.#bytes -= oldest.line.length;
      this.#first += 1;
      this.#dropped += 1;
    }
    if (this.#first > 64 && this.#first * 2 > this.#lines.length) {
      this.#lines = this.#lines.slice(this.#first);
      this.#first = 0;
    }
    return stored;
  }

  /** The sequence number of the newest line; 0 before there is one. */
  get newest(): number {
    return this.#sequence;
  }

  /** Up to so many kept lines after a sequence number, and how many after it were dropped. */
  after(
    sequence: number,
    most = Number.POSITIVE_INFINITY,
  ): { readonly lines: readonly StoredLine[]; readonly dropped: number } {
    const first = this.#lines[this.#first];
    if (first === undefined) return { lines: [], dropped: Math.max(0, this.#sequence - sequence) };
    const begin = this.#first + Math.max(0, sequence - first.sequence + 1);
    const lines = this.#lines.slice(begin, begin + most);
    return { lines, dropped: Math.max(0, first.sequence - sequence - 1) };
  }

  /** The sequence number before the last so many lines. */
  sequenceBefore(lines: number): number {
    return Math.max(0, this.#sequence - lines);
  }
}
