/**
 * What a service processor says by IPMI, as bytes: Intelligent Platform Management Interface
 * Specification 2.0, whose sections are named. Pure: whoever asks is `IpmiPort`.
 */

export interface IpmiRequest {
  readonly netFunction: number;
  readonly command: number;
  readonly unit?: number;
  readonly data: readonly number[];
}
export type IpmiReply =
  | { readonly kind: "answer"; readonly bytes: Uint8Array }
  | { readonly kind: "silent" };
export interface IpmiPort {
  ask(request: IpmiRequest): IpmiReply;
}

export const ipmiLimits = {
  /** Records of a repository: their numbers have 16 bits, and one that never ends is met. */
  records: 4_096,
  /** Bytes of one record, its header with it. */
  recordBytes: 255 + 5,
  /** How often a record is begun anew, because the repository changed under the reader. */
  reservations: 8,
} as const;

/** Why a controller did not give what it was asked for; the reader of a stage says it. */
export class IpmiRefused extends Error {
  override readonly name = "IpmiRefused";
  readonly completion: number | null;

  constructor(what: string, completion: number | null) {
    const why =
      completion === null
        ? "the service processor does not answer"
        : `completion code ${hex(completion)}${completionWords(completion)}`;
    super(`${what}: ${why}`);
    this.completion = completion;
  }
}

const hex = (value: number): string => `0x${value.toString(16).padStart(2, "0")}`;

/** Table 5-2. */
const completions: Readonly<Record<number, string>> = {
  192: "node busy",
  193: "invalid command",
  195: "timeout",
  197: "reservation cancelled",
  202: "cannot return so many bytes",
  203: "no such sensor or record",
  204: "invalid field",
  205: "illegal for this sensor",
  206: "cannot respond",
  212: "insufficient privilege",
  213: "not in this state",
};
const completionWords = (code: number): string =>
  completions[code] === undefined ? "" : ` (${completions[code]})`;

const RESERVATION_CANCELLED = 0xc5;
const TOO_MANY_BYTES = 0xca;
const TOO_LONG = 0xc8;

/** The bytes behind the completion code. @throws IpmiRefused */
function ask(port: IpmiPort, what: string, request: IpmiRequest): Uint8Array {
  const reply = port.ask(request);
  const completion = reply.kind === "answer" ? reply.bytes[0] : undefined;
  if (reply.kind === "silent" || completion === undefined) throw new IpmiRefused(what, null);
  if (completion !== 0) throw new IpmiRefused(what, completion);
  return reply.bytes.subarray(1);
}

/** 20.1, Get Device ID. */
export interface IpmiDeviceId {
  readonly firmware: string;
  readonly ipmi: string;
  readonly manufacturer: number;
  readonly product: number;
  /** It keeps a repository of sensor records; else its sensors have them themselves. */
  readonly hasRepository: boolean;
}

export function getDeviceId(port: IpmiPort): IpmiDeviceId {
  const bytes = ask(port, "Get Device ID", { netFunction: 0x06, command: 0x01, data: [] });
  const at = (index: number) => bytes[index] ?? 0;
  const decimals = (value: number) => value.toString(16).padStart(2, "0");
  return {
    firmware: `${at(2) & 0x7f}.${decimals(at(3))}`,
    // The tens stand in the upper four bits, and the ones in the lower: 0x51 is 1.5.
    ipmi: `${at(4) & 0x0f}.${at(4) >> 4}`,
    manufacturer: at(6) | (at(7) << 8) | ((at(8) & 0x0f) << 16),
    product: at(9) | (at(10) << 8),
    hasRepository: (at(5) & 0x02) !== 0,
  };
}

/** Of a sensor of one of the types that are looked for: 43.1 to 43.3. */
export interface SensorRecord {
  readonly name: string;
  /** Who has it, 0x20 is the service processor itself; and by which unit, 0 to 3. */
  readonly owner: number;
  readonly unit: number;
  readonly number: number;
  readonly entity: number;
  readonly entityInstance: number;
  /** Table 42-3: 0x08 is a power supply. */
  readonly type: number;
  /** Table 42-1: 0x6f is specific to the type, 0x0b redundancy, 0x01 thresholds. */
  readonly reading: number;
}

