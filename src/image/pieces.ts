import { read, write } from "node:fs";
import type { Bytes } from "../units/units.ts";

/** How much is read, hashed and written at once: a turn of the event loop is a millisecond long. */
export const pieceBytes = 2 * 1024 * 1024;

/** One is read, one is used, one is still being written. */
const ringLength = 3;

export interface ReadOptions {
  /** What is read: neither less nor more. */
  readonly size: Bytes;
  readonly signal: AbortSignal | undefined;
  /** Of all pieces but the last; pieceBytes without it. */
  readonly pieceSize?: Bytes;
  /** The error that tells that the file is shorter than it was. */
  readonly changed: (received: string) => Error;
}

/**
 * Reads the file from its begin, the next piece while one is used. `use` may give a promise: the
 * piece's bytes stay as they are until it is kept.
 * @throws what `changed` gives; the kernel's refusals; the signal's reason
 */
export async function readPieces(
  descriptor: number,
  { size, signal, changed, pieceSize = pieceBytes }: ReadOptions,
  use: (piece: Uint8Array, position: Bytes) => Promise<void> | void,
): Promise<void> {
  const length = Math.min(pieceSize, size);
  const ring = Array.from({ length: ringLength }, () => new Uint8Array(length));
  const uses: (Promise<void> | void)[] = [];
  const readAt = (position: Bytes, turn: number): Promise<Uint8Array> => {
    const memory = (ring[turn % ringLength] as Uint8Array).subarray(0, size - position);
    return readWhole(descriptor, memory, position).then((count) => {
      if (count === memory.length) return memory;
      throw changed(`${position + count} bytes, then its end`);
    });
  };
  let ahead: Promise<Uint8Array> | undefined;
  try {
    for (let position = 0, turn = 0; position < size; turn += 1) {
      signal?.throwIfAborted();
      const piece = await (ahead ?? readAt(position, turn));
      // The piece after this one goes where the one before the last is still being written from.
      await uses[turn - (ringLength - 1)];
      const next = position + piece.length;
      ahead = next < size ? awaitedLater(readAt(next, turn + 1)) : undefined;
      uses[turn] = awaitedLater(use(piece, position));
      position = next;
    }
  } finally {
    // Nobody closes a descriptor while something is read or written there.
    await Promise.allSettled([ahead, ...uses.slice(-ringLength)]);
  }
  await Promise.all(uses.slice(-ringLength));
}

/** A promise that may fail before its turn to be waited for has come. */
function awaitedLater<T>(work: T): T {
  if (work instanceof Promise) work.catch(() => undefined);
  return work;
}

/** @returns how many bytes there were; fewer than asked for at the end of the file */
async function readWhole(descriptor: number, memory: Uint8Array, position: Bytes): Promise<number> {
  let count = 0;
  while (count < memory.length) {
    const more = await readSome(descriptor, memory.subarray(count), position + count);
    if (more === 0) break;
    count += more;
  }
  return count;
}

const readSome = (descriptor: number, memory: Uint8Array, position: Bytes): Promise<number> =>
  new Promise((resolve, reject) => {
    read(descriptor, memory, 0, memory.length, position, (error, count) => {
      if (error === null) resolve(count);
      else reject(error);
    });
  });

/** What may become a hole, as large as a page cache's folio or a file system's block often is. */
const blockBytes = 64 * 1024;
const zeroBlock = Buffer.alloc(blockBytes);

/**
 * Writes a piece, but for its blocks of zeros: in a file that is new and has its length already,
 * these stay holes.
 */
export async function writeSparsely(
  descriptor: number,
  piece: Uint8Array,
  position: Bytes,
): Promise<void> {
  let begin = 0;
  for (let offset = 0; offset < piece.length; offset += blockBytes) {
    const end = Math.min(offset + blockBytes, piece.length);
    if (zeroBlock.compare(piece, offset, end, 0, end - offset) !== 0) continue;
    await writeWhole(descriptor, piece.subarray(begin, offset), position + begin);
    begin = end;
  }
  await writeWhole(descriptor, piece.subarray(begin), position + begin);
}

async function writeWhole(descriptor: number, bytes: Uint8Array, position: Bytes): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    done += await writeSome(descriptor, bytes.subarray(done), position + done);
  }
}

const writeSome = (descriptor: number, bytes: Uint8Array, position: Bytes): Promise<number> =>
  new Promise((resolve, reject) => {
    write(descriptor, bytes, 0, bytes.length, position, (error, count) => {
      if (error === null) resolve(count);
      else reject(error);
    });
  });
