/**
 * The table in which a firmware describes its host: DMTF DSP0134. Pure. The bytes are a stranger's:
 * a length may lead beyond the end, a string may not be there, a handle may come twice. Whatever
 * is wrong is told in `faults`, and what was read before it stands.
 */

export const smbiosLimits = {
  structures: 8_192,
  /** Strings of one structure; their numbers have one byte. */
  strings: 255,
  faults: 16,
} as const;

export interface SmbiosVersion {
  readonly major: number;
  readonly minor: number;
}

/** One structure, whose fields are read by their offsets in DSP0134. */
export class SmbiosStructure {
  readonly type: number;
  readonly handle: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #strings: readonly string[];

  constructor(formatted: Uint8Array, strings: readonly string[]) {
    this.#bytes = formatted;
    this.#view = new DataView(formatted.buffer, formatted.byteOffset, formatted.byteLength);
    this.#strings = strings;
    this.type = this.#view.getUint8(0);
    this.handle = this.#view.getUint16(2, true);
  }

  /** undefined where the structure is too short to have the field: older versions are. */
  byte(offset: number): number | undefined {
    return offset + 1 > this.#bytes.length ? undefined : this.#view.getUint8(offset);
  }

  word(offset: number): number | undefined {
    return offset + 2 > this.#bytes.length ? undefined : this.#view.getUint16(offset, true);
  }

  double(offset: number): number | undefined {
    return offset + 4 > this.#bytes.length ? undefined : this.#view.getUint32(offset, true);
  }

  /** 64 bits; undefined also where a number cannot hold them. */
  quad(offset: number): number | undefined {
    if (offset + 8 > this.#bytes.length) return undefined;
    const value = Number(this.#view.getBigUint64(offset, true));
    return Number.isSafeInteger(value) ? value : undefined;
  }

  bytes(offset: number, length: number): Uint8Array | undefined {
    const end = offset + length;
    return end > this.#bytes.length ? undefined : this.#bytes.subarray(offset, end);
  }

  /** The string whose number stands at the offset, when it says something: `meaningful`. */
  string(offset: number): string | null {
    const number = this.byte(offset);
    if (number === undefined || number === 0) return null;
    const text = this.#strings[number - 1];
    return text === undefined ? null : meaningful(text);
  }
}

export interface SmbiosTable {
  /** Of the entry point; undefined where there is none that can be read. */
  readonly version: SmbiosVersion | undefined;
  readonly structures: readonly SmbiosStructure[];
  readonly faults: readonly string[];
}

const END_OF_TABLE = 127;
const INACTIVE = 126;
const HEADER = 4;

/** @param entry the file smbios_entry_point; undefined: it could not be read */
export function parseSmbios(table: Uint8Array, entry: Uint8Array | undefined): SmbiosTable {
  const structures: SmbiosStructure[] = [];
  const faults: string[] = [];
  const handles = new Set<number>();
  const fault = (text: string) => {
    if (faults.length < smbiosLimits.faults) faults.push(text);
  };
  let offset = 0;
  while (offset + HEADER <= table.length) {
    const length = table[offset + 1] ?? 0;
    if (length < HEADER) {
      fault(`a structure at ${offset} says that it has ${length} bytes`);
      break;
    }
    if (offset + length > table.length) {
      fault(`a structure at ${offset} of ${length} bytes leads beyond the end, ${table.length}`);
      break;
    }
    if (structures.length === smbiosLimits.structures) {
      fault(`there are more than ${smbiosLimits.structures} structures`);
      break;
    }
    const strings = readStrings(table, offset + length);
    const structure = new SmbiosStructure(table.subarray(offset, offset + length), strings.texts);
    if (structure.type === END_OF_TABLE) break;
    if (handles.has(structure.handle)) fault(`handle ${structure.handle} is there twice`);
    handles.add(structure.handle);
    if (structure.type !== INACTIVE) structures.push(structure);
    if (strings.end === undefined) {
      fault(`the strings of the structure at ${offset} have no end`);
      break;
    }
    offset = strings.end;
  }
  return { version: entry === undefined ? undefined : parseEntryPoint(entry), structures, faults };
}

/** Strings end with a zero byte each, and with one more; where there are none, with two. */
function readStrings(table: Uint8Array, start: number): { texts: string[]; end?: number } {
  const texts: string[] = [];
  let offset = start;
  while (offset < table.length) {
    const end = table.indexOf(0, offset);
    if (end === -1) return { texts };
    if (end === offset) {
      // The empty set of strings is written as two zero bytes.
      const isEmptySet = texts.length === 0 && table[offset + 1] === 0;
      return { texts, end: offset + (isEmptySet ? 2 : 1) };
    }
    if (texts.length < smbiosLimits.strings) texts.push(latin(table.subarray(offset, end)));
    offset = end + 1;
  }
  return { texts };
}

/** DSP0134 says ASCII, and firmware what it likes. */
function latin(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : " ";
  return text.replace(/\s+/g, " ").trim();
}

/** "_SM3_" of version 3, "_SM_" of version 2. undefined: neither, or its sum is wrong. */
export function parseEntryPoint(bytes: Uint8Array): SmbiosVersion | undefined {
  const anchor = String.fromCharCode(...bytes.subarray(0, 5));
  if (anchor === "_SM3_" && sumsUp(bytes, bytes[6])) {
    return { major: bytes[7] ?? 0, minor: bytes[8] ?? 0 };
  }
  if (anchor.startsWith("_SM_") && sumsUp(bytes, bytes[5])) {
    return { major: bytes[6] ?? 0, minor: bytes[7] ?? 0 };
  }
  return undefined;
}

function sumsUp(bytes: Uint8Array, length: number | undefined): boolean {
  if (length === undefined || length < 0x10 || length > bytes.length) return false;
  return bytes.subarray(0, length).reduce((sum, byte) => (sum + byte) & 0xff, 0) === 0;
}

/** What boards say whose maker wrote nothing: two hosts with it are not the same host. */
const placeholders = new Set([
  "",
  "none",
  "null",
  "n/a",
  "na",
  "unknown",
  "undefined",
  "empty",
  "oem",
  "o.e.m.",
  "invalid",
  "not available",
  "not specified",
  "not provided",
  "not present",
  "not applicable",
  "no dimm",
  "no asset information",
  "no asset tag",
  "to be filled by o.e.m.",
  "to be filled by oem",
  "filled by oem",
  "default string",
  "default",
  "system manufacturer",
  "system product name",
  "system version",
  "system serial number",
  "system sku",
  "sku",
  "base board serial number",
  "base board asset tag",
  "chassis serial number",
  "chassis manufacture",
  "asset tag",
  "asset-1234567890",
  "serial",
  "serial number",
  "part number",
  "0123456789",
  "123456789",
  "1234567890",
]);

/** null for a placeholder, and for a row of one character: "........", "00000000". */
export function meaningful(text: string): string | null {
  const word = text.trim();
  if (placeholders.has(word.toLowerCase())) return null;
  return /^([0fx.*_ -])\1*$/i.test(word) ? null : word.slice(0, 256);
}
