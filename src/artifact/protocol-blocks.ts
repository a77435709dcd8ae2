import { artifactLimits } from "./protocol.ts";

/**
 * A block map: a file in blocks of one size, the last one shorter, and of each the SHA-256 of its
 * bytes, of its zstd frame, and that frame's length. All frames, one after the other, are one file,
 * which zstd itself unpacks to the whole.
 *
 *     "hostler-blocks-1"                            16 bytes
 *     block size, count: 32 bits each               little-endian, as all of it
 *     size of the whole file: 64 bits
 *     count × { 32 bytes, 32 bytes, 32 bits }
 */

const magic = "hostler-blocks-1";
const headerBytes = 32;
const entryBytes = 68;
const digestBytes = 32;

/** A frame's longest: ZSTD_COMPRESSBOUND of zstd.h, and room for its header. */
export const mostFrameBytes = (blockBytes: number): number =>
  blockBytes + (blockBytes >> 8) + 1_024;

/** How long the map of so many blocks is. */
export const blockMapBytesOf = (count: number): number => headerBytes + count * entryBytes;

export interface Block {
  /** Where it is in the file, in bytes. */
  readonly position: number;
  readonly size: number;
  /** SHA-256 of it. */
  readonly digest: Uint8Array;
  /** Where its frame is among the frames, in bytes. */
  readonly framePosition: number;
  readonly frameSize: number;
  readonly frameDigest: Uint8Array;
}

export interface BlockMap {
  readonly blockBytes: number;
  /** Of the whole file. */
  readonly size: number;
  readonly blocks: readonly Block[];
  /** Bytes of all frames. */
  readonly frameBytes: number;
}

export interface WrongMap {
  readonly expected: string;
  readonly received: string;
}

export interface BlockEntry {
  readonly digest: Uint8Array;
  readonly frameDigest: Uint8Array;
  readonly frameSize: number;
}

/** The bytes of a map. */
export function writeBlockMap(map: {
  readonly blockBytes: number;
  readonly size: number;
  readonly entries: readonly BlockEntry[];
}): Uint8Array {
  const { blockBytes, size, entries } = map;
  const bytes = new Uint8Array(blockMapBytesOf(entries.length));
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(magic));
  view.setUint32(16, blockBytes, true);
  view.setUint32(20, entries.length, true);
  view.setBigUint64(24, BigInt(size), true);
  for (const [index, entry] of entries.entries()) {
    const start = headerBytes + index * entryBytes;
    bytes.set(entry.digest, start);
    bytes.set(entry.frameDigest, start + digestBytes);
    view.setUint32(start + 2 * digestBytes, entry.frameSize, true);
  }
  return bytes;
}

/** @param size that the manifest says of the file */
export function readBlockMap(bytes: Uint8Array, size: number): BlockMap | WrongMap {
  if (bytes.length < headerBytes) {
    return { expected: `at least ${headerBytes} bytes`, received: `${bytes.length} bytes` };
  }
  const begin = new TextDecoder().decode(bytes.subarray(0, magic.length));
  if (begin !== magic) return { expected: `"${magic}" at its begin`, received: "something else" };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const blockBytes = view.getUint32(16, true);
  const count = view.getUint32(20, true);
  const { leastBlockBytes, mostBlockBytes } = artifactLimits;
  if (blockBytes < leastBlockBytes || blockBytes > mostBlockBytes) {
    const expected = `blocks of ${leastBlockBytes} to ${mostBlockBytes} bytes`;
    return { expected, received: `${blockBytes}` };
  }
  const told = view.getBigUint64(24, true);
  if (told !== BigInt(size)) {
    return { expected: `a file of ${size} bytes, as the manifest says`, received: `${told}` };
  }
  if (count !== Math.ceil(size / blockBytes)) {
    return { expected: `${Math.ceil(size / blockBytes)} blocks`, received: `${count}` };
  }
  const length = blockMapBytesOf(count);
  if (bytes.length !== length) {
    return { expected: `${length} bytes`, received: `${bytes.length} bytes` };
  }
  return readEntries(bytes, { blockBytes, size, count });
}

function readEntries(
  bytes: Uint8Array,
  { blockBytes, size, count }: { blockBytes: number; size: number; count: number },
): BlockMap | WrongMap {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const blocks: Block[] = [];
  let framePosition = 0;
  for (let index = 0; index < count; index += 1) {
    const start = headerBytes + index * entryBytes;
    const position = index * blockBytes;
    const blockSize = Math.min(blockBytes, size - position);
    const frameSize = view.getUint32(start + 2 * digestBytes, true);
    if (frameSize < 1 || frameSize > mostFrameBytes(blockSize)) {
      const expected = `a frame of 1 to ${mostFrameBytes(blockSize)} bytes for block ${index}`;
      return { expected, received: `${frameSize}` };
    }
    blocks.push({
      ...{ position, size: blockSize, framePosition, frameSize },
      digest: bytes.subarray(start, start + digestBytes),
      frameDigest: bytes.subarray(start + digestBytes, start + 2 * digestBytes),
    });
    framePosition += frameSize;
  }
  return { blockBytes, size, blocks, frameBytes: framePosition };
}

/** Frames that are asked for at once: neighbours. */
export interface FrameRange {
  /** Of blocks: the first, and the one after the last. */
  readonly first: number;
  readonly end: number;
  readonly position: number;
  readonly bytes: number;
}

/**
 * The next frames to ask for: missing neighbours, as many as fit, and one at least.
 * @param missing indexes of blocks, rising
 * @param most in bytes
 */
export function nextRange(
  map: BlockMap,
  missing: readonly number[],
  most: number,
): FrameRange | undefined {
  const [first] = missing;
  if (first === undefined) return undefined;
  const position = map.blocks[first]?.framePosition ?? 0;
  let bytes = 0;
  let end = first;
  for (const index of missing) {
    const frameSize = map.blocks[index]?.frameSize ?? 0;
    if (index !== end || (end > first && bytes + frameSize > most)) break;
    bytes += frameSize;
    end += 1;
  }
  return { first, end, position, bytes };
}
