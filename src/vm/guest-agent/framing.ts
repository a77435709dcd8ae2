/**
 * JSON text sequences (RFC 7464): a record separator, a text of JSON, a newline. JSON has neither
 * of the two inside of a text, because it escapes control characters in strings, so that a reader
 * who comes in the middle, or to whom half a message was sent, is whole again at the next one.
 */

const RECORD_SEPARATOR = 0x1e;
const NEWLINE = 0x0a;

/** What a push gave, in the order of the bytes. */
export type Framed =
  | { readonly kind: "message"; readonly body: unknown; readonly bytes: number }
  /** Bytes that are no message: half of one, a longer one than the limit, or none at all. */
  | { readonly kind: "stray"; readonly why: StrayReason; readonly bytes: number };

export type StrayReason = "outside" | "cut-off" | "too-long" | "no-json";

const encoder = new TextEncoder();

/** A message as it is sent. A value that JSON cannot say is a bug. */
export function frameMessage(body: unknown): Uint8Array {
  return encoder.encode(`\u001e${JSON.stringify(body)}\n`);
}

/**
 * Takes messages out of a stream of bytes. It keeps at most the bytes of one message, whatever is
 * sent to it.
 */
export class MessageReader {
  readonly #limit: number;
  #phase: "outside" | "inside" | "skipping" = "outside";
  #kept = new Uint8Array(0);
  #size = 0;

  /** @param limit bytes of a message, without its separator and its newline */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Bytes that are kept, of a message whose end has not come. */
  get keptBytes(): number {
    return this.#size;
  }

  /** Forgets what came: another peer is at the other end from now on. */
  reset(): void {
    this.#phase = "outside";
    this.#forget();
  }

  push(bytes: Uint8Array): Framed[] {
    const framed: Framed[] = [];
    for (let begin = 0; begin < bytes.length; ) {
      begin = this.#take(bytes, begin, framed);
    }
    return framed;
  }

  /** Takes what belongs together from this offset on. @returns the offset behind it */
  #take(bytes: Uint8Array, begin: number, framed: Framed[]): number {
    const separator = indexOrEnd(bytes, RECORD_SEPARATOR, begin);
    if (this.#phase !== "inside") {
      const why = this.#phase === "outside" ? "outside" : "too-long";
      addStray(framed, why, separator - begin);
      if (separator === bytes.length) return separator;
      this.#phase = "inside";
      return separator + 1;
    }
    const newline = indexOrEnd(bytes, NEWLINE, begin);
    const end = Math.min(separator, newline);
    if (this.#size + end - begin > this.#limit) {
      addStray(framed, "too-long", this.#size + end - begin);
      this.#forget();
      this.#phase = "skipping";
      return end;
    }
    this.#keep(bytes.subarray(begin, end));
    if (end === bytes.length) return end;
    if (end === newline) {
      framed.push(this.#parse());
      this.#phase = "outside";
    } else addStray(framed, "cut-off", this.#size + 1);
    this.#forget();
    return end + 1;
  }

  #parse(): Framed {
    const bytes = this.#size + 2;
    try {
      const line = this.#kept.subarray(0, this.#size);
      const body: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(line));
      return { kind: "message", body, bytes };
    } catch {
      return { kind: "stray", why: "no-json", bytes };
    }
  }

  #keep(bytes: Uint8Array): void {
    const size = this.#size + bytes.length;
    if (size > this.#kept.length) {
      const larger = new Uint8Array(Math.min(this.#limit, Math.max(size, 2 * this.#kept.length)));
      larger.set(this.#kept.subarray(0, this.#size));
      this.#kept = larger;
    }
    this.#kept.set(bytes, this.#size);
    this.#size = size;
  }

  #forget(): void {
    this.#kept = new Uint8Array(0);
    this.#size = 0;
  }
}

function indexOrEnd(bytes: Uint8Array, byte: number, begin: number): number {
  const index = bytes.indexOf(byte, begin);
  return index < 0 ? bytes.length : index;
}

function addStray(framed: Framed[], why: StrayReason, bytes: number): void {
  if (bytes > 0) framed.push({ kind: "stray", why, bytes });
}
