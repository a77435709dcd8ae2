import type { Bytes } from "../../units/units.ts";
import {
  ByteQueue,
  commandAt,
  HEADER_BYTES,
  type MigrationCommand,
  type MigrationRequest,
  PROTOCOL_VERSION,
  type WireRefusal,
} from "./migration-wire.ts";

/**
 * What a VMM says that sends a machine to another host: requests as in a local migration, but with
 * the guest's memory in the stream. After a "memory" request stand ranges (u64 address, u64 length,
 * each 16 bytes) and then the contents of all of them (send_memory_ranges of
 * vmm/src/migration/transport.rs). Pure.
 */

/** Of one range of memory. */
const RANGE_BYTES = 16;

export type MovePiece =
  /** A request that came whole; not one of memory. */
  | { readonly kind: "request"; readonly request: MigrationRequest }
  /** Of a memory request, its header among it: to be passed on as it is. */
  | { readonly kind: "memory"; readonly bytes: Uint8Array }
  /** The last thing that is given. */
  | { readonly kind: "refused"; readonly refusal: WireRefusal };

/** What may come when: "ReceiveMigrationState" of vmm/src/lib.rs. */
const following: Readonly<Record<string, readonly MigrationCommand[]>> = {
  "": ["start"],
  start: ["config"],
  config: ["memory", "state"],
  memory: ["memory", "state"],
  state: ["complete", "complete-paused"],
};

/** Reads such a stream, which comes in any pieces. */
export class MoveReader {
  readonly #limit: Bytes;
  readonly #queue = new ByteQueue();
  #last = "";
  #header: { readonly command: MigrationCommand; readonly length: Bytes } | undefined;
  /** Bytes of ranges that are to come, and of one that has begun. */
  #ranges = 0;
  readonly #range = new Uint8Array(RANGE_BYTES);
  #rangeBytes = 0;
  /** Bytes of the memory that the ranges name. */
  #contents = 0;
  #isOver = false;

  /** @param limit bytes that may follow a request, but for memory */
  constructor(limit: Bytes) {
    this.#limit = limit;
  }

  push(bytes: Uint8Array): MovePiece[] {
    const pieces: MovePiece[] = [];
    let rest = bytes;
    while (rest.length > 0 && !this.#isOver) {
      const count = this.#step(rest, pieces);
      rest = rest.subarray(count);
    }
    return pieces;
  }

  /** @returns how many of the bytes were taken */
  #step(bytes: Uint8Array, pieces: MovePiece[]): number {
    if (this.#ranges > 0) return this.#takeRange(bytes, pieces);
    if (this.#contents > 0) {
      const taken = bytes.subarray(0, this.#contents);
      this.#contents -= taken.length;
      pieces.push({ kind: "memory", bytes: taken });
      return taken.length;
    }
    const wanted = (this.#header?.length ?? HEADER_BYTES) - this.#queue.size;
    const taken = bytes.subarray(0, wanted);
    this.#queue.push(taken);
    if (taken.length === wanted) this.#whole(pieces);
    return taken.length;
  }

  #takeRange(bytes: Uint8Array, pieces: MovePiece[]): number {
    const taken = bytes.subarray(0, RANGE_BYTES - this.#rangeBytes);
    this.#range.set(taken, this.#rangeBytes);
    this.#rangeBytes += taken.length;
    this.#ranges -= taken.length;
    pieces.push({ kind: "memory", bytes: taken });
    if (this.#rangeBytes < RANGE_BYTES) return taken.length;
    this.#rangeBytes = 0;
    const length = new DataView(this.#range.buffer).getBigUint64(8, true);
    const sum = BigInt(this.#contents) + length;
    if (sum > BigInt(Number.MAX_SAFE_INTEGER)) {
      this.#refuse(pieces, { expected: "ranges of memory", received: `${sum} bytes of it` });
    } else this.#contents = Number(sum);
    return taken.length;
  }

  #whole(pieces: MovePiece[]): void {
    const bytes = this.#queue.take(this.#queue.size) ?? new Uint8Array(0);
    if (this.#header !== undefined) {
      const { command } = this.#header;
      this.#header = undefined;
      pieces.push({ kind: "request", request: { command, payload: bytes } });
      return;
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const number = view.getUint16(0, true);
    const command = commandAt(number);
    const allowed = following[this.#last] ?? [];
    if (command === undefined || !allowed.includes(command)) {
      const expected = allowed.join(" or ") || "nothing more";
      this.#refuse(pieces, { expected, received: command ?? `the command ${number}` });
      return;
    }
    const version = view.getUint16(2, true);
    if (command === "start" && version !== PROTOCOL_VERSION) {
      const expected = `version ${PROTOCOL_VERSION} of the migration`;
      this.#refuse(pieces, { expected, received: `${version}` });
      return;
    }
    this.#begin(command, view.getBigUint64(8, true), bytes, pieces);
  }

  #begin(command: MigrationCommand, length: bigint, header: Uint8Array, pieces: MovePiece[]): void {
    this.#last = command;
    if (command === "memory") {
      if (length % BigInt(RANGE_BYTES) !== 0n || length > BigInt(Number.MAX_SAFE_INTEGER)) {
        const expected = `ranges of ${RANGE_BYTES} bytes each`;
        this.#refuse(pieces, { expected, received: `${length} bytes of them` });
        return;
      }
      this.#ranges = Number(length);
      pieces.push({ kind: "memory", bytes: header });
      return;
    }
    const most = command === "config" || command === "state" ? this.#limit : 0;
    if (length > BigInt(most)) {
      const expected = `at most ${most} bytes after ${command}`;
      this.#refuse(pieces, { expected, received: `${length}` });
    } else if (length === 0n) {
      pieces.push({ kind: "request", request: { command, payload: new Uint8Array(0) } });
    } else this.#header = { command, length: Number(length) };
  }

  #refuse(pieces: MovePiece[], refusal: WireRefusal): void {
    this.#isOver = true;
    pieces.push({ kind: "refused", refusal });
  }
}
