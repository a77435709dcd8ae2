/**
 * Holden v0.2 on the wire: SOCK_STREAM, host-endian, a header of type and length, then C structs.
 * Our own frames begin with "{"; no Holden type has that as its first byte. Pure: bytes to
 * messages and back.
 */

/** Message types; the ones from LIST on belong to v0.1 and are answered by an error. */
export const HoldenType = {
  start: 1,
  started: 2,
  error: 3,
  ping: 11,
  pong: 12,
} as const;

const NAME_SIZE = 256;
const ARGUMENT_SIZE = 256;
const ARGUMENT_LIMIT = 32;
const ERROR_SIZE = 512;
export const HEADER_SIZE = 8;
/** name[256], args[32][256], int arg_count. */
export const START_SIZE = NAME_SIZE + ARGUMENT_LIMIT * ARGUMENT_SIZE + 4;
export const STARTED_SIZE = 8;
/** The longest message of v0.1 and v0.2, PROCESS_LIST: int count, 64 × (int, int, char[256]). */
export const LONGEST_BODY = 16_900;

/** The single byte that carries a pidfd after STARTED. */
export const DESCRIPTOR_BYTE = "x".charCodeAt(0);

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What a client says. */
export type HoldenRequest =
  | { readonly kind: "start"; readonly argv: readonly string[] }
  | { readonly kind: "ping" }
  | { readonly kind: "unknown"; readonly type: number }
  /** Not a message at all, or one that lies about itself: the connection ends. */
  | { readonly kind: "refused"; readonly message: string };

function message(type: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, body.length, true);
  bytes.set(body, HEADER_SIZE);
  return bytes;
}

/** Text in a field of fixed size, cut so that a zero ends it. */
function field(text: string, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  encoder.encodeInto(text, bytes.subarray(0, size - 1));
  return bytes;
}

/** Text up to the first zero; undefined when there is none. */
function readField(bytes: Uint8Array): string | undefined {
  const end = bytes.indexOf(0);
  return end < 0 ? undefined : decoder.decode(bytes.subarray(0, end));
}

export const encodePong = () => message(HoldenType.pong, new Uint8Array(0));
export const encodePing = () => message(HoldenType.ping, new Uint8Array(0));

export function encodeError(text: string): Uint8Array {
  return message(HoldenType.error, field(text, ERROR_SIZE));
}

/** STARTED: both numbers are what fork() gave in the agent's PID namespace. */
export function encodeStarted(processId: number): Uint8Array {
  const body = new Uint8Array(STARTED_SIZE);
  const view = new DataView(body.buffer);
  view.setInt32(0, processId, true);
  view.setInt32(4, processId, true);
  return message(HoldenType.started, body);
}

/** START. @throws RangeError when an argument does not fit the protocol's fixed fields. */
export function encodeStart(argv: readonly string[]): Uint8Array {
  if (argv.length < 1 || argv.length > ARGUMENT_LIMIT + 1) {
    throw new RangeError(
      `Holden takes a program and at most ${ARGUMENT_LIMIT} arguments, received ${argv.length - 1}`,
    );
  }
  const long = argv.find((argument) => encoder.encode(argument).length >= ARGUMENT_SIZE);
  if (long !== undefined) {
    throw new RangeError(`Holden takes arguments below ${ARGUMENT_SIZE} bytes, received "${long}"`);
  }
  const body = new Uint8Array(START_SIZE);
  body.set(field(argv[0] ?? "", NAME_SIZE), 0);
  argv.slice(1).forEach((argument, index) => {
    body.set(field(argument, ARGUMENT_SIZE), NAME_SIZE + index * ARGUMENT_SIZE);
  });
  new DataView(body.buffer).setInt32(START_SIZE - 4, argv.length - 1, true);
  return message(HoldenType.start, body);
}

