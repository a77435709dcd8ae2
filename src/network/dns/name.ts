import { LONGEST_LABEL, LONGEST_NAME, MOST_POINTERS } from "./limits.ts";

/** Domain names between wire, text and patterns: RFC 1035. Pure. */

/** A name on the wire, and where the bytes after it begin. */
export interface NameRead {
  /** Lower case, without the last dot; "" is the root. A byte that is no letter is "\ddd". */
  readonly name: string;
  readonly next: number;
}

const KIND = 0xc0;
const POINTER = 0xc0;

/**
 * Reads a name. A pointer leads backwards alone, so that no name is without an end.
 * @returns undefined for a name that is none
 */
export function readName(
  message: Uint8Array,
  start: number,
  pointers: "follow" | "refuse" = "follow",
): NameRead | undefined {
  const labels: string[] = [];
  let at = start;
  let next: number | undefined;
  let followed = 0;
  let length = 1;
  for (;;) {
    const head = message[at];
    if (head === undefined) return undefined;
    if (head === 0) return { name: labels.join("."), next: next ?? at + 1 };
    if ((head & KIND) === POINTER) {
      const low = message[at + 1];
      if (pointers === "refuse" || low === undefined) return undefined;
      next ??= at + 2;
      const target = ((head & 0x3f) << 8) | low;
      followed += 1;
      if (followed > MOST_POINTERS || target >= at) return undefined;
      at = target;
      continue;
    }
    if ((head & KIND) !== 0 || head > LONGEST_LABEL) return undefined;
    length += head + 1;
    if (length > LONGEST_NAME || at + 1 + head > message.length) return undefined;
    labels.push(labelText(message.subarray(at + 1, at + 1 + head)));
    at += head + 1;
  }
}

/** A dot or a byte beyond letters, digits, "-" and "_" is written so that it is no other name. */
function labelText(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    const character = String.fromCharCode(byte).toLowerCase();
    const isPlain = /^[a-z0-9_-]$/.test(character);
    text += isPlain ? character : `\\${String(byte).padStart(3, "0")}`;
  }
  return text;
}

/** A plain name as bytes. @throws RangeError for one that is none */
export function nameBytes(name: string): Uint8Array {
  const labels = name === "" ? [] : name.split(".");
  const parts: number[] = [];
  for (const label of labels) {
    const bytes = new TextEncoder().encode(label);
    if (bytes.length === 0 || bytes.length > LONGEST_LABEL) {
      throw new RangeError(`Expected labels of 1 to 63 bytes, received ${JSON.stringify(name)}`);
    }
    parts.push(bytes.length, ...bytes);
  }
  parts.push(0);
  if (parts.length > LONGEST_NAME) throw new RangeError(`A name of ${parts.length} bytes`);
  return Uint8Array.from(parts);
}

/** "example.org", or "*.example.org" for all below it and not itself; undefined for neither. */
export type DomainPattern = { readonly name: string; readonly below: boolean };

const plainName = /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/;

export function parsePattern(text: string): DomainPattern | undefined {
  const below = text.startsWith("*.");
  const name = (below ? text.slice(2) : text).toLowerCase().replace(/\.$/, "");
  if (!plainName.test(name) || name.length > LONGEST_NAME - 2) return undefined;
  if (name.split(".").some((label) => label.length > LONGEST_LABEL)) return undefined;
  return { name, below };
}

export function isMatch(name: string, { name: wanted, below }: DomainPattern): boolean {
  return below ? name.endsWith(`.${wanted}`) : name === wanted;
}

/** The name under which an IPv4 address is looked up: RFC 1035, 3.5. */
export function reverseName(address: string): string {
  return `${address.split(".").toReversed().join(".")}.in-addr.arpa`;
}

/** "10.100.0.7" of "7.0.100.10.in-addr.arpa"; undefined for another name. */
export function addressOfReverse(name: string): string | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(name);
  if (match === null) return undefined;
  const parts = match.slice(1);
  if (parts.some((part) => Number(part) > 255 || (part.length > 1 && part.startsWith("0")))) {
    return undefined;
  }
  return parts.toReversed().join(".");
}