const FULL = 0x01;
const COMPACT = 0x02;
const EVENT_ONLY = 0x03;

/** One record, or one for each sensor that shares a compact one; none of other kinds. */
export function parseSensorRecord(record: Uint8Array): SensorRecord[] {
  const at = (index: number) => record[index] ?? 0;
  const kind = at(3);
  const offsets = {
    [FULL]: { type: 12, name: 47 },
    [COMPACT]: { type: 12, name: 31 },
    [EVENT_ONLY]: { type: 10, name: 16 },
  }[kind];
  if (offsets === undefined || record.length <= offsets.type + 1) return [];
  const base: SensorRecord = {
    name: parseIdentity(record, offsets.name) || `sensor ${hex(at(7))}`,
    owner: at(5),
    unit: at(6) & 0x03,
    number: at(7),
    entity: at(8),
    entityInstance: at(9) & 0x7f,
    type: at(offsets.type),
    reading: at(offsets.type + 1) & 0x7f,
  };
  const shared = kind === COMPACT ? at(23) & 0x0f : 0;
  if (shared < 2) return [base];
  // 43.2: the names of those that share differ by a number or a letter behind them.
  const first = at(24) & 0x7f;
  const asLetter = (at(23) & 0x30) === 0x10;
  const entityRises = (at(24) & 0x80) !== 0;
  return Array.from({ length: shared }, (_, index) => ({
    ...base,
    name: `${base.name}${asLetter ? String.fromCharCode(65 + first + index) : first + index}`,
    number: (base.number + index) & 0xff,
    entityInstance: base.entityInstance + (entityRises ? index : 0),
  }));
}

/** 43.15: a byte of type and length, then the text in one of four codings. */
export function parseIdentity(record: Uint8Array, offset: number): string {
  const head = record[offset] ?? 0;
  const length = head & 0x1f;
  const bytes = record.subarray(offset + 1, offset + 1 + length);
  const coding = head >> 6;
  let text = "";
  if (coding === 3) text = String.fromCharCode(...bytes);
  else if (coding === 2) text = sixBit(bytes);
  else if (coding === 1) text = decimal(bytes);
  else text = new TextDecoder().decode(bytes);
  return text
    .replace(/[^\x20-\x7e]+/g, " ")
    .replace(/\s+/g, " ")
    .trim();
}

/** Four characters in three bytes, from the space on: 43.15. */
function sixBit(bytes: Uint8Array): string {
  let text = "";
  for (let bit = 0; bit + 6 <= bytes.length * 8; bit += 6) {
    const pair = (bytes[bit >> 3] ?? 0) | ((bytes[(bit >> 3) + 1] ?? 0) << 8);
    text += String.fromCharCode(0x20 + ((pair >> (bit & 7)) & 0x3f));
  }
  return text;
}

function decimal(bytes: Uint8Array): string {
  const digits = "0123456789 -.???";
  return [...bytes].map((byte) => `${digits[byte >> 4]}${digits[byte & 0x0f]}`).join("");
}

/** Where records are, and how they are asked for: 33.9 to 33.12, and 35.2 to 35.4. */
const stores = {
  repository: { netFunction: 0x0a, reserve: 0x22, get: 0x23 },
  device: { netFunction: 0x04, reserve: 0x22, get: 0x21 },
} as const;
type Store = (typeof stores)[keyof typeof stores];

const LAST_RECORD = 0xffff;
const HEADER = 5;
/** What every controller returns in one answer, by KCS as well. */
const PIECE = 16;

export interface RecordWalk {
  readonly records: readonly SensorRecord[];
  /** Why the walk ended early; undefined: it came to the end. */
  readonly broken: string | undefined;
}

