/** IPv4 addresses as numbers, subnets, and hardware addresses: pure. */

/** An IPv4 address as an unsigned 32-bit number: 10.0.0.1 is 0x0a000001. */
export type Ipv4 = number & { readonly unit?: "ipv4" };

export interface Subnet {
  /** The lowest address, whose host bits are zero. */
  readonly network: Ipv4;
  /** Bits of the network's part. */
  readonly prefix: number;
}

/** Prefixes that a pool can have: below 8 is half the world, above 30 has no two hosts. */
export const SHORTEST_PREFIX = 8;
export const LONGEST_PREFIX = 30;

/** @returns undefined for text that is no address in its usual form: four decimal numbers */
export function parseIpv4(text: string): Ipv4 | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let address = 0;
  for (const part of parts) {
    // "010" is 8 to some programs and 10 to others.
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    address = address * 256 + Number(part);
  }
  return address;
}

export function formatIpv4(address: Ipv4): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join(".");
}

/** The mask of a prefix: 16 gives 0xffff0000. */
export function maskOf(prefix: number): number {
  return prefix === 0 ? 0 : (0xffff_ffff << (32 - prefix)) >>> 0;
}

/** @returns undefined for what is no "ADDRESS/PREFIX", or has bits beyond its prefix */
export function parseSubnet(text: string): Subnet | undefined {
  const [head = "", tail = "", ...more] = text.split("/");
  const network = parseIpv4(head);
  if (network === undefined || more.length > 0 || !/^(0|[1-9]\d?)$/.test(tail)) return undefined;
  const prefix = Number(tail);
  if (prefix > 32 || (network & ~maskOf(prefix)) !== 0) return undefined;
  return { network, prefix };
}

export function formatSubnet({ network, prefix }: Subnet): string {
  return `${formatIpv4(network)}/${prefix}`;
}

export function subnetHas({ network, prefix }: Subnet, address: Ipv4): boolean {
  return (address & maskOf(prefix)) >>> 0 === network;
}

/** Whether some address is in both. */
export function subnetsOverlap(one: Subnet, other: Subnet): boolean {
  return one.prefix <= other.prefix ? subnetHas(one, other.network) : subnetHas(other, one.network);
}

/** The address after the network's own: the gateway, where none is named. */
export function firstAddress({ network }: Subnet): Ipv4 {
  return network + 1;
}

/** The last address, which is all of the subnet's hosts. */
export function broadcastAddress({ network, prefix }: Subnet): Ipv4 {
  return (network | ~maskOf(prefix)) >>> 0;
}

export function ipv4Bytes(address: Ipv4): Uint8Array {
  return Uint8Array.of(address >>> 24, address >>> 16, address >>> 8, address);
}

/** @returns undefined for other than 4 bytes */
export function ipv4FromBytes(bytes: Uint8Array): Ipv4 | undefined {
  if (bytes.length !== 4) return undefined;
  return bytes.reduce((address, byte) => address * 256 + byte, 0);
}

/** @returns undefined for what is no "52:54:00:12:34:56" */
export function parseMacAddress(text: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(text)) return undefined;
  return Uint8Array.from(text.split(":"), (part) => Number.parseInt(part, 16));
}

export function formatMacAddress(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** @returns the 16 bytes, or undefined for what is no IPv6 address; no zone, no IPv4 tail */
export function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.toLowerCase().split("::");
  if (halves.length > 2) return undefined;
  const groups = halves.map((half) => (half === "" ? [] : half.split(":")));
  const [head = [], tail] = groups;
  const written = head.length + (tail?.length ?? 0);
  if (tail === undefined ? written !== 8 : written > 7) return undefined;
  const all = [...head, ...Array(8 - written).fill("0"), ...(tail ?? [])];
  if (!all.every((group) => /^[0-9a-f]{1,4}$/.test(group))) return undefined;
  return Uint8Array.from(
    all.flatMap((group) => {
      const number = Number.parseInt(group, 16);
      return [number >> 8, number & 0xff];
    }),
  );
}
