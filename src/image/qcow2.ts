import type { Bytes } from "../units/units.ts";

/**
 * qcow2, as docs/interop/qcow2.txt of QEMU describes it: an empty overlay, and what the header of
 * an image says. Pure.
 */

export type DiskFormat = "raw" | "qcow2";

/** A disk that shows another one, until something is written to it. */
export interface Overlay {
  /** The absolute path of what it shows. */
  readonly backing: string;
  /** Never guessed: a machine could write a header of its own choice into a raw disk. */
  readonly backingFormat: DiskFormat;
  /** How large the machine sees it: a multiple of 512. */
  readonly virtualSize: Bytes;
}

/** Going over one is a RangeError: who calls has checked what people wrote. */
export const overlayLimits = {
  /** 64 TiB. */
  virtualSize: 64 * 1024 ** 4,
  /** Of the backing file's name. */
  nameBytes: 1023,
} as const;

const magic = 0x5146_49fb;
const clusterBits = 16;
const clusterBytes = 1 << clusterBits;
/** What one entry of the first table stands for: a cluster of entries, each for a cluster. */
const bytesOfEntry = (clusterBytes / 8) * clusterBytes;
/** References are counted in 16 bits: 2^4. */
const countOrder = 4;
const backingFormatExtension = 0xe279_2aca;
const headerBytes = 104;

/** The clusters of an empty overlay, in their order: all are counted once. */
const clusters = { header: 0, countTable: 1, counts: 2, firstTable: 3 } as const;

/** A whole file: `bytes` stands at its begin, and zeros follow up to `size`. */
export function makeOverlay({ backing, backingFormat, virtualSize }: Overlay): {
  readonly bytes: Uint8Array;
  readonly size: Bytes;
} {
  const name = Buffer.from(backing);
  const { virtualSize: most, nameBytes } = overlayLimits;
  if (!backing.startsWith("/") || name.length > nameBytes || name.includes(0)) {
    throw new RangeError(`Expected an absolute path of at most ${nameBytes} bytes: ${backing}`);
  }
  if (virtualSize < 512 || virtualSize > most || virtualSize % 512 !== 0) {
    throw new RangeError(`Expected 512 to ${most} bytes in sectors of 512: ${virtualSize}`);
  }
  const entries = Math.ceil(virtualSize / bytesOfEntry);
  const tableClusters = Math.ceil((entries * 8) / clusterBytes);
  const count = clusters.firstTable + tableClusters;
  const bytes = Buffer.alloc(clusters.firstTable * clusterBytes);
  const format = Buffer.from(backingFormat);
  const formatEnd = headerBytes + 8 + Math.ceil(format.length / 8) * 8;
  // After the extensions stands one of no kind and no length: eight bytes of zeros.
  const nameOffset = formatEnd + 8;
  bytes.writeUInt32BE(magic, 0);
  bytes.writeUInt32BE(3, 4);
  bytes.writeBigUInt64BE(BigInt(nameOffset), 8);
  bytes.writeUInt32BE(name.length, 16);
  bytes.writeUInt32BE(clusterBits, 20);
  bytes.writeBigUInt64BE(BigInt(virtualSize), 24);
  bytes.writeUInt32BE(entries, 36);
  bytes.writeBigUInt64BE(BigInt(clusters.firstTable * clusterBytes), 40);
  bytes.writeBigUInt64BE(BigInt(clusters.countTable * clusterBytes), 48);
  bytes.writeUInt32BE(1, 56);
  bytes.writeUInt32BE(countOrder, 96);
  bytes.writeUInt32BE(headerBytes, 100);
  bytes.writeUInt32BE(backingFormatExtension, headerBytes);
  bytes.writeUInt32BE(format.length, headerBytes + 4);
  format.copy(bytes, headerBytes + 8);
  name.copy(bytes, nameOffset);
  const counts = clusters.counts * clusterBytes;
  bytes.writeBigUInt64BE(BigInt(counts), clusters.countTable * clusterBytes);
  for (let index = 0; index < count; index += 1) bytes.writeUInt16BE(1, counts + index * 2);
  return { bytes, size: count * clusterBytes };
}

export type DiskHeader =
  | { readonly kind: "raw" }
  | { readonly kind: "qcow2"; readonly virtualSize: Bytes }
  /** A qcow2 that would have the VMM open another file, or that it could not read as it is. */
  | { readonly kind: "refused"; readonly expected: string; readonly received: string };

/** Bytes of a file that are enough for `parseDiskHeader`. */
export const diskHeaderBytes = headerBytes;

/** Bits of "incompatible features": what of them an image may have. */
const incompatible = { dirty: 1n, corrupt: 2n, externalData: 4n, compression: 8n, extended: 16n };

/** What the first bytes of a disk say. Nothing in them is believed. */
export function parseDiskHeader(begin: Uint8Array): DiskHeader {
  const bytes = Buffer.from(begin.buffer, begin.byteOffset, begin.length);
  if (bytes.length < 4 || bytes.readUInt32BE(0) !== magic) return { kind: "raw" };
  const refuse = (expected: string, received: string) =>
    ({ kind: "refused", expected, received }) as const;
  if (bytes.length < 72)
    return refuse("the header of a qcow2 image", `${bytes.length} bytes of it`);
  const version = bytes.readUInt32BE(4);
  if (version !== 2 && version !== 3) {
    return refuse("qcow2 of version 2 or 3", `version ${version}`);
  }
  if (bytes.readBigUInt64BE(8) !== 0n) {
    return refuse("a qcow2 image that needs no other file", "one with a backing file");
  }
  if (bytes.readUInt32BE(32) !== 0) return refuse("a qcow2 image in the clear", "an encrypted one");
  if (version === 3) {
    if (bytes.length < headerBytes) return refuse("a whole header", `${bytes.length} bytes of it`);
    const found = refuseFeatures(bytes.readBigUInt64BE(72));
    if (found !== undefined) return refuse(found.expected, found.received);
  }
  const size = bytes.readBigUInt64BE(24);
  const { virtualSize: most } = overlayLimits;
  if (size > BigInt(most)) return refuse(`a disk of at most ${most} bytes`, `${size} bytes`);
  return { kind: "qcow2", virtualSize: Number(size) };
}

function refuseFeatures(features: bigint) {
  const { dirty, corrupt, externalData, compression, extended } = incompatible;
  if ((features & externalData) !== 0n) {
    const received = "one with an external data file";
    return { expected: "a qcow2 image that needs no other file", received };
  }
  if ((features & (dirty | corrupt)) !== 0n) {
    return { expected: "a qcow2 image that was closed", received: "one to be repaired" };
  }
  if ((features & ~(compression | extended)) === 0n) return undefined;
  const received = `the feature bits 0x${features.toString(16)}`;
  return { expected: "a qcow2 image with features that are known", received };
}
