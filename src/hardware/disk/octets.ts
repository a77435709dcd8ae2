import { inventoryLimits } from "../inventory.ts";

/** Numbers and texts as disks write them. Pure. */

/** Its numbers, where they stand. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A count that a number can hold; the greatest of those where it is more. */
export function clampedCount(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(value);
}

/**
 * Printable ASCII of a field that is filled up with blanks or zeros; anything else in it becomes
 * a question mark. null where nothing is left.
 */
export function asciiOf(bytes: Uint8Array, offset: number, length: number): string | null {
  let text = "";
  for (const byte of bytes.subarray(offset, offset + length)) {
    if (byte === 0) text += " ";
    else text += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "?";
  }
  const trimmed = text.trim().slice(0, inventoryLimits.text);
  return trimmed === "" ? null : trimmed;
}

/** Text of ATA: the two bytes of each word are swapped. */
export function swappedAsciiOf(bytes: Uint8Array, offset: number, length: number): string | null {
  const swapped = new Uint8Array(length);
  for (let index = 0; index < length; index += 2) {
    swapped[index] = bytes[offset + index + 1] ?? 0;
    swapped[index + 1] = bytes[offset + index] ?? 0;
  }
  return asciiOf(swapped, 0, length);
}
