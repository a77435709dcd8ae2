import {
  NLA_F_NESTED,
  NLA_F_NET_BYTEORDER,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_REQUEST,
  NLMSGERR_ATTR_MSG,
} from "./constants.ts";
import { layouts } from "./layouts.ts";

/**
 * Messages and attributes of netlink(7), as bytes: pure. Headers are in the host's byte order,
 * which is little-endian on both architectures; what nftables carries inside is big-endian.
 */

const { nlattr, nlmsgerr, nlmsghdr } = layouts;

/** A request without its header. */
export interface NetlinkRequest {
  readonly type: number;
  /** Beside NLM_F_REQUEST, which every request has. */
  readonly flags: number;
  readonly payload: Uint8Array;
}

/** A message as it came. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly payload: Uint8Array;
}

/** The kernel sent what is no message: a length that does not fit, an attribute cut off. */
export class MalformedNetlink extends Error {
  override readonly name = "MalformedNetlink";
}

/** Messages and attributes begin at multiples of 4: NLMSG_ALIGN, NLA_ALIGN. */
const aligned = (length: number) => (length + 3) & ~3;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Requests as one datagram, numbered from a sequence on. */
export function encodeMessages(
  requests: readonly NetlinkRequest[],
  firstSequence: number,
): Uint8Array<ArrayBuffer> {
  const size = requests.reduce(
    (sum, { payload }) => sum + aligned(nlmsghdr.size + payload.length),
    0,
  );
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  let offset = 0;
  for (const [index, { type, flags, payload }] of requests.entries()) {
    view.setUint32(offset + nlmsghdr.nlmsg_len, nlmsghdr.size + payload.length, true);
    view.setUint16(offset + nlmsghdr.nlmsg_type, type, true);
    view.setUint16(offset + nlmsghdr.nlmsg_flags, flags | NLM_F_REQUEST, true);
    view.setUint32(offset + nlmsghdr.nlmsg_seq, (firstSequence + index) >>> 0, true);
    bytes.set(payload, offset + nlmsghdr.size);
    offset += aligned(nlmsghdr.size + payload.length);
  }
  return bytes;
}

/** Takes a datagram apart; payloads are views into it. @throws MalformedNetlink */
export function decodeMessages(bytes: Uint8Array): NetlinkMessage[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const messages: NetlinkMessage[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const rest = bytes.length - offset;
    const length = rest < nlmsghdr.size ? rest : view.getUint32(offset, true);
    if (length < nlmsghdr.size || length > rest) {
      throw new MalformedNetlink(
        `Expected a netlink message of ${nlmsghdr.size} to ${rest} bytes, received ${length}`,
      );
    }
    messages.push({
      type: view.getUint16(offset + nlmsghdr.nlmsg_type, true),
      flags: view.getUint16(offset + nlmsghdr.nlmsg_flags, true),
      sequence: view.getUint32(offset + nlmsghdr.nlmsg_seq, true),
      payload: bytes.subarray(offset + nlmsghdr.size, offset + length),
    });
    offset += aligned(length);
  }
  return messages;
}

/** What an NLMSG_ERROR or NLMSG_DONE says. */
export interface NetlinkVerdict {
  /** 0 where all went well. */
  readonly errno: number;
  /** The kernel's own words (NETLINK_EXT_ACK), also a warning beside errno 0. */
  readonly text: string | undefined;
}

/** @param isDone the end of a dump, which repeats no request @throws MalformedNetlink */
export function decodeVerdict(message: NetlinkMessage, isDone: boolean): NetlinkVerdict {
  const { flags, payload } = message;
  // An end of a dump without an error number is what old kernels send.
  if (isDone && payload.length < 4) return { errno: 0, text: undefined };
  const least = isDone ? 4 : nlmsgerr.size;
  if (payload.length < least) {
    throw new MalformedNetlink(
      `Expected an acknowledgement of ${least} bytes, received ${payload.length}`,
    );
  }
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const errno = -view.getInt32(nlmsgerr.error, true);
  if ((flags & NLM_F_ACK_TLVS) === 0) return { errno: errno === 0 ? 0 : errno, text: undefined };
  const repeated =
    isDone || (flags & NLM_F_CAPPED) !== 0
      ? 0
      : aligned(view.getUint32(nlmsgerr.msg, true)) - nlmsghdr.size;
  const text = readAttributes(payload.subarray(least + repeated)).get(NLMSGERR_ATTR_MSG);
  return { errno: errno === 0 ? 0 : errno, text: text && textOf(text) };
}

