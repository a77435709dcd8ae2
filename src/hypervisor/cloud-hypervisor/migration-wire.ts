import type { Bytes } from "../../units/units.ts";

/**
 * The bytes of cloud-hypervisor's local migration, vm-migration/src/protocol.rs: requests of 16
 * bytes (u16 command, 6 bytes of its own, u64 length of what follows), answers of 16 (u16 status,
 * 6 bytes of padding, u64 length), all little-endian. Pure: descriptors are the peer's matter.
 */

export const HEADER_BYTES = 16;
/** What a MemoryFd request is followed by: a u32, whose first byte carries the descriptor. */
export const SLOT_BYTES = 4;
/** In the first two bytes of a Start's own; other versions are refused by the VMM. */
export const PROTOCOL_VERSION = 0;

/** Never used again for anything else. */
const commandNumbers = {
  start: 1,
  config: 2,
  state: 3,
  memory: 4,
  /** The machine runs on at the other end. */
  complete: 5,
  abandon: 6,
  "memory-descriptor": 7,
  /** The machine stays paused at the other end: version 52. */
  "complete-paused": 8,
} as const;
export type MigrationCommand = keyof typeof commandNumbers;

const STATUS_OK = 1;
const STATUS_ERROR = 2;

const commandNames: ReadonlyMap<number, MigrationCommand> = new Map(
  Object.entries(commandNumbers).map(([name, number]) => [number, name as MigrationCommand]),
);

/** undefined for a number that no command has. */
export const commandAt = (number: number): MigrationCommand | undefined => commandNames.get(number);

/** What is wrong with what came, for a person. */
export interface WireRefusal {
  readonly expected: string;
  readonly received: string;
}

export interface MigrationRequest {
  readonly command: MigrationCommand;
  readonly payload: Uint8Array;
}

/** @param length of what follows the header */
export function encodeRequest(command: MigrationCommand, length: Bytes): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, commandNumbers[command], true);
  if (command === "start") view.setUint16(2, PROTOCOL_VERSION, true);
  view.setBigUint64(8, BigInt(length), true);
  return bytes;
}

export function encodeAnswer(status: "ok" | "error"): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  new DataView(bytes.buffer).setUint16(0, status === "ok" ? STATUS_OK : STATUS_ERROR, true);
  return bytes;
}

export function encodeSlot(slot: number): Uint8Array {
  const bytes = new Uint8Array(SLOT_BYTES);
  new DataView(bytes.buffer).setUint32(0, slot, true);
  return bytes;
}

/** @param payload SLOT_BYTES of it */
export function decodeSlot(payload: Uint8Array): number {
  return new DataView(payload.buffer, payload.byteOffset, payload.byteLength).getUint32(0, true);
}

/** @param bytes HEADER_BYTES of them */
export function decodeAnswer(bytes: Uint8Array): "ok" | "error" | WireRefusal {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const status = view.getUint16(0, true);
  const length = view.getBigUint64(8, true);
  if (length !== 0n) return { expected: "an answer alone", received: `${length} bytes after it` };
  if (status === STATUS_OK) return "ok";
  if (status === STATUS_ERROR) return "error";
  return { expected: `the status ${STATUS_OK} or ${STATUS_ERROR}`, received: `${status}` };
}

/** Whole pieces of known sizes from bytes that come in any pieces. */
export class ByteQueue {
  #pieces: Uint8Array[] = [];
  #size = 0;

  get size(): Bytes {
    return this.#size;
  }

  /** Keeps a copy. */
  push(bytes: Uint8Array): void {
    this.#pieces.push(bytes.slice());
    this.#size += bytes.length;
  }

