import type { Bytes } from "../../units/units.ts";

/**
 * How disks go to another host of which the VMM copies none itself: a line of JSON that names the
 * disk, then frames of 16 bytes (u32 kind, u32 length, u64 offset, all little-endian), and bytes
 * after those of data. "sync" and "end" are answered by one byte each. Pure.
 */

export const DISK_FRAME_BYTES = 16;
/** Of the first line. */
export const DISK_LINE_BYTES = 64;
/** Bytes of one piece of a disk, which is sent when any of them has changed. */
export const DISK_BLOCK_BYTES: Bytes = 1024 * 1024;
/** The answer to "sync" and "end": all that came is on the disk. */
export const DISK_SYNCED = 1;

/** Never used again for anything else. */
const kindNumbers = {
  /** Its bytes stand after it. */
  data: 1,
  /** Nothing of the disk counts any more; it has this size (the offset). */
  empty: 2,
  /** It has this size, and what it had stays. */
  size: 3,
  /** All of it has come, and there is nothing more. */
  end: 4,
  /** More will come: what has come is written out meanwhile. */
  sync: 5,
} as const;
export type DiskFrameKind = keyof typeof kindNumbers;

export interface DiskFrame {
  readonly kind: DiskFrameKind;
  readonly length: Bytes;
  readonly offset: Bytes;
}

export function encodeDiskFrame({ kind, length, offset }: DiskFrame): Uint8Array {
  const bytes = new Uint8Array(DISK_FRAME_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, kindNumbers[kind], true);
  view.setUint32(4, length, true);
  view.setBigUint64(8, BigInt(offset), true);
  return bytes;
}

/** @param bytes DISK_FRAME_BYTES of them @returns why it is none */
export function decodeDiskFrame(bytes: Uint8Array): DiskFrame | string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const number = view.getUint32(0, true);
  const [kind] = Object.entries(kindNumbers).find(([, one]) => one === number) ?? [];
  if (kind === undefined) return `expected a frame of the kinds 1 to 5, received ${number}`;
  const length = view.getUint32(4, true);
  const offset = view.getBigUint64(8, true);
  const most = kind === "data" ? DISK_BLOCK_BYTES : 0;
  if (length > most) return `expected at most ${most} bytes of ${kind}, received ${length}`;
  if (offset + BigInt(length) > BigInt(Number.MAX_SAFE_INTEGER)) {
    return `expected a place in a disk, received ${offset}`;
  }
  return { kind: kind as DiskFrameKind, length, offset: Number(offset) };
}

/**
 * The header of a qcow2 overlay (docs/interop/qcow2.txt of QEMU) that names the file below it where
 * that stands on this host. The name is the last thing in the header's cluster, as we make it.
 * @param header the first cluster, or so much of it as there is
 * @returns bytes and where they belong, or why it cannot be done
 */
export function renameBacking(
  header: Uint8Array,
  backing: string,
): { readonly offset: Bytes; readonly bytes: Uint8Array }[] | string {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  if (header.length < 104 || view.getUint32(0) !== 0x5146_49fb) {
    return "expected the header of a qcow2 file, received other bytes";
  }
  const offset = Number(view.getBigUint64(8));
  const former = view.getUint32(16);
  const name = new TextEncoder().encode(backing);
  const end = offset + Math.max(name.length, former);
  const after = header.subarray(offset + former, end);
  if (offset < 104 || former === 0 || end > header.length || after.some((byte) => byte !== 0)) {
    return `expected an overlay with room for the name ${backing}`;
  }
  const place = new Uint8Array(end - offset);
  place.set(name);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, name.length);
  return [
    { offset, bytes: place },
    { offset: 16, bytes: length },
  ];
}
