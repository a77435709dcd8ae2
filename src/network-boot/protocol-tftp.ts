import { type Parsed, refuse } from "../network/dhcp/options.ts";
import {
  LONGEST_ERROR_TEXT,
  LONGEST_REQUEST,
  MOST_TFTP_OPTIONS,
  SMALLEST_BLOCK,
} from "./limits.ts";

/** TFTP as bytes and as values: RFC 1350, with options of RFC 2347. Pure. */

/** Numbers on the wire: RFC 1350, 5; RFC 2347. */
export const operations = {
  read: 1,
  write: 2,
  data: 3,
  acknowledge: 4,
  error: 5,
  acknowledgeOptions: 6,
} as const;

/** RFC 1350, appendix; RFC 2347. */
export const errorCodes = {
  undefined: 0,
  notFound: 1,
  accessViolation: 2,
  diskFull: 3,
  illegalOperation: 4,
  unknownTransfer: 5,
  alreadyExists: 6,
  noSuchUser: 7,
  optionsRefused: 8,
} as const;
export type ErrorName = keyof typeof errorCodes;

export interface ReadRequest {
  readonly kind: "read" | "write";
  readonly file: string;
  /** In lower case. */
  readonly mode: string;
  /** By name in lower case; of one that comes twice, the first. */
  readonly options: ReadonlyMap<string, string>;
}

export type TftpPacket =
  | ReadRequest
  | { readonly kind: "data"; readonly block: number; readonly length: number }
  | { readonly kind: "acknowledge"; readonly block: number }
  | { readonly kind: "error"; readonly code: number; readonly text: string }
  | { readonly kind: "acknowledgeOptions" };

/** Reads what a client may send. Whatever is wrong with it is a value. */
export function parseTftp(bytes: Uint8Array): Parsed<TftpPacket> {
  if (bytes.length < 2) return refuse("packet", "2 bytes or more", bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const operation = view.getUint16(0, false);
  switch (operation) {
    case operations.read:
      return parseRequest("read", bytes);
    case operations.write:
      return parseRequest("write", bytes);
    case operations.data:
      if (bytes.length < 4) return refuse("DATA", "4 bytes or more", bytes.length);
      return {
        ok: true,
        value: { kind: "data", block: view.getUint16(2, false), length: bytes.length - 4 },
      };
    case operations.acknowledge:
      // Some ROMs pad it.
      if (bytes.length < 4) return refuse("ACK", "4 bytes", bytes.length);
      return { ok: true, value: { kind: "acknowledge", block: view.getUint16(2, false) } };
    case operations.error: {
      if (bytes.length < 4) return refuse("ERROR", "4 bytes or more", bytes.length);
      const text = textOf(bytes.subarray(4, 4 + LONGEST_ERROR_TEXT).values());
      return { ok: true, value: { kind: "error", code: view.getUint16(2, false), text } };
    }
    case operations.acknowledgeOptions:
      return { ok: true, value: { kind: "acknowledgeOptions" } };
    default:
      return refuse("opcode", "1 to 6", operation);
  }
}

function parseRequest(kind: "read" | "write", bytes: Uint8Array): Parsed<ReadRequest> {
  if (bytes.length > LONGEST_REQUEST) {
    return refuse("request", `at most ${LONGEST_REQUEST} bytes`, bytes.length);
  }
  const words: string[] = [];
  let start = 2;
  while (start < bytes.length) {
    const end = bytes.indexOf(0, start);
    if (end < 0) return refuse("request", "a zero byte as the last one", "none");
    // Some ROMs fill the packet with zeros.
    if (end === start && words.length >= 2) break;
    const word = bytes.subarray(start, end);
    if (word.some((byte) => byte < 0x20 || byte > 0x7e)) {
      return refuse("request", "printable characters", `bytes ${word.subarray(0, 8).toHex()}`);
    }
    words.push(String.fromCharCode(...word));
    start = end + 1;
    if (words.length > 2 + 2 * MOST_TFTP_OPTIONS) {
      return refuse("request", `at most ${MOST_TFTP_OPTIONS} options`, "more");
    }
  }
  const [file = "", mode = "", ...rest] = words;
  if (file === "" || mode === "") return refuse("request", "a file and a mode", words.length);
  if (rest.length % 2 !== 0) return refuse("request", "a value for each option", rest.length);
  const options = new Map<string, string>();
  for (let at = 0; at < rest.length; at += 2) {
    const name = (rest[at] as string).toLowerCase();
    if (!options.has(name)) options.set(name, rest[at + 1] as string);
  }
  return { ok: true, value: { kind, file, mode: mode.toLowerCase(), options } };
}

/** What of a client's text may stand in a log: up to its zero, in printable characters. */
function textOf(bytes: Iterable<number>): string {
  let text = "";
  for (const byte of bytes) {
    if (byte === 0) break;
    text += byte >= 0x20 && byte <= 0x7e ? String.fromCharCode(byte) : "?";
  }
  return text;
}

/** DATA; the block's number is of 16 bits, and goes on from 0 after 65,535. */
export function encodeData(block: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + data.length);
  writeHead(bytes, operations.data, block & 0xffff);
  bytes.set(data, 4);
  return bytes;
}

export function encodeError(name: ErrorName, text: string): Uint8Array {
  const words = new TextEncoder().encode(text);
  const bytes = new Uint8Array(4 + words.length + 1);
  writeHead(bytes, operations.error, errorCodes[name]);
  bytes.set(words, 4);
  return bytes;
}

export function encodeOptions(options: ReadonlyMap<string, number>): Uint8Array {
  const words = [...options].map(([name, value]) => `${name}\0${value}\0`).join("");
  const text = new TextEncoder().encode(words);
  const bytes = new Uint8Array(2 + text.length);
  bytes[1] = operations.acknowledgeOptions;
  bytes.set(text, 2);
  return bytes;
}

function writeHead(bytes: Uint8Array, operation: number, number: number): void {
  const view = new DataView(bytes.buffer);
  view.setUint16(0, operation, false);
  view.setUint16(2, number, false);
}

/** What a client asks for, of the options that we know; absent: it does not, or asks nonsense. */
export interface AskedOptions {
  /** blksize, RFC 2348. */
  readonly blockBytes: number | undefined;
  /** windowsize, RFC 7440: blocks. */
  readonly windowBlocks: number | undefined;
  /** timeout, RFC 2349: seconds. */
  readonly timeoutSeconds: number | undefined;
  /** tsize, RFC 2349: it wants to know how large the file is. */
  readonly wantsSize: boolean;
}

/** An option whose value is out of its range is left unanswered, as an unknown one: RFC 2347. */
export function readAskedOptions(options: ReadonlyMap<string, string>): AskedOptions {
  return {
    blockBytes: numberIn(options.get("blksize"), SMALLEST_BLOCK, 65_464),
    windowBlocks: numberIn(options.get("windowsize"), 1, 65_535),
    timeoutSeconds: numberIn(options.get("timeout"), 1, 255),
    // A reader says 0: RFC 2349. Some say what they know already.
    wantsSize: numberIn(options.get("tsize"), 0, Number.MAX_SAFE_INTEGER) !== undefined,
  };
}

function numberIn(text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return undefined;
  const value = Number(text);
  return value >= least && value <= most ? value : undefined;
}
