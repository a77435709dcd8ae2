import * as v from "valibot";
import { nearest } from "../units/nearest.ts";
import type { TextPosition, TomlNode, TomlTable } from "./toml-tree.ts";

/**
 * Readers of TOML nodes: each gives a value, or reports what it expected and what it received,
 * and where. All mistakes are reported, not the first alone.
 */

/** One mistake in a configuration file. Line and column are 0 when it is about the whole file. */
export interface ConfigurationError {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly key_path: string;
  readonly expected: string;
  readonly received: string;
  /** What to do, where it is known. */
  readonly mend?: string;
  /** Some line is no TOML, and was left out or guessed: this may follow from that. */
  readonly beyond_syntax_error?: true;
}

export interface Mistake {
  readonly at: TextPosition;
  readonly path: readonly (string | number)[];
  readonly expected: string;
  readonly received: string;
  readonly mend?: string | undefined;
  readonly isBeyondSyntax?: boolean;
}

export type Report = (mistake: Mistake) => void;
export type Path = readonly (string | number)[];

/** Reads one node; undefined when it was wrong, which has been reported. */
export type Reader<T> = (node: TomlNode, path: Path, report: Report) => T | undefined;
export type Read<R> = R extends Reader<infer T> ? T : never;

/** A value that a valibot schema describes. @param expected in words, for people */
export function value<T>(
  expected: string,
  schema: v.GenericSchema<unknown, T>,
  mend?: (received: string) => string | undefined,
): Reader<T> {
  return (node, path, report) => {
    const outcome = v.safeParse(schema, node.kind === "value" ? node.value : undefined);
    if (outcome.success) return outcome.output;
    const text = node.kind === "value" && typeof node.value === "string" ? node.value : undefined;
    const advice = text === undefined ? undefined : mend?.(text);
    report({ at: node.at, path, expected, received: describe(node), mend: advice });
    return undefined;
  };
}

/** One of these words. */
export function word<const Words extends readonly string[]>(words: Words): Reader<Words[number]> {
  return value(words.map(quote).join(" or "), v.picklist(words), (received) =>
    suggest(received, words),
  );
}

export function list<T>(
  item: Reader<T>,
  limit: { readonly expected: string; readonly least: number; readonly most: number },
): Reader<T[]> {
  return (node, path, report) => {
    const { expected, least, most } = limit;
    const count = node.kind === "array" ? node.items.length : -1;
    if (node.kind !== "array" || count < least || count > most) {
      report({ at: node.at, path, expected, received: describe(node) });
      return undefined;
    }
    const values = node.items.map((part, index) => item(part, [...path, index], report));
    return values.includes(undefined) ? undefined : (values as T[]);
  };
}

export type Readers = Readonly<Record<string, Reader<unknown>>>;
export type ReadTable<R extends Readers> = { readonly [Key in keyof R]?: Read<R[Key]> };

/** A table of known keys. A wrong or absent key is left out of what is given. */
export function table<const R extends Readers>(
  readers: R,
  options: { readonly expected: string; readonly required?: readonly (keyof R & string)[] },
): Reader<ReadTable<R>> {
  return (node, path, report) => {
    if (node.kind !== "table") {
      report({ at: node.at, path, expected: options.expected, received: describe(node) });
      return undefined;
    }
    for (const key of options.required ?? []) {
      if (node.entries.has(key)) continue;
      const expected = `the key ${key}`;
      report({ at: node.at, path: [...path, key], expected, received: "nothing" });
    }
    const read: [string, unknown][] = [];
    for (const [key, entry] of node.entries) {
      const reader = Object.hasOwn(readers, key) ? readers[key] : undefined;
      if (reader === undefined) reportUnknownKey({ node, path, key, known: readers }, report);
      else read.push([key, reader(entry.node, [...path, key], report)]);
    }
    return Object.fromEntries(read.filter(([, found]) => found !== undefined)) as ReadTable<R>;
  };
}

function reportUnknownKey(
  found: { node: TomlTable; path: Path; key: string; known: Readers },
  report: Report,
): void {
  const { node, path, key } = found;
  const known = Object.keys(found.known);
  const mend = suggest(key, known);
  report({
    at: node.entries.get(key)?.keyAt ?? node.at,
    path: [...path, key],
    // Of twenty-five keys nobody reads the one that was meant.
    expected: mend === undefined ? `a key among ${known.join(", ")}` : "a known key",
    received: cut(key),
    mend,
  });
}

/** A table whose keys are names that the file makes. */
export function namedTable<T>(
  item: Reader<T>,
  options: {
    readonly expected: string;
    readonly most: number;
    readonly isName: (name: string) => boolean;
    readonly expectedName: string;
  },
): Reader<ReadonlyMap<string, T>> {
  return (node, path, report) => {
    const { expected, most, isName, expectedName } = options;
    if (node.kind !== "table" || node.entries.size > most) {
      const received = node.kind === "table" ? `${node.entries.size} of them` : describe(node);
      report({ at: node.at, path, expected: `${expected}, at most ${most}`, received });
      return undefined;
    }
    const named = new Map<string, T>();
    for (const [name, entry] of node.entries) {
      const own = [...path, name];
      if (!isName(name)) {
        report({ at: entry.keyAt, path: own, expected: expectedName, received: cut(quote(name)) });
      }
      const found = item(entry.node, own, report);
      if (found !== undefined) named.set(name, found);
    }
    return named;
  };
}

/** Chooses the reader by what kind of node there is, so that its report is exact. */
export function either<A, B>(
  isFirst: (node: TomlNode) => boolean,
  first: Reader<A>,
  second: Reader<B>,
): Reader<A | B> {
  return (node, path, report) =>
    isFirst(node) ? first(node, path, report) : second(node, path, report);
}

/** What was found, for people; long texts are cut. */
export function describe(node: TomlNode): string {
  switch (node.kind) {
    case "table":
      return "a table";
    case "array":
      return `an array of ${node.items.length} ${node.items.length === 1 ? "value" : "values"}`;
    case "value":
      if (typeof node.value === "string") return cut(quote(node.value));
      return node.value instanceof Date ? "a date or time" : String(node.value);
  }
}

export function suggest(received: string, known: Iterable<string>): string | undefined {
  const suggestion = nearest(received, known);
  return suggestion === undefined ? undefined : `Did you mean ${suggestion}?`;
}

/** "process.media.after[0]"; a name that is no bare key of TOML is quoted. */
export function formatPath(path: Path): string {
  return path
    .map((segment, index) => {
      if (typeof segment === "number") return `[${segment}]`;
      const key = /^[\w-]+$/.test(segment) ? segment : quote(cut(segment));
      return index === 0 ? key : `.${key}`;
    })
    .join("");
}

const quote = (text: string) => JSON.stringify(text);

function cut(text: string): string {
  return text.length <= 80 ? text : `${text.slice(0, 80)}…`;
}
