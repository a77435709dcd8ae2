/** What a TFTP client sends: for tests. */
import { operations } from "../../src/network-boot/protocol-tftp.ts";

export function requestBytes(
  file: string,
  options: Readonly<Record<string, string | number>> = {},
  { mode = "octet", operation = operations.read as number } = {},
): Uint8Array {
  const words = [file, mode, ...Object.entries(options).flat()];
  const text = new TextEncoder().encode(words.map((word) => `${word}\0`).join(""));
  return Uint8Array.from([0, operation, ...text]);
}

export function acknowledgeBytes(block: number): Uint8Array {
  return Uint8Array.of(0, operations.acknowledge, (block >> 8) & 255, block & 255);
}

export function errorBytes(code: number, text: string): Uint8Array {
  return Uint8Array.from([0, operations.error, 0, code, ...new TextEncoder().encode(text), 0]);
}
