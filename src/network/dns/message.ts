import { type Parsed, refuse } from "../dhcp/options.ts";
import {
  LONGEST_QUERY,
  LONGEST_TCP_ANSWER,
  LONGEST_UDP_ANSWER,
  MOST_ADDRESSES,
  MOST_ALIASES,
  MOST_RECORDS,
  USUAL_UDP_ANSWER,
} from "./limits.ts";
import { readName } from "./name.ts";

/** DNS messages as far as a forwarder reads them: RFC 1035, RFC 6891. Pure. */

/** Numbers on the wire. */
export const recordTypes = {
  A: 1,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  AAAA: 28,
  OPT: 41,
  SVCB: 64,
  HTTPS: 65,
  ANY: 255,
} as const;
export const CLASS_IN = 1;

export const responseCodes = {
  noError: 0,
  formatError: 1,
  serverFailure: 2,
  noSuchName: 3,
  notImplemented: 4,
  refused: 5,
} as const;
export type ResponseCode = keyof typeof responseCodes;

/** Extended errors: RFC 8914. */
export const extendedErrors = { blocked: 15, noReachableAuthority: 22 } as const;
export type ExtendedError = keyof typeof extendedErrors;

/** Bits of the second word of the header. */
const flags = {
  answer: 0x8000,
  operation: 0x7800,
  authoritative: 0x0400,
  truncated: 0x0200,
  recursionDesired: 0x0100,
  recursionAvailable: 0x0080,
  code: 0x000f,
} as const;

export const HEADER = 12;

export interface Question {
  /** Lower case, without the last dot. */
  readonly name: string;
  readonly type: number;
}

