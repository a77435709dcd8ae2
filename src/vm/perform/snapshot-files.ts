import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, fsync, ftruncateSync, openSync } from "node:fs";
import { synchroniseFolder } from "../../image/copy.ts";
import { formatHash } from "../../image/nar.ts";
import { readPieces, writeSparsely } from "../../image/pieces.ts";
import type { Bytes } from "../../units/units.ts";

export { synchroniseFolder };

/** Bytes and their hash, of what was copied. */
export interface Copied {
  readonly size: Bytes;
  readonly sha256: string;
}

export interface CopyOptions {
  readonly signal: AbortSignal;
  /** Cheap: called for every piece. */
  readonly onBytes: (count: Bytes) => void;
}

/**
 * Copies the whole of a file into one that is empty, by pieces; what is zeros stays a hole.
 * @returns the hash of what was written
 * @throws the kernel's refusals; the signal's reason; Error when the source gets shorter meanwhile
 */
export async function copySparsely(
  source: number,
  target: number,
  { signal, onBytes }: CopyOptions,
): Promise<Copied> {
  const size: Bytes = fstatSync(source).size;
  ftruncateSync(target, size);
  const hash = createHash("sha256");
  const changed = (received: string) =>
    new Error(`Expected ${size} bytes as before, received ${received}`);
  await readPieces(source, { size, signal, changed }, (piece, position) => {
    const writing = writeSparsely(target, piece, position);
    hash.update(piece);
    onBytes(piece.length);
    return writing;
  });
  return { size, sha256: formatHash(hash.digest()) };
}

/** Copies into a new file, 0600; returns when it is on the disk. @throws as copySparsely */
export async function copyToNew(
  source: number,
  path: string,
  options: CopyOptions,
): Promise<Copied> {
  const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const target = openSync(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    const copied = await copySparsely(source, target, options);
    await synchronise(target);
    return copied;
  } finally {
    closeSync(target);
  }
}

/** Opens a file, and nothing that could block or lead elsewhere; whoever asks closes it. */
export function openPlain(path: string): number {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  return openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
}

/** fsync(2), on another thread. */
export const synchronise = (descriptor: number): Promise<void> =>
  new Promise((resolve, reject) => {
    fsync(descriptor, (error) => {
      if (error === null || error === undefined) resolve();
      else reject(error);
    });
  });
