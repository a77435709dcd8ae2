/**
 * The path of a rule, as protocol-spec.ts says it:
 *
 *     path      = step *("." step)              memory.slots[DIMM_A1].size_bytes
 *     step      = word [selector]               disks.count
 *     selector  = "[*]"                         disks[*].firmware
 *               | "[" key "]"                   disks[S64ANX0R].model, disks["a]b"].model
 *               | "[" condition *("," condition) "]"
 *     condition = word "=" scalar               disks[model="MZ7L3"].count, disks[model=null].count
 *
 * A key with `]`, `"`, `=` or `,` in it, an empty one, and one called `*` are written as a string
 * of JSON; so is each text of a condition. Pure.
 */

export type Scalar = string | number | boolean;

export interface Condition {
  readonly word: string;
  readonly value: Scalar | null;
}

export type Selector =
  | { readonly kind: "each" }
  | { readonly kind: "key"; readonly key: string }
  | { readonly kind: "where"; readonly conditions: readonly Condition[] };

export interface Step {
  readonly word: string;
  readonly selector: Selector | undefined;
  /** Where the word begins; columns count from 1. */
  readonly column: number;
}

export interface PathRefusal {
  readonly kind: "refused";
  readonly column: number;
  readonly expected: string;
  readonly received: string;
  readonly mend?: string;
}

export type ParsedPath = { readonly kind: "path"; readonly steps: readonly Step[] } | PathRefusal;

/** Conditions in one selector. */
export const CONDITIONS_LIMIT = 8;

const word = /[a-z][a-z0-9_]*/y;
const bareKey = /[^\]"=,]+/y;
const quoted = /"(?:[^"\\]|\\.)*"/y;
const bareScalar = /true|false|null|-?\d+(?:\.\d+)?/y;

/** Reads one letter after the other, and none twice. */
export function parsePath(text: string): ParsedPath {
  const reader = new Reader(text);
  const steps: Step[] = [];
  try {
    do {
      const column = reader.column;
      const name = reader.take(word, "a word of small letters");
      const selector = reader.skip("[") ? readSelector(reader) : undefined;
      steps.push({ word: name, selector, column });
    } while (reader.skip("."));
    reader.end();
    return { kind: "path", steps };
  } catch (error) {
    if (error instanceof Unreadable) return error.refusal;
    throw error;
  }
}

function readSelector(reader: Reader): Selector {
  if (reader.skip("*]")) return { kind: "each" };
  const key = reader.maybeString() ?? reader.take(bareKey, "a key, a condition or *");
  if (reader.skip("]")) return { kind: "key", key };
  const conditions = [readCondition(reader, key)];
  while (reader.skip(",")) {
    reader.skip(" ");
    if (conditions.length === CONDITIONS_LIMIT) {
      reader.refuse(`at most ${CONDITIONS_LIMIT} conditions`);
    }
    conditions.push(readCondition(reader, reader.take(word, "a word of small letters")));
  }
  if (!reader.skip("]")) reader.refuse("]");
  return { kind: "where", conditions };
}

function readCondition(reader: Reader, name: string): Condition {
  if (!reader.skip("=")) reader.refuse("] or =");
  const text = reader.maybeString();
  if (text !== undefined) return { word: name, value: text };
  const bare = reader.take(bareScalar, "a text in quotes, a number, true, false or null");
  return { word: name, value: JSON.parse(bare) as Scalar | null };
}

class Unreadable extends Error {
  readonly refusal: PathRefusal;
  constructor(refusal: PathRefusal) {
    super(refusal.expected);
    this.refusal = refusal;
  }
}

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get column(): number {
    return this.#at + 1;
  }

  skip(letters: string): boolean {
    if (!this.#text.startsWith(letters, this.#at)) return false;
    this.#at += letters.length;
    return true;
  }

  take(pattern: RegExp, expected: string): string {
    return this.#match(pattern) ?? this.refuse(expected);
  }

  /** A string of JSON; undefined where none begins. */
  maybeString(): string | undefined {
    if (this.#text[this.#at] !== '"') return undefined;
    const found = this.take(quoted, "a text that ends with a quote");
    try {
      return JSON.parse(found) as string;
    } catch {
      this.#at -= found.length;
      return this.refuse("a text as JSON has it");
    }
  }

  end(): void {
    if (this.#at < this.#text.length) this.refuse(". or [ or the end");
  }

  refuse(expected: string): never {
    const rest = this.#text.slice(this.#at, this.#at + 24);
    const received = rest === "" ? "the end" : JSON.stringify(rest);
    throw new Unreadable({ kind: "refused", column: this.column, expected, received });
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }
}

/** A key in brackets, so that `parsePath` reads the same one. */
export function writeKey(key: string): string {
  const isBare = key !== "" && !key.startsWith("*") && /^[^\]"=,\p{C}]+$/u.test(key);
  return `[${isBare ? key : JSON.stringify(key)}]`;
}

export function writeConditions(conditions: readonly Condition[]): string {
  const parts = conditions.map(({ word: name, value }) => `${name}=${JSON.stringify(value)}`);
  return `[${parts.join(", ")}]`;
}