export interface Query {
  readonly id: number;
  readonly question: Question;
  readonly recursionDesired: boolean;
  /** The question's bytes as they came, for the answer: names keep their case. */
  readonly questionBytes: Uint8Array;
  /** Bytes that the asker takes over UDP, where it spoke of EDNS: RFC 6891, 6.2.3. */
  readonly udpSize: number | undefined;
  /** The whole message, to be passed on; it asks for no longer a datagram than we take. */
  readonly bytes: Uint8Array;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** The id of something that is no query, so that it can be refused by it. */
export function idOf(bytes: Uint8Array): number | undefined {
  if (bytes.length < HEADER) return undefined;
  const view = viewOf(bytes);
  return (view.getUint16(2, false) & flags.answer) === 0 ? view.getUint16(0, false) : undefined;
}

/**
 * Reads a query: one question, and beside it nothing but EDNS. More than what is judged here is
 * not passed on.
 */
export function parseQuery(bytes: Uint8Array): Parsed<Query> {
  if (bytes.length > LONGEST_QUERY) {
    return refuse("query", `at most ${LONGEST_QUERY} bytes`, bytes.length);
  }
  if (bytes.length < HEADER) return refuse("query", `${HEADER} bytes`, bytes.length);
  const view = viewOf(bytes);
  const word = view.getUint16(2, false);
  if ((word & flags.answer) !== 0) return refuse("QR", "a query", "an answer");
  if ((word & flags.operation) !== 0) {
    return refuse("opcode", "0: QUERY", (word & flags.operation) >> 11);
  }
  const counts = [4, 6, 8, 10].map((at) => view.getUint16(at, false));
  const [questions, answers, authorities, additional = 0] = counts;
  if (questions !== 1 || answers !== 0 || authorities !== 0 || additional > 1) {
    return refuse("counts", "1, 0, 0 and 0 or 1", counts.join(", "));
  }
  const read = readName(bytes, HEADER, "refuse");
  if (read === undefined || read.next + 4 > bytes.length) {
    return refuse("question", "a name, a type and a class", "no such");
  }
  const end = read.next + 4;
  const questionClass = view.getUint16(read.next + 2, false);
  if (questionClass !== CLASS_IN) return refuse("class", `${CLASS_IN}: IN`, questionClass);
  const edns = additional === 0 ? { end, udpSize: undefined } : readEdns(bytes, end);
  if (edns === undefined) return refuse("additional record", "EDNS", "another");
  if (edns.end !== bytes.length) {
    return refuse("query", `${edns.end} bytes`, bytes.length);
  }
  const copy = bytes.slice();
  if (edns.udpSize !== undefined) {
    viewOf(copy).setUint16(end + 3, Math.min(edns.udpSize, LONGEST_UDP_ANSWER), false);
  }
  const value = {
    id: view.getUint16(0, false),
    question: { name: read.name, type: view.getUint16(read.next, false) },
    recursionDesired: (word & flags.recursionDesired) !== 0,
    questionBytes: bytes.slice(HEADER, end),
    udpSize: edns.udpSize,
    bytes: copy,
  };
  return { ok: true, value };
}

function readEdns(bytes: Uint8Array, at: number): { end: number; udpSize: number } | undefined {
  const view = viewOf(bytes);
  if (at + 11 > bytes.length || bytes[at] !== 0) return undefined;
  if (view.getUint16(at + 1, false) !== recordTypes.OPT) return undefined;
  const end = at + 11 + view.getUint16(at + 9, false);
  if (end > bytes.length) return undefined;
  return { end, udpSize: Math.max(USUAL_UDP_ANSWER, view.getUint16(at + 3, false)) };
}

/** What an upstream said, as far as it is judged. */
export interface Answer {
  readonly code: number;
  readonly truncated: boolean;
  /** Of the name that was asked for, or of those that it is an alias of: IPv4 and IPv6. */
  readonly addresses: readonly string[];
  /** Seconds: the least of the aliases and addresses; 0 when there are none. */
  readonly timeToLive: number;
}

interface Record {
  readonly name: string;
  readonly type: number;
  readonly timeToLive: number;
  readonly address: string | undefined;
  readonly alias: string | undefined;
}

/** Whether it answers this question with this id: what does not is dropped, as if it never came. */
export function isAnswerTo(bytes: Uint8Array, asked: { id: number; question: Question }): boolean {
  if (bytes.length < HEADER) return false;
  const view = viewOf(bytes);
  if (view.getUint16(0, false) !== asked.id) return false;
  if ((view.getUint16(2, false) & (flags.answer | flags.operation)) !== flags.answer) return false;
  if (view.getUint16(4, false) !== 1) return false;
  const read = readName(bytes, HEADER, "refuse");
  if (read === undefined || read.next + 4 > bytes.length) return false;
  return (
    read.name === asked.question.name &&
    view.getUint16(read.next, false) === asked.question.type &&
    view.getUint16(read.next + 2, false) === CLASS_IN
  );
}

/** Reads an answer for which `isAnswerTo` holds. */
export function parseAnswer(bytes: Uint8Array, question: Question): Parsed<Answer> {
  if (bytes.length > LONGEST_TCP_ANSWER) {
    return refuse("answer", `at most ${LONGEST_TCP_ANSWER} bytes`, bytes.length);
  }
  const view = viewOf(bytes);
  const word = view.getUint16(2, false);
  const code = word & flags.code;
  // What does not fit is asked for again over TCP: nothing of it is used.
  if ((word & flags.truncated) !== 0) {
    return { ok: true, value: { code, truncated: true, addresses: [], timeToLive: 0 } };
  }
  const [answers = 0, ...others] = [6, 8, 10].map((at) => view.getUint16(at, false));
  const total = others.reduce((sum, count) => sum + count, answers);
  if (total > MOST_RECORDS) return refuse("records", `at most ${MOST_RECORDS}`, total);
  const asked = readName(bytes, HEADER, "refuse");
  const records: Record[] = [];
  let at = (asked?.next ?? bytes.length) + 4;
  for (let index = 0; index < total; index += 1) {
    const read = readRecord(bytes, at);
    if (read === undefined) return refuse(`record ${index}`, "a whole record", "none");
    if (index < answers) records.push(read.record);
    at = read.next;
  }
  if (at !== bytes.length) return refuse("answer", `${at} bytes`, bytes.length);
  const found = addressesOf(records, question.name);
  if (found.addresses.length > MOST_ADDRESSES) {
    return refuse("addresses", `at most ${MOST_ADDRESSES}`, found.addresses.length);
  }
  return { ok: true, value: { code, truncated: false, ...found } };
}

function readRecord(
  bytes: Uint8Array,
  start: number,
): { readonly record: Record; readonly next: number } | undefined {
  const owner = readName(bytes, start);
  if (owner === undefined || owner.next + 10 > bytes.length) return undefined;
  const view = viewOf(bytes);
  const type = view.getUint16(owner.next, false);
  const isInternet = view.getUint16(owner.next + 2, false) === CLASS_IN;
  const length = view.getUint16(owner.next + 8, false);
  const data = owner.next + 10;
  const next = data + length;
  if (next > bytes.length) return undefined;
  // A number with its highest bit is taken for 0: RFC 2181, 8.
  const seconds = view.getUint32(owner.next + 4, false);
  const record = {
    name: owner.name,
    type,
    timeToLive: seconds > 0x7fff_ffff ? 0 : seconds,
    address: undefined,
    alias: undefined,
  };
  if (!isInternet) return { record, next };
  if (type === recordTypes.A || type === recordTypes.AAAA) {
    if (length !== (type === recordTypes.A ? 4 : 16)) return undefined;
    const address = formatAddress(bytes.subarray(data, next));
    return { record: { ...record, address }, next };
  }
  if (type !== recordTypes.CNAME) return { record, next };
  const alias = readName(bytes, data);
  if (alias === undefined || alias.next !== next) return undefined;
  return { record: { ...record, alias: alias.name }, next };
}

/** Addresses of the name and of what it is an alias of; others in the answer are nobody's. */
function addressesOf(
  records: readonly Record[],
  name: string,
): Pick<Answer, "addresses" | "timeToLive"> {
  const lives: number[] = [];
  const names = new Set([name]);
  let current = name;
  for (let count = 0; count < MOST_ALIASES; count += 1) {
    const alias = records.find((record) => record.name === current && record.alias !== undefined);
    if (alias?.alias === undefined || names.has(alias.alias)) break;
    lives.push(alias.timeToLive);
    names.add(alias.alias);
    current = alias.alias;
  }
  const addresses: string[] = [];
  for (const record of records) {
    if (record.name !== current || record.address === undefined) continue;
    addresses.push(record.address);
    lives.push(record.timeToLive);
  }
  return { addresses, timeToLive: addresses.length === 0 ? 0 : Math.min(...lives) };
}

/** "10.0.0.1", or "2001:db8:0:0:0:0:0:1", which is not shortened. */
export function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const groups = Array.from({ length: 8 }, (_, index) =>
    (((bytes[index * 2] as number) << 8) | (bytes[index * 2 + 1] as number)).toString(16),
  );
  return groups.join(":");
}

