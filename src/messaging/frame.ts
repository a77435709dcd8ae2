/**
 * The frame of every hostler socket: one line of JSON,
 *
 *   {"bytes":<n>,"descriptors":<m>,"body":<any JSON>}\n
 *
 * `bytes` counts the whole line with its newline, `descriptors` says how many file descriptors
 * came attached to its first byte. A reader knows after at most HEAD_LIMIT bytes whether it wants
 * the rest. Pure: bytes in, frames or a refusal out.
 */

/** Bytes in which `bytes` and `descriptors` must have been said. */
export const HEAD_LIMIT = 48;

export interface FrameLimits {
  /** The longest frame that is taken, in bytes. */
  readonly frameBytes: number;
  /** The most descriptors that one frame may announce. */
  readonly frameDescriptors: number;
}

export interface Frame {
  readonly body: unknown;
  readonly descriptors: number;
}

/** Why a stream of frames cannot go on. */
export interface FrameRefusal {
  readonly kind: "head" | "too-long" | "too-many-descriptors" | "json" | "end";
  readonly expected: string;
  readonly received: string;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });
const headPattern = /^\{"bytes":(\d{1,9}),"descriptors":(\d{1,3}),"body":/;
const NEWLINE = 0x0a;

/** The bytes of a frame. */
export function encodeFrame(body: unknown, descriptors = 0): Uint8Array {
  const tail = encoder.encode(`,"descriptors":${descriptors},"body":${JSON.stringify(body)}}\n`);
  const fixed = '{"bytes":'.length + tail.length;
  let size = fixed + String(fixed).length;
  // The number's own digits count too; one more digit may make it one longer.
  if (String(size).length !== String(fixed).length) size = fixed + String(size).length;
  const frame = new Uint8Array(size);
  const head = `{"bytes":${size}`;
  encoder.encodeInto(head, frame);
  frame.set(tail, head.length);
  return frame;
}

/** Bytes as a person can read them in a refusal: at most 40, control characters escaped. */
export function quoteBytes(bytes: Uint8Array): string {
  const shown = Array.from(bytes.subarray(0, 40), (byte) =>
    byte >= 0x20 && byte < 0x7f
      ? String.fromCharCode(byte)
      : `\\x${byte.toString(16).padStart(2, "0")}`,
  ).join("");
  return bytes.length > 40 ? `"${shown}" … (${bytes.length} bytes)` : `"${shown}"`;
}

interface Head {
  readonly bytes: number;
  readonly descriptors: number;
  readonly bodyAt: number;
}

/** Takes a stream apart into frames. After a refusal it takes nothing more. */
export class FrameReader {
  #limits: FrameLimits;
  #buffer = new Uint8Array(4096);
  #start = 0;
  #end = 0;
  #head: Head | undefined;
  #refusal: FrameRefusal | undefined;

  constructor(limits: FrameLimits) {
    this.#limits = limits;
  }

  /** From now on other limits hold, as after a hello. */
  setLimits(limits: FrameLimits): void {
    this.#limits = limits;
  }

  /** Bytes that have come and are not part of a whole frame yet. */
  get pending(): number {
    return this.#end - this.#start;
  }

  /** Adds what was read. Kept memory is at most one frame and one read. */
  push(bytes: Uint8Array): void {
    if (this.#refusal !== undefined) return;
    if (this.#end + bytes.length > this.#buffer.length) {
      const pending = this.#buffer.subarray(this.#start, this.#end);
      const needed = pending.length + bytes.length;
      const size = Math.max(4096, 2 ** Math.ceil(Math.log2(needed)));
      const buffer = size > this.#buffer.length ? new Uint8Array(size) : this.#buffer;
      buffer.set(pending, 0);
      this.#buffer = buffer;
      this.#end -= this.#start;
      this.#start = 0;
    }
    this.#buffer.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** The next whole frame; undefined until more has come; a refusal ends the stream. */
  next(): Frame | { readonly refusal: FrameRefusal } | undefined {
    if (this.#refusal !== undefined) return { refusal: this.#refusal };
    const head = this.#head ?? this.#readHead();
    if (head === undefined) return undefined;
    if ("refusal" in head) return head;
    this.#head = head;
    if (this.pending < head.bytes) return undefined;
    return this.#readBody(head);
  }

  /** What is wrong with a stream that ended here; undefined between two frames. */
  atEnd(): FrameRefusal | undefined {
    if (this.#refusal !== undefined || this.pending === 0) return this.#refusal;
    const wanted = this.#head === undefined ? "a whole frame" : `${this.#head.bytes} bytes`;
    return { kind: "end", expected: wanted, received: `the end after ${this.pending} bytes` };
  }

  #refuse(refusal: FrameRefusal): { readonly refusal: FrameRefusal } {
    this.#refusal = refusal;
    this.#buffer = new Uint8Array(0);
    this.#start = 0;
    this.#end = 0;
    return { refusal };
  }

  #readHead(): Head | { readonly refusal: FrameRefusal } | undefined {
    const bytes = this.#buffer.subarray(this.#start, Math.min(this.#end, this.#start + HEAD_LIMIT));
    const text = String.fromCharCode(...bytes);
    const match = headPattern.exec(text);
    if (match === null) {
      const possible = bytes.length < HEAD_LIMIT && !bytes.includes(NEWLINE);
      if (possible && (bytes.length === 0 || text.startsWith("{"))) return undefined;
      const expected = '{"bytes":<count>,"descriptors":<count>,"body":…}';
      return this.#refuse({ kind: "head", expected, received: quoteBytes(bytes) });
    }
    const head = {
      bytes: Number(match[1]),
      descriptors: Number(match[2]),
      bodyAt: match[0].length,
    };
    const { frameBytes, frameDescriptors } = this.#limits;
    if (head.bytes > frameBytes) {
      const expected = `a frame of at most ${frameBytes} bytes`;
      return this.#refuse({ kind: "too-long", expected, received: `${head.bytes} bytes` });
    }
    if (head.descriptors > frameDescriptors) {
      const expected = `at most ${frameDescriptors} descriptors with a frame`;
      const received = `${head.descriptors} announced`;
      return this.#refuse({ kind: "too-many-descriptors", expected, received });
    }
    if (head.bytes < head.bodyAt + 3) {
      const expected = "a byte count that covers the frame";
      return this.#refuse({ kind: "head", expected, received: `${head.bytes} bytes` });
    }
    return head;
  }

  #readBody(head: Head): Frame | { readonly refusal: FrameRefusal } {
    const line = this.#buffer.subarray(this.#start, this.#start + head.bytes);
    const expected = `JSON of ${head.bytes} bytes that ends with "}" and a newline`;
    if (line[head.bytes - 1] !== NEWLINE || line[head.bytes - 2] !== 0x7d) {
      return this.#refuse({ kind: "json", expected, received: quoteBytes(line.subarray(-40)) });
    }
    let body: unknown;
    try {
      body = JSON.parse(decoder.decode(line.subarray(head.bodyAt, head.bytes - 2)));
    } catch (failure) {
      const received = failure instanceof Error ? failure.message : String(failure);
      return this.#refuse({ kind: "json", expected, received: received.slice(0, 200) });
    }
    this.#start += head.bytes;
    this.#head = undefined;
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
      if (this.#buffer.length > 65_536) this.#buffer = new Uint8Array(4096);
    }
    return { body, descriptors: head.descriptors };
  }
}
