/** Lines of a stream of bytes, none of them longer than a limit. */
export class LineReader {
  readonly #limit: number;
  #parts: Uint8Array[] = [];
  #size = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @returns the lines that are whole now; undefined: one is longer than the limit */
  push(bytes: Uint8Array): string[] | undefined {
    const lines: string[] = [];
    let begin = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, begin)) {
      if (!this.#keep(bytes.slice(begin, end))) return undefined;
      lines.push(Buffer.concat(this.#parts).toString());
      this.#parts = [];
      this.#size = 0;
      begin = end + 1;
    }
    return this.#keep(bytes.slice(begin)) ? lines : undefined;
  }

  #keep(part: Uint8Array): boolean {
    this.#size += part.length;
    if (this.#size > this.#limit) return false;
    if (part.length > 0) this.#parts.push(part);
    return true;
  }
}

const NEWLINE = 0x0a;
