import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { constants, zstdCompress, zstdDecompressSync } from "node:zlib";
import type { Block } from "./protocol-blocks.ts";

/** Frames of zstd (RFC 8878): each block is packed by itself. */

const compress = promisify(zstdCompress);

/** SHA-256. */
export const hashBytes = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest();

/** @param level 1 to 19: larger is smaller and slower */
export async function packFrame(block: Uint8Array, level: number): Promise<Buffer> {
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  return (await compress(block, { params })) as Buffer;
}

/**
 * The block in a frame: hashed before it is unpacked, because what unpacks is not to see what
 * nobody has signed, and after it.
 * @returns undefined where it is not the one of the map
 */
export function unpackFrame(block: Block, frame: Uint8Array): Uint8Array | undefined {
  if (!hashBytes(frame).equals(block.frameDigest)) return undefined;
  let bytes: Uint8Array;
  try {
    bytes = zstdDecompressSync(frame, { maxOutputLength: block.size });
  } catch {
    return undefined;
  }
  const isRight = bytes.length === block.size && hashBytes(bytes).equals(block.digest);
  return isRight ? bytes : undefined;
}
