import { createCipheriv, createDecipheriv, createHash } from "node:crypto";
import { closeSync, constants, fstatSync, ftruncateSync, openSync } from "node:fs";
import { formatHash } from "../../image/nar.ts";
import { readPieces, writeSparsely } from "../../image/pieces.ts";
import type { Bytes } from "../../units/units.ts";
import { type Copied, type CopyOptions, synchronise } from "./snapshot-files.ts";

/**
 * Files of an encrypted snapshot: AES-256-GCM by chunks. A chunk's nonce is its number and whether
 * it is the last one, as in STREAM (Hoang, Reyhanitabar, Rogaway and Vizár, 2015): one that was
 * changed, moved, doubled or left out is not opened, nor is a file that ends early. Chunks of
 * zeros stay holes, of which everybody sees where they are; that a hole was one when the snapshot
 * was made is what the hash of the whole file says, and the manifest's code says the hash.
 */

const tagBytes: Bytes = 16;
/** As it is stored, so that a hole of the file system is one of ours. */
const storedChunkBytes: Bytes = 64 * 1024;
/** Of what is encrypted. */
export const chunkBytes: Bytes = storedChunkBytes - tagBytes;
const chunksAtOnce = 32;

/** A chunk that its key, its place or its bytes do not fit. */
export class ChunkRefused extends Error {
  override readonly name = "ChunkRefused";
}

const chunksOf = (size: Bytes): number => Math.max(1, Math.ceil(size / chunkBytes));

/** Bytes of the file in which so many are encrypted. */
export const sealedSize = (size: Bytes): Bytes => size + chunksOf(size) * tagBytes;

/** 11 bytes of the chunk's number, and one that says whether it is the last. */
function nonceOf(index: number, isLast: boolean): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64BE(BigInt(index), 3);
  nonce[11] = isLast ? 1 : 0;
  return nonce;
}

const zeros = Buffer.alloc(storedChunkBytes);
const isZeros = (bytes: Uint8Array) => zeros.compare(bytes, 0, bytes.length, 0, bytes.length) === 0;

/**
 * Encrypts the whole of a file into a new one, 0600, in bounded memory; returns when it is on the
 * disk.
 * @returns the size of what was encrypted, and the hash of what is stored
 * @throws the kernel's refusals; the signal's reason; Error when the source gets shorter meanwhile
 */
export async function sealToNew(
  source: number,
  path: string,
  key: Buffer,
  { signal, onBytes }: CopyOptions,
): Promise<Copied> {
  const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const size: Bytes = fstatSync(source).size;
  const chunks = chunksOf(size);
  const changed = (received: string) =>
    new Error(`Expected ${size} bytes as before, received ${received}`);
  const target = openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    ftruncateSync(target, sealedSize(size));
    const hash = createHash("sha256");
    const put = (piece: Uint8Array, first: number): Promise<void> => {
      const sealed = sealPiece(piece, { key, first, chunks });
      hash.update(sealed);
      onBytes(piece.length);
      return writeSparsely(target, sealed, first * storedChunkBytes);
    };
    if (size === 0) await put(new Uint8Array(0), 0);
    const reading = { size, signal, changed, pieceSize: chunksAtOnce * chunkBytes };
    await readPieces(source, reading, (piece, position) => put(piece, position / chunkBytes));
    await synchronise(target);
    return { size, sha256: formatHash(hash.digest()) };
  } finally {
    closeSync(target);
  }
}

interface Place {
  readonly key: Buffer;
  /** The number of its first chunk. */
  readonly first: number;
  /** Of the whole file. */
  readonly chunks: number;
}

function sealPiece(piece: Uint8Array, { key, first, chunks }: Place): Buffer {
  const count = chunksOf(piece.length);
  const sealed = Buffer.alloc(piece.length + count * tagBytes);
  for (let index = 0; index < count; index += 1) {
    const chunk = piece.subarray(index * chunkBytes, (index + 1) * chunkBytes);
    const isLast = first + index === chunks - 1;
    // The last one is never a hole: where the file ends is said by it.
    if (!isLast && isZeros(chunk)) continue;
    const cipher = createCipheriv("aes-256-gcm", key, nonceOf(first + index, isLast));
    const at = index * storedChunkBytes;
    sealed.set(cipher.update(chunk), at);
    cipher.final();
    sealed.set(cipher.getAuthTag(), at + chunk.length);
  }
  return sealed;
}

/**
 * Decrypts the whole of a file into one that is empty; what is zeros stays a hole. Nothing of a
 * chunk that is refused is written; what was written before is nothing without the hash of the
 * whole.
 * @returns the size of what was encrypted, and the hash of what was stored
 * @throws ChunkRefused; the kernel's refusals; the signal's reason
 */
export async function openSealed(
  source: number,
  target: number,
  { key, size }: { readonly key: Buffer; readonly size: Bytes },
  { signal, onBytes }: CopyOptions,
): Promise<Copied> {
  const stored = sealedSize(size);
  const chunks = chunksOf(size);
  const changed = (received: string) =>
    new ChunkRefused(`expected ${stored} bytes, received ${received}`);
  ftruncateSync(target, size);
  const hash = createHash("sha256");
  await readPieces(source, { size: stored, signal, changed }, (piece, position) => {
    hash.update(piece);
    const first = position / storedChunkBytes;
    const opened = openPiece(piece, { key, first, chunks });
    onBytes(opened.length);
    return writeSparsely(target, opened, first * chunkBytes);
  });
  return { size, sha256: formatHash(hash.digest()) };
}

function openPiece(piece: Uint8Array, { key, first, chunks }: Place): Buffer {
  const count = Math.ceil(piece.length / storedChunkBytes);
  const opened = Buffer.alloc(piece.length - count * tagBytes);
  for (let index = 0; index < count; index += 1) {
    const chunk = piece.subarray(index * storedChunkBytes, (index + 1) * storedChunkBytes);
    const isLast = first + index === chunks - 1;
    if (!isLast && isZeros(chunk)) continue;
    const decipher = createDecipheriv("aes-256-gcm", key, nonceOf(first + index, isLast));
    decipher.setAuthTag(chunk.subarray(-tagBytes));
    try {
      const bytes = decipher.update(chunk.subarray(0, -tagBytes));
      decipher.final();
      opened.set(bytes, index * chunkBytes);
    } catch (cause) {
      const number = `chunk ${first + index + 1} of ${chunks}`;
      const message = `expected ${number} as it was encrypted, received other bytes`;
      throw new ChunkRefused(message, { cause });
    }
  }
  return opened;
}

/** As openSealed, into a new file, 0600; returns when it is on the disk. */
export async function openSealedToNew(
  source: number,
  path: string,
  sealed: { readonly key: Buffer; readonly size: Bytes },
  options: CopyOptions,
): Promise<Copied> {
  const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const target = openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    const copied = await openSealed(source, target, sealed, options);
    await synchronise(target);
    return copied;
  } finally {
    closeSync(target);
  }
}