/** Writes a payload: fixed headers, then attributes, which may nest. */
export class PayloadWriter {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** @returns where the room begins */
  #take(size: number): number {
    const start = this.#length;
    const end = start + aligned(size);
    if (end > this.#bytes.length) {
      const bytes = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      bytes.set(this.#bytes.subarray(0, start));
      this.#bytes = bytes;
      this.#view = new DataView(bytes.buffer);
    }
    this.#length = end;
    return start;
  }

  /** A fixed header, filled through its view. */
  header(size: number, fill: (view: DataView) => void): this {
    const start = this.#take(size);
    fill(new DataView(this.#bytes.buffer, start, size));
    return this;
  }

  #head(type: number, size: number): number {
    const start = this.#take(nlattr.size + size);
    this.#view.setUint16(start + nlattr.nla_len, nlattr.size + size, true);
    this.#view.setUint16(start + nlattr.nla_type, type, true);
    return start + nlattr.size;
  }

  bytes(type: number, value: Uint8Array): this {
    // The room is taken first: it may move the bytes.
    const start = this.#head(type, value.length);
    this.#bytes.set(value, start);
    return this;
  }

  /** Ended by a zero byte, as the kernel wants its names. */
  text(type: number, value: string): this {
    return this.bytes(type, encoder.encode(`${value}\0`));
  }

  unsigned8(type: number, value: number): this {
    const start = this.#head(type, 1);
    this.#view.setUint8(start, value);
    return this;
  }

  unsigned16(type: number, value: number): this {
    const start = this.#head(type, 2);
    this.#view.setUint16(start, value, true);
    return this;
  }

  unsigned32(type: number, value: number): this {
    const start = this.#head(type, 4);
    this.#view.setUint32(start, value, true);
    return this;
  }

  bigEndian32(type: number, value: number): this {
    const start = this.#head(type, 4);
    this.#view.setUint32(start, value, false);
    return this;
  }

  bigEndian64(type: number, value: number): this {
    const start = this.#head(type, 8);
    this.#view.setBigUint64(start, BigInt(value), false);
    return this;
  }

  /** Attributes inside of an attribute. */
  nested(type: number, fill: (writer: this) => void): this {
    const start = this.#head(type | NLA_F_NESTED, 0) - nlattr.size;
    fill(this);
    this.#view.setUint16(start + nlattr.nla_len, this.#length - start, true);
    return this;
  }

  /** What was written. */
  finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }
}

/** Calls for each attribute in its order. @throws MalformedNetlink for one that is cut off */
export function eachAttribute(
  bytes: Uint8Array,
  visit: (type: number, value: Uint8Array) => void,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let offset = 0; offset + nlattr.size <= bytes.length; ) {
    const length = view.getUint16(offset + nlattr.nla_len, true);
    if (length < nlattr.size || offset + length > bytes.length) {
      const rest = bytes.length - offset;
      throw new MalformedNetlink(
        `Expected an attribute of ${nlattr.size} to ${rest} bytes, received ${length}`,
      );
    }
    const type = view.getUint16(offset + nlattr.nla_type, true);
    visit(
      type & ~(NLA_F_NESTED | NLA_F_NET_BYTEORDER),
      bytes.subarray(offset + nlattr.size, offset + length),
    );
    offset += aligned(length);
  }
}

/** Attributes by type; of two of one type the later one. @throws MalformedNetlink */
export function readAttributes(bytes: Uint8Array): Map<number, Uint8Array> {
  const attributes = new Map<number, Uint8Array>();
  eachAttribute(bytes, (type, value) => attributes.set(type, value));
  return attributes;
}

/** Text up to its zero byte. */
export function textOf(value: Uint8Array): string {
  const end = value.indexOf(0);
  return decoder.decode(end < 0 ? value : value.subarray(0, end));
}

/** A number of 8 to 64 bits, host byte order; exact below 2^53. @throws MalformedNetlink */
export function unsignedOf(value: Uint8Array, byteOrder: "host" | "big-endian" = "host"): number {
  if (value.length === 0 || value.length > 8) {
    throw new MalformedNetlink(`Expected a number of 1 to 8 bytes, received ${value.length}`);
  }
  let number = 0;
  for (let index = 0; index < value.length; index += 1) {
    const at = byteOrder === "host" ? value.length - 1 - index : index;
    number = number * 256 + (value[at] ?? 0);
  }
  return number;
}