/** A record of our own. */
export interface OwnRecord {
  readonly type: number;
  readonly timeToLive: number;
  readonly data: Uint8Array;
  /** Its name as it is written; a pointer to the question's in most. */
  readonly owner?: Uint8Array;
}

export interface OwnAnswer {
  readonly code: ResponseCode;
  readonly extendedError?: ExtendedError;
  /** We know it ourselves. */
  readonly authoritative?: boolean;
  readonly truncated?: boolean;
  readonly answers?: readonly OwnRecord[];
  readonly authorities?: readonly OwnRecord[];
}

const toQuestion = Uint8Array.of(0xc0, HEADER);

/** Writes an answer of our own; with EDNS where the query had it. */
export function encodeAnswer(query: Query, answer: OwnAnswer): Uint8Array<ArrayBuffer> {
  const { answers = [], authorities = [] } = answer;
  const parts = [query.questionBytes, ...[...answers, ...authorities].map(encodeRecord)];
  if (query.udpSize !== undefined) parts.push(encodeEdns(answer.extendedError));
  const length = parts.reduce((sum, part) => sum + part.length, HEADER);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  const word =
    flags.answer |
    (answer.authoritative === true ? flags.authoritative : 0) |
    (answer.truncated === true ? flags.truncated : 0) |
    (query.recursionDesired ? flags.recursionDesired : 0) |
    flags.recursionAvailable |
    responseCodes[answer.code];
  view.setUint16(0, query.id, false);
  view.setUint16(2, word, false);
  view.setUint16(4, 1, false);
  view.setUint16(6, answers.length, false);
  view.setUint16(8, authorities.length, false);
  view.setUint16(10, query.udpSize === undefined ? 0 : 1, false);
  let at = HEADER;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function encodeRecord({ owner = toQuestion, type, timeToLive, data }: OwnRecord): Uint8Array {
  const bytes = new Uint8Array(owner.length + 10 + data.length);
  const view = new DataView(bytes.buffer);
  bytes.set(owner);
  view.setUint16(owner.length, type, false);
  view.setUint16(owner.length + 2, CLASS_IN, false);
  view.setUint32(owner.length + 4, timeToLive, false);
  view.setUint16(owner.length + 8, data.length, false);
  bytes.set(data, owner.length + 10);
  return bytes;
}

function encodeEdns(extendedError: ExtendedError | undefined): Uint8Array {
  const EXTENDED_ERROR = 15;
  const bytes = new Uint8Array(extendedError === undefined ? 11 : 17);
  const view = new DataView(bytes.buffer);
  view.setUint16(1, recordTypes.OPT, false);
  view.setUint16(3, LONGEST_QUERY, false);
  if (extendedError === undefined) return bytes;
  view.setUint16(9, 6, false);
  view.setUint16(11, EXTENDED_ERROR, false);
  view.setUint16(13, 2, false);
  view.setUint16(15, extendedErrors[extendedError], false);
  return bytes;
}

/** A refusal of what could not be read: the header alone. */
export function encodeHeader(id: number, code: ResponseCode): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, id, false);
  view.setUint16(2, flags.answer | flags.recursionAvailable | responseCodes[code], false);
  return bytes;
}

/** The same message under another id. */
export function withId(bytes: Uint8Array, id: number): Uint8Array<ArrayBuffer> {
  const copy = Uint8Array.from(bytes);
  new DataView(copy.buffer).setUint16(0, id, false);
  return copy;
}
