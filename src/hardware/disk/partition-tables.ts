import { viewOf } from "./octets.ts";
import type { ReadDisk } from "./signatures.ts";

/** Names of a disk's partitions: UEFI 2.10, chapter 5. Pure. */

export interface PartitionName {
  /** "c12a7328-…", or "1234abcd-01" of an MBR: what PARTUUID= is. */
  readonly id: string;
  /** GPT's label. */
  readonly label: string;
}

const ENTRIES = 128;

/** Of the first table that can be read: GPT's, its backup, MBR. None of a disk without one. */
export function partitionNames(read: ReadDisk, size: number, block: number): PartitionName[] {
  for (const header of [block, size - block]) {
    const names = gptNames(read, header, block);
    if (names !== undefined) return names;
  }
  return mbrNames(tryRead(read, 0, block));
}

function tryRead(read: ReadDisk, offset: number, length: number): Uint8Array | undefined {
  try {
    return read(offset, length).slice();
  } catch {
    return undefined;
  }
}

function gptNames(read: ReadDisk, at: number, block: number): PartitionName[] | undefined {
  if (at < 0) return undefined;
  const header = tryRead(read, at, block);
  if (header === undefined || textOf(header.subarray(0, 8)) !== "EFI PART") return undefined;
  const view = viewOf(header);
  const first = Number(view.getBigUint64(72, true)) * block;
  const count = Math.min(ENTRIES, view.getUint32(80, true));
  const size = view.getUint32(84, true);
  if (size < 128 || size > 4_096) return undefined;
  const length = Math.ceil((count * size) / block) * block;
  const entries = tryRead(read, first, length);
  if (entries === undefined) return undefined;
  const names: PartitionName[] = [];
  for (let index = 0; index < count; index++) {
    const entry = entries.subarray(index * size, (index + 1) * size);
    if (entry.length < 128 || entry.subarray(0, 16).every((byte) => byte === 0)) continue;
    names.push({ id: guidOf(entry, 16), label: wideText(entry.subarray(56, 128)) });
  }
  return names;
}

function mbrNames(sector: Uint8Array | undefined): PartitionName[] {
  if (sector === undefined || sector.length < 512) return [];
  if (sector[510] !== 0x55 || sector[511] !== 0xaa) return [];
  const disk = viewOf(sector).getUint32(440, true).toString(16).padStart(8, "0");
  return [1, 2, 3, 4].flatMap((number) => {
    const kind = sector[446 + (number - 1) * 16 + 4];
    return kind === 0 ? [] : [{ id: `${disk}-0${number}`, label: "" }];
  });
}

/** A GUID as UEFI writes it: the first three groups are little-endian. */
export function guidOf(bytes: Uint8Array, offset: number): string {
  const order = [3, 2, 1, 0, -1, 5, 4, -1, 7, 6, -1, 8, 9, -1, 10, 11, 12, 13, 14, 15];
  return order
    .map((index) => (index < 0 ? "-" : (bytes[offset + index] ?? 0).toString(16).padStart(2, "0")))
    .join("");
}

/** UTF-16, little-endian, up to a zero; what is no letter becomes a question mark. */
export function wideText(bytes: Uint8Array): string {
  let text = "";
  for (let index = 0; index + 1 < bytes.length; index += 2) {
    const code = ((bytes[index + 1] ?? 0) << 8) | (bytes[index] ?? 0);
    if (code === 0) break;
    text += code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : "?";
  }
  return text;
}

/** Ids of partitions that a UEFI load option leads to: the nodes of kind 4.1 in its path. */
export function partitionsOfLoadOption(option: Uint8Array): string[] {
  const view = viewOf(option);
  let at = 6;
  while (at + 1 < option.length && view.getUint16(at, true) !== 0) at += 2;
  const ids: string[] = [];
  for (let node = at + 2; node + 4 <= option.length; ) {
    const length = view.getUint16(node + 2, true);
    if (length < 4 || node + length > option.length) break;
    if (option[node] === 4 && option[node + 1] === 1 && length >= 42) {
      const isGpt = option[node + 40] === 2;
      const disk = view
        .getUint32(node + 24, true)
        .toString(16)
        .padStart(8, "0");
      const number = view
        .getUint32(node + 4, true)
        .toString(16)
        .padStart(2, "0");
      ids.push(isGpt ? guidOf(option, node + 24) : `${disk}-${number}`);
    }
    node += length;
  }
  return ids;
}

function textOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}