  /** The next so many bytes, which are taken; undefined while there are fewer. */
  take(count: Bytes): Uint8Array | undefined {
    if (this.#size < count) return undefined;
    const all = Buffer.concat(this.#pieces);
    this.#pieces = all.length === count ? [] : [all.subarray(count)];
    this.#size -= count;
    return all.subarray(0, count);
  }

  /** The next line, without its end; undefined while it has not come. @throws RangeError */
  takeLine(limit: Bytes): string | undefined {
    const all = Buffer.concat(this.#pieces);
    const end = all.indexOf("\n");
    if (end > limit || (end < 0 && all.length > limit)) {
      throw new RangeError(`Expected a line of at most ${limit} bytes`);
    }
    if (end < 0) return undefined;
    const line = this.take(end + 1);
    return line === undefined ? undefined : new TextDecoder().decode(line.subarray(0, end));
  }
}

/** Reads requests; a refusal is the last thing that it gives. */
export class RequestReader {
  readonly #limit: Bytes;
  readonly #queue = new ByteQueue();
  #header: { readonly command: MigrationCommand; readonly length: Bytes } | undefined;

  /** @param limit bytes that may follow a request */
  constructor(limit: Bytes) {
    this.#limit = limit;
  }

  push(bytes: Uint8Array): void {
    this.#queue.push(bytes);
  }

  /** undefined while the next one has not come whole. */
  next(): MigrationRequest | { readonly refusal: WireRefusal } | undefined {
    if (this.#header === undefined) {
      const bytes = this.#queue.take(HEADER_BYTES);
      if (bytes === undefined) return undefined;
      const header = decodeHeader(bytes, this.#limit);
      if ("refusal" in header) return header;
      this.#header = header;
    }
    const { command, length } = this.#header;
    const payload = this.#queue.take(length);
    if (payload === undefined) return undefined;
    this.#header = undefined;
    return { command, payload };
  }
}

function decodeHeader(
  bytes: Uint8Array,
  limit: Bytes,
): { command: MigrationCommand; length: Bytes } | { refusal: WireRefusal } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const number = view.getUint16(0, true);
  const command = commandAt(number);
  if (command === undefined) {
    return { refusal: { expected: "a command of 1 to 8", received: `${number}` } };
  }
  if (command === "memory") {
    return { refusal: { expected: "memory as a descriptor", received: "its bytes" } };
  }
  const version = view.getUint16(2, true);
  if (command === "start" && version !== PROTOCOL_VERSION) {
    const expected = `version ${PROTOCOL_VERSION} of the migration`;
    return { refusal: { expected, received: `${version}` } };
  }
  const length = view.getBigUint64(8, true);
  const most = mostAfter(command, limit);
  if (length > BigInt(most) || (command === "memory-descriptor" && length !== BigInt(most))) {
    const expected = `at most ${most} bytes after ${command}`;
    return { refusal: { expected, received: `${length}` } };
  }
  return { command, length: Number(length) };
}

function mostAfter(command: MigrationCommand, limit: Bytes): Bytes {
  if (command === "config" || command === "state") return limit;
  return command === "memory-descriptor" ? SLOT_BYTES : 0;
}

/** How far a migration to us has come. */
export type Receiving = "nothing" | "started" | "memory" | "configured" | "stated" | "complete";

/** What may come when: "ReceiveMigrationState" of vmm/src/lib.rs, for a local migration. */
const following: Readonly<Record<Receiving, Partial<Record<MigrationCommand, Receiving>>>> = {
  nothing: { start: "started" },
  // A machine without a piece of shared memory cannot be received: there would be no memory.
  started: { "memory-descriptor": "memory" },
  memory: { "memory-descriptor": "memory", config: "configured" },
  configured: { state: "stated" },
  // Not "complete", which is a running machine's: that would run on when we are gone.
  stated: { "complete-paused": "complete" },
  complete: {},
};

/** What follows a request, or why it may not come here. */
export function stepReceiving(
  receiving: Receiving,
  command: MigrationCommand,
): Receiving | { readonly refusal: WireRefusal } {
  const next = following[receiving][command];
  if (next !== undefined) return next;
  const expected = Object.keys(following[receiving]).join(" or ") || "nothing more";
  return { refusal: { expected, received: command } };
}
