import { formatMacAddress, parseMacAddress } from "../subnet.ts";
import { addressBytes, formatAddress, MAC_SIZE, NO_ADDRESS } from "./address.ts";
import { LONGEST_PACKET } from "./limits.ts";
import { optionCodes, type Parsed, readOptions, refuse, writeOptions } from "./options.ts";

/** A DHCP message as bytes and as values: RFC 2131, figure 1. Pure. */

/** Numbers on the wire: RFC 2132, 9.6. */
export const messageTypes = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  acknowledge: 5,
  refuse: 6,
  release: 7,
  inform: 8,
} as const;

export type MessageType = keyof typeof messageTypes;

const typeNames = new Map<number, MessageType>(
  Object.entries(messageTypes).map(([name, number]) => [number, name as MessageType]),
);

export interface DhcpMessage {
  readonly direction: "request" | "reply";
  readonly type: MessageType;
  /** xid: what ties an answer to its question. 32 bits. */
  readonly transaction: number;
  /** The client asks for answers to everybody, because it has no address yet. */
  readonly broadcast: boolean;
  /** ciaddr: what the client has and answers for. */
  readonly clientAddress: string;
  /** yiaddr */
  readonly yourAddress: string;
  /** siaddr: where the boot file is. Written, and not read: no client says it. */
  readonly nextServer?: string;
  /** The field `file`, as ASCII of at most 127 bytes; written, and not read. */
  readonly bootFile?: string;
  /** giaddr: of a relay, which there is none of on a bridge. */
  readonly relayAddress: string;
  /** chaddr: "52:54:00:…" */
  readonly hardwareAddress: string;
  /** By code; those that are read have right lengths. */
  readonly options: ReadonlyMap<number, Uint8Array>;
}

/** Offsets in bytes. */
const layout = {
  operation: 0,
  hardwareType: 1,
  hardwareLength: 2,
  transaction: 4,
  flags: 10,
  clientAddress: 12,
  yourAddress: 16,
  nextServer: 20,
  relayAddress: 24,
  hardwareAddress: 28,
  serverName: 44,
  file: 108,
  magic: 236,
  options: 240,
} as const;

const operations = { request: 1, reply: 2 } as const;
const ETHERNET = 1;
const BROADCAST_FLAG = 0x8000;
/** RFC 2131, 3. */
const MAGIC = 0x6382_5363;

/** Reads a message of either direction. Whatever is wrong with it is a value. */
export function parseMessage(bytes: Uint8Array): Parsed<DhcpMessage> {
  if (bytes.length > LONGEST_PACKET) {
    return refuse("message", `at most ${LONGEST_PACKET} bytes`, bytes.length);
  }
  if (bytes.length <= layout.options) {
    return refuse("message", `more than ${layout.options} bytes`, bytes.length);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const operation = view.getUint8(layout.operation);
  if (operation !== operations.request && operation !== operations.reply) {
    return refuse("op", "1 or 2", operation);
  }
  const hardware = `${view.getUint8(layout.hardwareType)}, ${view.getUint8(layout.hardwareLength)}`;
  if (hardware !== `${ETHERNET}, ${MAC_SIZE}`) {
    return refuse("htype, hlen", `${ETHERNET}, ${MAC_SIZE}: Ethernet`, hardware);
  }
  const magic = view.getUint32(layout.magic, false);
  if (magic !== MAGIC) return refuse("magic", MAGIC.toString(16), magic.toString(16));
  const options = readOptions(bytes.slice(layout.options), {
    serverName: bytes.slice(layout.serverName, layout.file),
    file: bytes.slice(layout.file, layout.magic),
  });
  if (!options.ok) return options;
  const number = options.value.get(optionCodes.messageType)?.[0];
  if (number === undefined) return refuse("option 53", "a message type", "none: BOOTP");
  const type = typeNames.get(number);
  if (type === undefined) return refuse("option 53", "a message type from 1 to 8", number);
  const at = (offset: number) => formatAddress(bytes.subarray(offset, offset + 4));
  const card = bytes.subarray(layout.hardwareAddress, layout.hardwareAddress + MAC_SIZE);
  const value = {
    direction: operation === operations.request ? "request" : "reply",
    type,
    transaction: view.getUint32(layout.transaction, false),
    broadcast: (view.getUint16(layout.flags, false) & BROADCAST_FLAG) !== 0,
    clientAddress: at(layout.clientAddress),
    yourAddress: at(layout.yourAddress),
    relayAddress: at(layout.relayAddress),
    hardwareAddress: formatMacAddress(card),
    options: options.value,
  } as const satisfies DhcpMessage;
  return { ok: true, value };
}

/**
 * Writes a message; `options` stand in their order after the message's type.
 * @param size padded with zeros to `least`, and never more than `most` bytes
 * @throws RangeError when it does not fit, or an address is none
 */
export function encodeMessage(
  message: DhcpMessage,
  size: { readonly least: number; readonly most: number },
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size.most);
  const view = new DataView(bytes.buffer);
  const card = parseMacAddress(message.hardwareAddress);
  if (card === undefined) throw new RangeError(`No hardware address: ${message.hardwareAddress}`);
  view.setUint8(layout.operation, operations[message.direction]);
  view.setUint8(layout.hardwareType, ETHERNET);
  view.setUint8(layout.hardwareLength, MAC_SIZE);
  view.setUint32(layout.transaction, message.transaction, false);
  view.setUint16(layout.flags, message.broadcast ? BROADCAST_FLAG : 0, false);
  bytes.set(addressBytes(message.clientAddress), layout.clientAddress);
  bytes.set(addressBytes(message.yourAddress), layout.yourAddress);
  bytes.set(addressBytes(message.relayAddress), layout.relayAddress);
  bytes.set(addressBytes(message.nextServer ?? NO_ADDRESS), layout.nextServer);
  bytes.set(bootFileBytes(message.bootFile ?? ""), layout.file);
  bytes.set(card, layout.hardwareAddress);
  view.setUint32(layout.magic, MAGIC, false);
  const type = Uint8Array.of(messageTypes[message.type]);
  const used = writeOptions(bytes.subarray(layout.options), [
    [optionCodes.messageType, type],
    ...[...message.options].filter(([code]) => code !== optionCodes.messageType),
  ]);
  return bytes.slice(0, Math.max(size.least, layout.options + used));
}

/** @throws RangeError when it does not fit before the field's ending zero */
function bootFileBytes(name: string): Uint8Array {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length < layout.magic - layout.file) return bytes;
  throw new RangeError(`No room for the boot file ${name}`);
}
