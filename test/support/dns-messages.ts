/** DNS messages of clients and upstreams, for tests. */
import { CLASS_IN, recordTypes } from "../../src/network/dns/message.ts";
import { nameBytes, readName } from "../../src/network/dns/name.ts";

export interface QueryWish {
  readonly id?: number;
  readonly type?: number;
  /** Bytes over UDP, by EDNS. */
  readonly udpSize?: number;
  readonly flags?: number;
}

const word = (value: number) => [value >>> 8, value & 255];
const long = (value: number) => [...word(value >>> 16), ...word(value & 0xffff)];

export function queryBytes(name: string, wish: QueryWish = {}): Uint8Array<ArrayBuffer> {
  const { id = 0x1234, type = recordTypes.A, udpSize, flags = 0x0100 } = wish;
  const edns = udpSize === undefined ? [] : [0, ...word(recordTypes.OPT), ...word(udpSize)];
  return Uint8Array.from([
    ...word(id),
    ...word(flags),
    ...word(1),
    ...word(0),
    ...word(0),
    ...word(udpSize === undefined ? 0 : 1),
    ...nameBytes(name),
    ...word(type),
    ...word(CLASS_IN),
    ...edns,
    ...(udpSize === undefined ? [] : [...long(0), ...word(0)]),
  ]);
}

export interface AnswerRecord {
  readonly name: string;
  readonly type: number;
  readonly timeToLive: number;
  readonly data: Uint8Array | readonly number[];
}

/** An answer to a query as an upstream writes it, uncompressed. */
export function answerBytes(
  query: Uint8Array,
  records: readonly AnswerRecord[],
  change: { readonly flags?: number; readonly id?: number } = {},
): Uint8Array<ArrayBuffer> {
  const end = (readName(query, 12)?.next ?? 12) + 4;
  const { id = ((query[0] ?? 0) << 8) | (query[1] ?? 0), flags = 0x8180 } = change;
  return Uint8Array.from([
    ...word(id),
    ...word(flags),
    ...word(1),
    ...word(records.length),
    ...word(0),
    ...word(0),
    ...query.subarray(12, end),
    ...records.flatMap(({ name, type, timeToLive, data }) => [
      ...nameBytes(name),
      ...word(type),
      ...word(CLASS_IN),
      ...long(timeToLive),
      ...word(data.length),
      ...data,
    ]),
  ]);
}

export function addressRecord(name: string, address: string, timeToLive = 60): AnswerRecord {
  return { name, type: recordTypes.A, timeToLive, data: address.split(".").map(Number) };
}

export function aliasRecord(name: string, target: string, timeToLive = 60): AnswerRecord {
  return { name, type: recordTypes.CNAME, timeToLive, data: nameBytes(target) };
}