/** All sensor records, in the controller's order. What was read before a refusal stands. */
export function readSensorRecords(port: IpmiPort, from: IpmiDeviceId): RecordWalk {
  const store = from.hasRepository ? stores.repository : stores.device;
  const records: SensorRecord[] = [];
  const seen = new Set<number>();
  let next = 0;
  try {
    while (next !== LAST_RECORD) {
      if (seen.has(next)) return { records, broken: `record ${hex(next)} follows itself` };
      if (seen.size === ipmiLimits.records) {
        return { records, broken: `there are more than ${ipmiLimits.records} records` };
      }
      seen.add(next);
      const read = readRecord(port, store, next);
      records.push(...parseSensorRecord(read.bytes));
      next = read.next;
    }
    return { records, broken: undefined };
  } catch (error) {
    if (!(error instanceof IpmiRefused)) throw error;
    return { records, broken: error.message };
  }
}

interface ReadRecord {
  readonly bytes: Uint8Array;
  readonly next: number;
}

/** A record changes, or another reserves, and the reading of this one begins anew. */
function readRecord(port: IpmiPort, store: Store, id: number): ReadRecord {
  for (let tries = 1; ; tries += 1) {
    try {
      return readPieces(port, store, id);
    } catch (error) {
      const isCancelled =
        error instanceof IpmiRefused && error.completion === RESERVATION_CANCELLED;
      if (!isCancelled || tries === ipmiLimits.reservations) throw error;
    }
  }
}

function readPieces(port: IpmiPort, store: Store, id: number): ReadRecord {
  const { netFunction, reserve, get } = store;
  const reserved = ask(port, "Reserve SDR", { netFunction, command: reserve, data: [] });
  const [low = 0, high = 0] = reserved;
  const request = (offset: number, size: number): Uint8Array =>
    ask(port, `Get SDR ${hex(id)}`, {
      netFunction,
      command: get,
      data: [low, high, id & 0xff, id >> 8, offset, size],
    });
  const head = request(0, HEADER);
  const next = (head[0] ?? 0xff) | ((head[1] ?? 0xff) << 8);
  const length = HEADER + (head[6] ?? 0);
  const bytes = new Uint8Array(length);
  bytes.set(head.subarray(2, 2 + HEADER));
  let piece = PIECE;
  for (let offset = HEADER; offset < length; ) {
    const size = Math.min(piece, length - offset);
    const got = smaller(() => request(offset, size));
    if (got === undefined) {
      if (piece === 1) throw new IpmiRefused(`Get SDR ${hex(id)}`, TOO_MANY_BYTES);
      piece = Math.max(1, piece >> 1);
      continue;
    }
    const content = got.subarray(2, 2 + size);
    if (content.length === 0) throw new IpmiRefused(`Get SDR ${hex(id)}`, TOO_MANY_BYTES);
    bytes.set(content, offset);
    offset += content.length;
  }
  return { bytes, next };
}

/** undefined: the controller wants to be asked for less. */
function smaller(request: () => Uint8Array): Uint8Array | undefined {
  try {
    return request();
  } catch (error) {
    if (!(error instanceof IpmiRefused)) throw error;
    if (error.completion === TOO_MANY_BYTES || error.completion === TOO_LONG) return undefined;
    throw error;
  }
}

/** 35.14, Get Sensor Reading. */
export interface SensorState {
  readonly value: number;
  /** Bits of the states of Table 42-1 and 42-3; of a threshold sensor which ones were crossed. */
  readonly states: number;
}

/** @returns why it has none, where it does not: scanning is off, or it is being updated */
export function getSensorReading(
  port: IpmiPort,
  { number, unit, name }: SensorRecord,
): SensorState | { readonly unavailable: string } {
  const data = [number];
  let bytes: Uint8Array;
  try {
    bytes = ask(port, name, { netFunction: 0x04, command: 0x2d, unit, data });
  } catch (error) {
    if (!(error instanceof IpmiRefused)) throw error;
    return { unavailable: error.message };
  }
  const [value = 0, flags = 0, low = 0, high = 0] = bytes;
  if ((flags & 0x20) !== 0) return { unavailable: `${name}: the reading is not valid (yet)` };
  if ((flags & 0x40) === 0) return { unavailable: `${name}: the controller does not scan it` };
  return { value, states: low | ((high & 0x7f) << 8) };
}
