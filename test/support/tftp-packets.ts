/** What a TFTP client sends, and how it reads the answers: for tests. */
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

export type ServerPacket =
  | { readonly kind: "data"; readonly block: number; readonly data: Uint8Array }
  | { readonly kind: "error"; readonly code: number; readonly text: string }
  | { readonly kind: "options"; readonly options: Readonly<Record<string, string>> };

export function readServerPacket(bytes: Uint8Array): ServerPacket {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const number = () => view.getUint16(2, false);
  const text = (from: number) => new TextDecoder().decode(bytes.subarray(from)).replace(/\0$/, "");
  switch (view.getUint16(0, false)) {
    case operations.data:
      return { kind: "data", block: number(), data: bytes.slice(4) };
    case operations.error:
      return { kind: "error", code: number(), text: text(4) };
    case operations.acknowledgeOptions: {
      const words = text(2).split("\0");
      const pairs = words.flatMap((word, at) =>
        at % 2 === 0 ? [[word, words[at + 1] ?? ""]] : [],
      );
      return { kind: "options", options: Object.fromEntries(pairs) };
    }
    default:
      throw new Error(`No packet of a server: ${bytes.toHex()}`);
  }
}