function decodeStart(body: Uint8Array): HoldenRequest {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const count = view.getInt32(START_SIZE - 4, true);
  if (count < 0 || count > ARGUMENT_LIMIT) {
    const message = `Expected 0 to ${ARGUMENT_LIMIT} arguments, received ${count}`;
    return { kind: "refused", message };
  }
  const argv: string[] = [];
  for (let index = -1; index < count; index++) {
    const offset = index < 0 ? 0 : NAME_SIZE + index * ARGUMENT_SIZE;
    const text = readField(body.subarray(offset, offset + ARGUMENT_SIZE));
    if (text === undefined) {
      const message = `Expected text that ends with a zero byte in argument ${index + 1}`;
      return { kind: "refused", message };
    }
    argv.push(text);
  }
  if (argv[0] === "") return { kind: "refused", message: "Expected a program, received none" };
  return { kind: "start", argv };
}

/** Takes a stream of Holden messages apart. After a refusal it takes nothing more. */
export class HoldenReader {
  #buffer = new Uint8Array(0);
  /** Where in the buffer the next message begins: many may have come with one read. */
  #start = 0;
  #refused = false;

  /** True between two messages. */
  get isBetween(): boolean {
    return this.#buffer.length === this.#start;
  }

  push(bytes: Uint8Array): void {
    if (this.#refused) return;
    const rest = this.#buffer.subarray(this.#start);
    const joined = new Uint8Array(rest.length + bytes.length);
    joined.set(rest);
    joined.set(bytes, rest.length);
    this.#buffer = joined;
    this.#start = 0;
  }

  /** The next whole message's type and body. */
  nextMessage(): { type: number; body: Uint8Array } | { refusal: string } | undefined {
    const available = this.#buffer.length - this.#start;
    if (this.#refused || available < HEADER_SIZE) return undefined;
    const view = new DataView(this.#buffer.buffer, this.#start);
    const type = view.getUint32(0, true);
    const length = view.getUint32(4, true);
    if (length > LONGEST_BODY) {
      this.#refused = true;
      this.#buffer = new Uint8Array(0);
      this.#start = 0;
      return { refusal: `Expected a length of at most ${LONGEST_BODY}, received ${length}` };
    }
    if (available < HEADER_SIZE + length) return undefined;
    const bodyAt = this.#start + HEADER_SIZE;
    this.#start = bodyAt + length;
    return { type, body: this.#buffer.slice(bodyAt, this.#start) };
  }

  /** Takes back the bytes that came after the last whole message. */
  takeRest(): Uint8Array {
    const rest = this.#buffer.slice(this.#start);
    this.#buffer = new Uint8Array(0);
    this.#start = 0;
    return rest;
  }

  /** The next whole request, as an agent reads it. */
  next(): HoldenRequest | undefined {
    const found = this.nextMessage();
    if (found === undefined) return undefined;
    if ("refusal" in found) return { kind: "refused", message: found.refusal };
    const { type, body } = found;
    // Its own agent looks at no body of a ping either, and writes the type as a C int.
    if (type === HoldenType.ping) return { kind: "ping" };
    if (type !== HoldenType.start) return { kind: "unknown", type: type | 0 };
    if (body.length !== START_SIZE) {
      const message = `Expected a start of ${START_SIZE} bytes, received ${body.length}`;
      return { kind: "refused", message };
    }
    return decodeStart(body);
  }
}

/** What an agent answers to a start: STARTED's number, or the text of its ERROR. */
export function decodeAnswer(answer: {
  readonly type: number;
  readonly body: Uint8Array;
}): { kind: "started"; processId: number } | { kind: "error"; message: string } {
  const { type, body } = answer;
  if (type === HoldenType.started && body.length === STARTED_SIZE) {
    return { kind: "started", processId: new DataView(body.buffer).getInt32(0, true) };
  }
  if (type === HoldenType.error && body.length === ERROR_SIZE) {
    return { kind: "error", message: readField(body) ?? decoder.decode(body) };
  }
  return { kind: "error", message: `The agent answered with type ${type}, ${body.length} bytes` };
}
