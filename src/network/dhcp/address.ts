/** IPv4 and link-layer addresses between text and bytes. Pure. */

export const IPV4_SIZE = 4;
export const MAC_SIZE = 6;
/** The address of nobody, as whoever has none yet sends it. */
export const NO_ADDRESS = "0.0.0.0";
export const EVERYBODY = "255.255.255.255";

/** "10.100.0.7" as 4 bytes; undefined for anything else, also for parts with a leading zero. */
export function parseIpv4(text: string): Uint8Array | undefined {
  const parts = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/.exec(
    text,
  );
  if (parts === null) return undefined;
  const numbers = parts.slice(1).map(Number);
  return numbers.every((part) => part <= 255) ? Uint8Array.from(numbers) : undefined;
}

export function formatIpv4(bytes: Uint8Array): string {
  return bytes.subarray(0, IPV4_SIZE).join(".");
}

/** The bytes of an address that was checked before. @throws RangeError for what is none */
export function ipv4Bytes(text: string): Uint8Array {
  const bytes = parseIpv4(text);
  if (bytes !== undefined) return bytes;
  throw new RangeError(`Expected an IPv4 address, received ${JSON.stringify(text)}`);
}

/** The address as an unsigned number, for arithmetic with networks. */
export function ipv4Number(text: string): number {
  const [first = 0, second = 0, third = 0, fourth = 0] = ipv4Bytes(text);
  return ((first << 24) | (second << 16) | (third << 8) | fourth) >>> 0;
}

export function ipv4OfNumber(value: number): string {
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255].join(".");
}

/** The mask of a prefix of 0 to 32 bits, as a number. */
export function maskOf(prefixLength: number): number {
  return prefixLength === 0 ? 0 : (0xffff_ffff << (32 - prefixLength)) >>> 0;
}

/** Whether an address lies in the network of another one. */
export function isInNetwork(address: string, network: string, prefixLength: number): boolean {
  const mask = maskOf(prefixLength);
  return (ipv4Number(address) & mask) >>> 0 === (ipv4Number(network) & mask) >>> 0;
}

/** "52:54:00:12:34:56", in lower case. */
export function formatMac(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** 6 bytes; undefined for what is no lower-case address. */
export function parseMac(text: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(text)) return undefined;
  return Uint8Array.from(text.split(":"), (part) => Number.parseInt(part, 16));
}
