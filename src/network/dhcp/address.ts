/** IPv4 addresses as DHCP and DNS have them: as text, and as bytes on a wire. Pure. */
import { type Ipv4, ipv4Bytes, maskOf, parseIpv4 } from "../subnet.ts";

const IPV4_SIZE = 4;
export const MAC_SIZE = 6;
/** The address of nobody, as whoever has none yet sends it. */
export const NO_ADDRESS = "0.0.0.0";
export const EVERYBODY = "255.255.255.255";

/** "10.100.0.7" as 4 bytes; undefined for anything else, also for parts with a leading zero. */
export function parseAddress(text: string): Uint8Array | undefined {
  const address = parseIpv4(text);
  return address === undefined ? undefined : ipv4Bytes(address);
}

export function formatAddress(bytes: Uint8Array): string {
  return bytes.subarray(0, IPV4_SIZE).join(".");
}

/** The bytes of an address that was checked before. @throws RangeError for what is none */
export function addressBytes(text: string): Uint8Array {
  return ipv4Bytes(addressNumber(text));
}

/** The same for arithmetic with networks. @throws RangeError for what is none */
export function addressNumber(text: string): Ipv4 {
  const address = parseIpv4(text);
  if (address !== undefined) return address;
  throw new RangeError(`Expected an IPv4 address, received ${JSON.stringify(text)}`);
}

/** Whether an address lies in the network of another one. */
export function isInNetwork(address: string, network: string, prefixLength: number): boolean {
  const mask = maskOf(prefixLength);
  return (addressNumber(address) & mask) >>> 0 === (addressNumber(network) & mask) >>> 0;
}
