import { addressBytes, formatAddress } from "./address.ts";
import { type Parsed, refuse } from "./options.ts";

/** UDP in IPv4 as bytes, for a socket below the kernel's own: RFC 791, RFC 768. Pure. */

export interface Endpoint {
  readonly address: string;
  readonly port: number;
}

export interface Datagram {
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly payload: Uint8Array;
}

const IP_HEADER = 20;
const UDP_HEADER = 8;
const UDP = 17;
const TIME_TO_LIVE = 64;
/** Low delay, as other servers send it: RFC 1349. */
const TYPE_OF_SERVICE = 0x10;
const FRAGMENTED = 0x3fff;

/** The sum of 16-bit words in ones' complement, not yet inverted: RFC 1071. */
function sumOf(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += ((bytes[at] as number) << 8) | (bytes[at + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000);
  return sum;
}

/** The sum that the UDP checksum begins with: addresses, protocol and length. */
function pseudoSum(addresses: Uint8Array, udpLength: number): number {
  return sumOf(addresses, UDP + udpLength);
}

/**
 * Reads a packet from the IP header on.
 * @param checksumPending true when no card has made the UDP checksum, because there was none
 */
export function parseDatagram(
  packet: Uint8Array,
  { checksumPending }: { readonly checksumPending: boolean },
): Parsed<Datagram> {
  if (packet.length < IP_HEADER) return refuse("ip", `${IP_HEADER} bytes`, packet.length);
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  const headerLength = ((packet[0] as number) & 0x0f) * 4;
  const version = (packet[0] as number) >> 4;
  if (version !== 4 || headerLength < IP_HEADER) {
    return refuse(
      "ip",
      "version 4 and a whole header",
      `version ${version}, ${headerLength} bytes`,
    );
  }
  const total = view.getUint16(2, false);
  if (total > packet.length || total < headerLength + UDP_HEADER) {
    return refuse("ip length", `up to ${packet.length} bytes with a UDP header`, total);
  }
  if (sumOf(packet.subarray(0, headerLength)) !== 0xffff) {
    return refuse("ip checksum", "one that fits", view.getUint16(10, false));
  }
  if ((view.getUint16(6, false) & FRAGMENTED) !== 0) {
    return refuse("ip fragment", "a whole packet", "a part of one");
  }
  if (packet[9] !== UDP) return refuse("ip protocol", `${UDP}: UDP`, packet[9] as number);
  const addresses = packet.subarray(12, 20);
  const udp = packet.subarray(headerLength, total);
  const length = view.getUint16(headerLength + 4, false);
  if (length < UDP_HEADER || length > udp.length) {
    return refuse("udp length", `${UDP_HEADER} to ${udp.length} bytes`, length);
  }
  const checksum = view.getUint16(headerLength + 6, false);
  const whole = udp.subarray(0, length);
  const isRight = sumOf(whole, pseudoSum(addresses, length)) === 0xffff;
  // 0 says that there is none.
  if (checksum !== 0 && !checksumPending && !isRight) {
    return refuse("udp checksum", "one that fits", checksum);
  }
  const from = { address: formatAddress(addresses), port: view.getUint16(headerLength, false) };
  const destination = formatAddress(addresses.subarray(4));
  const to = { address: destination, port: view.getUint16(headerLength + 2, false) };
  return { ok: true, value: { from, to, payload: whole.subarray(UDP_HEADER) } };
}

/** Writes a packet from the IP header on, with both checksums. */
export function encodeDatagram({ from, to, payload }: Datagram): Uint8Array {
  const packet = new Uint8Array(IP_HEADER + UDP_HEADER + payload.length);
  const view = new DataView(packet.buffer);
  const length = UDP_HEADER + payload.length;
  packet[0] = 0x45;
  packet[1] = TYPE_OF_SERVICE;
  view.setUint16(2, packet.length, false);
  packet[8] = TIME_TO_LIVE;
  packet[9] = UDP;
  packet.set(addressBytes(from.address), 12);
  packet.set(addressBytes(to.address), 16);
  view.setUint16(10, sumOf(packet.subarray(0, IP_HEADER)) ^ 0xffff, false);
  view.setUint16(IP_HEADER, from.port, false);
  view.setUint16(IP_HEADER + 2, to.port, false);
  view.setUint16(IP_HEADER + 4, length, false);
  packet.set(payload, IP_HEADER + UDP_HEADER);
  const sum = sumOf(packet.subarray(IP_HEADER), pseudoSum(packet.subarray(12, 20), length));
  // A sum of 0 would say that there is none: RFC 768.
  view.setUint16(IP_HEADER + 6, sum ^ 0xffff || 0xffff, false);
  return packet;
}
