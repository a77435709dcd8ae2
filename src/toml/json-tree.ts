import { MISTAKES_LIMIT, type TextPosition, type TomlRefusal } from "./toml-tree.ts";

/** JSON as values that know where they stand: what JSON.parse takes, said with places. Pure. */

export interface JsonOutcome {
  readonly value: unknown;
  /** No JSON, or keys that stand twice in one object; the value counts where there are none. */
  readonly refusals: readonly TomlRefusal[];
  /** Where the key, or the element, of this path stands; else of the nearest one above. */
  placeOf(path: readonly (string | number)[]): TextPosition;
}

/** Arrays and objects in each other. */
const DEEPEST = 32;

interface Placed {
  readonly at: TextPosition;
  readonly below: ReadonlyMap<string | number, Placed>;
}

export function parseJsonTree(text: string): JsonOutcome {
  const reader = new Reader(text);
  try {
    const { value, placed } = reader.readAll();
    return { value, refusals: reader.doubled, placeOf: (path) => placeIn(placed, path) };
  } catch (error) {
    if (!(error instanceof NoJson)) throw error;
    const { refusal } = error;
    return { value: undefined, refusals: [...reader.doubled, refusal], placeOf: () => refusal.at };
  }
}

function placeIn(root: Placed, path: readonly (string | number)[]): TextPosition {
  let here = root;
  for (const segment of path) {
    const next = here.below.get(segment);
    if (next === undefined) return here.at;
    here = next;
  }
  return here.at;
}

class NoJson extends Error {
  readonly refusal: TomlRefusal;
  constructor(refusal: TomlRefusal) {
    super(refusal.expected);
    this.refusal = refusal;
  }
}

interface Found {
  readonly value: unknown;
  readonly placed: Placed;
}

const space = /[ \t\r\n]*/y;
/** What is in it, JSON.parse judges. */
const string = /"[^"\\]*(?:\\.[^"\\]*)*"/y;
const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const word = /true|false|null/y;

class Reader {
  readonly doubled: TomlRefusal[] = [];
  readonly #text: string;
  #at = 0;
  /** Of the line that is being read. */
  #line = 1;
  #lineBegin = 0;

  constructor(text: string) {
    this.#text = text;
  }

  readAll(): Found {
    this.#skipSpace();
    const found = this.#readValue(0, this.#place());
    this.#skipSpace();
    if (this.#at < this.#text.length) this.#refuse("the end of the text");
    return found;
  }

  /** @param at of its key, where it has one */
  #readValue(depth: number, at: TextPosition): Found {
    if (depth > DEEPEST) this.#refuse(`at most ${DEEPEST} arrays and objects in each other`);
    if (this.#skip("{")) return this.#readObject(depth, at);
    if (this.#skip("[")) return this.#readArray(depth, at);
    const text = this.#takeString();
    const scalar = text ?? this.#take(number) ?? this.#take(word);
    if (scalar === undefined) this.#refuse("a value of JSON");
    return { value: text ?? JSON.parse(scalar), placed: { at, below: new Map() } };
  }

  #readObject(depth: number, at: TextPosition): Found {
    const entries: [string, unknown][] = [];
    const below = new Map<string | number, Placed>();
    this.#skipSpace();
    if (this.#skip("}")) return { value: {}, placed: { at, below } };
    do {
      this.#skipSpace();
      const keyAt = this.#place();
      const key = this.#takeString();
      if (key === undefined) this.#refuse("a key in quotes");
      if (below.has(key)) this.#refuseDoubled(keyAt, key);
      this.#skipSpace();
      if (!this.#skip(":")) this.#refuse("a colon after the key");
      this.#skipSpace();
      const { value, placed } = this.#readValue(depth + 1, keyAt);
      entries.push([key, value]);
      below.set(key, placed);
      this.#skipSpace();
    } while (this.#skip(","));
    if (!this.#skip("}")) this.#refuse("a comma, or } at the end of the object");
    // Not by assignment: a key may be called __proto__.
    return { value: Object.fromEntries(entries), placed: { at, below } };
  }

  #readArray(depth: number, at: TextPosition): Found {
    const values: unknown[] = [];
    const below = new Map<string | number, Placed>();
    this.#skipSpace();
    if (this.#skip("]")) return { value: values, placed: { at, below } };
    do {
      this.#skipSpace();
      const { value, placed } = this.#readValue(depth + 1, this.#place());
      below.set(values.length, placed);
      values.push(value);
      this.#skipSpace();
    } while (this.#skip(","));
    if (!this.#skip("]")) this.#refuse("a comma, or ] at the end of the array");
    return { value: values, placed: { at, below } };
  }

  #takeString(): string | undefined {
    const begin = this.#at;
    const text = this.#take(string);
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text) as string;
    } catch {
      this.#at = begin;
      return this.#refuse("a text without line breaks, and with the escapes that JSON knows");
    }
  }

  #refuseDoubled(at: TextPosition, key: string): void {
    const expected = `the key ${JSON.stringify(key.slice(0, 80))} once`;
    if (this.doubled.length < MISTAKES_LIMIT) {
      this.doubled.push({ at, expected, received: "the same key again" });
    }
  }

  #refuse(expected: string): never {
    const rest = this.#text.slice(this.#at, this.#at + 24).split("\n", 1)[0] ?? "";
    const isEnd = this.#at >= this.#text.length;
    const received = isEnd ? "the end of the text" : JSON.stringify(rest === "" ? "\n" : rest);
    throw new NoJson({ at: this.#place(), expected, received });
  }

  #place(): TextPosition {
    return { line: this.#line, column: this.#at - this.#lineBegin + 1 };
  }

  /** Lines end in spaces alone: a string of JSON has no line break in it. */
  #skipSpace(): void {
    const skipped = this.#take(space) ?? "";
    const begin = this.#at - skipped.length;
    for (let index = 0; index < skipped.length; index += 1) {
      if (skipped[index] !== "\n") continue;
      this.#line += 1;
      this.#lineBegin = begin + index + 1;
    }
  }

  #skip(letter: string): boolean {
    if (this.#text[this.#at] !== letter) return false;
    this.#at += 1;
    return true;
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }
}
