import { LONGEST_CLIENT_IDENTIFIER, MOST_OPTIONS } from "./limits.ts";

/** The options of a DHCP message: RFC 2132, with those that are split as in RFC 3396. Pure. */

/** Numbers on the wire. */
export const optionCodes = {
  pad: 0,
  subnetMask: 1,
  router: 3,
  nameServers: 6,
  hostname: 12,
  domain: 15,
  mtu: 26,
  broadcast: 28,
  vendorInformation: 43,
  requestedAddress: 50,
  leaseSeconds: 51,
  overload: 52,
  messageType: 53,
  serverIdentifier: 54,
  parameterRequest: 55,
  renewalSeconds: 58,
  rebindingSeconds: 59,
  vendorClass: 60,
  clientIdentifier: 61,
  bootServer: 66,
  bootFile: 67,
  userClass: 77,
  clientArchitecture: 93,
  clientInterface: 94,
  clientMachine: 97,
  ipxe: 175,
  end: 255,
} as const;

/** What is wrong with a message. */
export interface Refusal {
  /** Which part: "option 53", "magic". */
  readonly key: string;
  readonly expected: string;
  readonly received: string;
}

export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly refusal: Refusal };

export function refuse(key: string, expected: string, received: string | number) {
  return { ok: false, refusal: { key, expected, received: String(received) } } as const;
}

/** Bytes of an option, by its code; of those that we read. Others may have any length. */
const lengths: Readonly<Record<number, { readonly least: number; readonly most: number }>> = {
  [optionCodes.requestedAddress]: { least: 4, most: 4 },
  [optionCodes.leaseSeconds]: { least: 4, most: 4 },
  [optionCodes.overload]: { least: 1, most: 1 },
  [optionCodes.messageType]: { least: 1, most: 1 },
  [optionCodes.serverIdentifier]: { least: 4, most: 4 },
  [optionCodes.clientIdentifier]: { least: 2, most: LONGEST_CLIENT_IDENTIFIER },
  [optionCodes.subnetMask]: { least: 4, most: 4 },
  [optionCodes.mtu]: { least: 2, most: 2 },
};

type Options = Map<number, Uint8Array>;

/**
 * Reads one field of options into a map. What comes twice is joined in its order (RFC 3396), so
 * that one of a fixed length which comes twice has a wrong length, and is refused by that.
 */
function readField(
  field: Uint8Array,
  name: string,
  found: { readonly options: Options; count: number },
): Parsed<undefined> {
  let at = 0;
  while (at < field.length) {
    const code = field[at] as number;
    at += 1;
    if (code === optionCodes.pad) continue;
    if (code === optionCodes.end) return { ok: true, value: undefined };
    found.count += 1;
    if (found.count > MOST_OPTIONS) {
      return refuse(name, `at most ${MOST_OPTIONS} options`, "more");
    }
    const length = field[at];
    if (length === undefined) return refuse(`option ${code}`, "a length", "the end of the field");
    at += 1;
    const left = field.length - at;
    if (length > left) {
      return refuse(`option ${code}`, `${length} bytes as it announces`, `${left} in ${name}`);
    }
    const part = field.subarray(at, at + length);
    const before = found.options.get(code);
    found.options.set(code, before === undefined ? part : joined(before, part));
    at += length;
  }
  return refuse(name, "option 255 as the last one", "none");
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** Fields that option 52 makes hold options too. */
export interface OverloadableFields {
  readonly file: Uint8Array;
  readonly serverName: Uint8Array;
}

/** All options of a message; the lengths of those that are read are right. */
export function readOptions(
  field: Uint8Array,
  overloadable: OverloadableFields,
): Parsed<ReadonlyMap<number, Uint8Array>> {
  const found = { options: new Map<number, Uint8Array>(), count: 0 };
  const first = readField(field, "options", found);
  if (!first.ok) return first;
  const overload = found.options.get(optionCodes.overload);
  if (overload !== undefined) {
    const [value] = overload;
    if (overload.length !== 1 || value === undefined || value < 1 || value > 3) {
      return refuse("option 52", "one byte from 1 to 3", describeBytes(overload));
    }
    // The order is file, then sname: RFC 3396, 5.
    const inFile = (value & 1) === 0 ? first : readField(overloadable.file, "file", found);
    if (!inFile.ok) return inFile;
    const inName = (value & 2) === 0 ? first : readField(overloadable.serverName, "sname", found);
    if (!inName.ok) return inName;
  }
  for (const [code, bytes] of found.options) {
    const limits = lengths[code];
    if (limits === undefined) continue;
    const { least, most } = limits;
    if (bytes.length >= least && bytes.length <= most) continue;
    const expected = least === most ? `${least} bytes` : `${least} to ${most} bytes`;
    return refuse(`option ${code}`, expected, `${bytes.length} bytes`);
  }
  return { ok: true, value: found.options };
}

export function describeBytes(bytes: Uint8Array): string {
  const SHOWN = 8;
  const shown = bytes.subarray(0, SHOWN).toHex();
  return `${bytes.length} bytes ${shown}${bytes.length > SHOWN ? "…" : ""}`;
}

/**
 * Options as they are written, ended by 255; one longer than 255 bytes is split (RFC 3396).
 * @throws RangeError when they do not fit
 */
export function writeOptions(
  into: Uint8Array,
  options: readonly (readonly [code: number, bytes: Uint8Array])[],
): number {
  let at = 0;
  for (const [code, bytes] of options) {
    for (let start = 0; start === 0 || start < bytes.length; start += 255) {
      const part = bytes.subarray(start, start + 255);
      if (at + 2 + part.length > into.length) throw new RangeError(`No room for option ${code}`);
      into[at] = code;
      into[at + 1] = part.length;
      into.set(part, at + 2);
      at += 2 + part.length;
    }
  }
  if (at >= into.length) throw new RangeError("No room for option 255");
  into[at] = optionCodes.end;
  return at + 1;
}
