import { type AST, ParseError, parseTOML } from "toml-eslint-parser";
import { explainSyntax } from "./toml-syntax.ts";

/** TOML as a tree that knows where everything stands. Pure. */

/** Both count from 1. */
export interface TextPosition {
  readonly line: number;
  readonly column: number;
}

export interface TomlTable {
  readonly kind: "table";
  readonly at: TextPosition;
  readonly entries: Map<string, TomlEntry>;
}

export interface TomlArray {
  readonly kind: "array";
  readonly at: TextPosition;
  readonly items: TomlNode[];
}

export interface TomlScalar {
  readonly kind: "value";
  readonly at: TextPosition;
  readonly value: string | number | boolean | Date;
}

export interface TomlEntry {
  /** Where the key stands. */
  readonly keyAt: TextPosition;
  readonly node: TomlNode;
}

export type TomlNode = TomlTable | TomlArray | TomlScalar;

/** Why the text is no TOML, and where that shows. */
export interface TomlRefusal {
  readonly at: TextPosition;
  readonly expected: string;
  readonly received: string;
  readonly mend?: string;
}

/** What could be read. */
export interface TomlOutcome {
  /** Without the keys that were said twice; undefined when the text is no TOML besides. */
  readonly root: TomlTable | undefined;
  readonly refusals: readonly TomlRefusal[];
  /** Lines that were mended to go on: what stands there now is a guess. */
  readonly guessedLines: ReadonlySet<number>;
  /** Some of the text is no TOML: what is found besides may follow from that. */
  readonly isBroken: boolean;
}

/** Mistakes that are told in one go; each costs parsing the text once more. */
export const MISTAKES_LIMIT = 16;

/** Arrays and tables in each other. */
const DEEPEST = 32;

class TooDeep extends Error {
  readonly at: TextPosition;
  constructor(at: TextPosition) {
    super(`arrays and tables are nested more than ${DEEPEST} deep`);
    this.at = at;
  }
}

/**
 * Reads a text. The parser stops at the first mistake; so that what else is wrong is found as well,
 * a key that was said before gets a name of its own, and a line that is no TOML is mended or left
 * out.
 */
export function parseToml(text: string): TomlOutcome {
  const repair = new Repair(text);
  const refusals: TomlRefusal[] = [];
  const refuse = (at: TextPosition, received: string): TomlOutcome => {
    const refusal = { at: repair.originalOf(at), expected: "TOML", received };
    return outcome(undefined, [...refusals, refusal]);
  };
  const outcome = (root: TomlTable | undefined, told: readonly TomlRefusal[]): TomlOutcome => {
    const { guessedLines, isBroken } = repair;
    return { root, refusals: told, guessedLines, isBroken };
  };
  for (;;) {
    try {
      const root = treeOf(parseTOML(repair.text));
      return outcome(restore(root, repair), refusals);
    } catch (error) {
      if (error instanceof TooDeep) return refuse(error.at, error.message);
      if (error instanceof ParseError) {
        const at = { line: error.lineNumber, column: error.column + 1 };
        const key = repair.renameRepeated(error, at);
        if (key !== undefined) {
          const expected = `the key ${key} once`;
          refusals.push({ at: repair.originalOf(at), expected, received: "the same key again" });
        } else if (!repair.mendLine(error, at, refusals)) return outcome(undefined, refusals);
        if (refusals.length >= MISTAKES_LIMIT) return outcome(undefined, refusals);
        continue;
      }
      // The parser's own recursion has no limit but the stack.
      if (error instanceof RangeError) {
        return refuse({ line: 1, column: 1 }, "it is nested too deeply");
      }
      throw error;
    }
  }
}

/** The parser gives its errors no codes. */
const REPEATED_KEY = "Defining a key multiple times is invalid";

/** A text whose repeated keys were given names of their own, on the lines where they stood. */
class Repair {
  text: string;
  readonly guessedLines = new Set<number>();
  /** How often each line was mended. */
  readonly #mended = new Map<number, number>();
  /** No key of the text begins like this. */
  readonly #prefix: string;
  /** Where names were put in, and how much longer they are than the keys. */
  readonly #insertions: { readonly at: TextPosition; readonly length: number }[] = [];

  constructor(text: string) {
    this.text = text;
    let prefix = "repeated-";
    while (text.includes(prefix)) prefix += "-";
    this.#prefix = prefix;
  }

  /** The key that the error is about, now renamed; undefined when it is about something else. */
  renameRepeated(error: ParseError, at: TextPosition): string | undefined {
    if (error.message !== REPEATED_KEY) return undefined;
    const pattern = /"(?:[^"\\]|\\.)*"|'[^']*'|[\w-]+/y;
    pattern.lastIndex = error.index;
    const key = pattern.exec(this.text)?.[0];
    if (key === undefined || key.startsWith(this.#prefix)) return undefined;
    const name = `${this.#prefix}${this.#insertions.length}`;
    const end = error.index + key.length;
    this.text = `${this.text.slice(0, error.index)}${name}${this.text.slice(end)}`;
    this.#insertions.push({ at, length: name.length - key.length });
    return key;
  }

  /**
   * Tells what is wrong at that place, and mends the line or takes it out. False when that has
   * been done before: what goes on there cannot be told.
   */
  mendLine(error: ParseError, at: TextPosition, refusals: TomlRefusal[]): boolean {
    const found = explainSyntax(this.text, at, error.message);
    const { line } = found.at;
    const { expected, received, mend } = found;
    const told = { expected, received, ...(mend !== undefined && { mend }) };
    const tries = this.#mended.get(line) ?? 0;
    if (tries === 0) refusals.push({ at: this.originalOf(found.at), ...told });
    if (tries > 1) return false;
    const lines = this.text.split("\n");
    if (lines[line - 1] === undefined) return false;
    lines[line - 1] = tries === 0 ? found.line : "";
    this.text = lines.join("\n");
    this.#mended.set(line, tries + 1);
    if (found.isGuess || tries > 0) this.guessedLines.add(line);
    return true;
  }

  get isBroken(): boolean {
    return this.#mended.size > 0;
  }

  isName(key: string): boolean {
    return key.startsWith(this.#prefix);
  }

  /** Where something of the present text stands in the one that was given. */
  originalOf({ line, column }: TextPosition): TextPosition {
    let original = column;
    // The last insertion first: each was made in the text that the one before had left.
    for (const { at, length } of this.#insertions.toReversed()) {
      if (at.line === line && original > at.column) original -= length;
    }
    return { line, column: original };
  }
}

/** The tree as the given text has it: places as there, and nothing below a key said twice. */
function restore<Node extends TomlNode>(node: Node, repair: Repair): Node;
function restore(node: TomlNode, repair: Repair): TomlNode {
  const at = repair.originalOf(node.at);
  if (node.kind === "value") return { ...node, at };
  if (node.kind === "array") {
    return { ...node, at, items: node.items.map((item) => restore(item, repair)) };
  }
  const entries = new Map<string, TomlEntry>();
  for (const [key, entry] of node.entries) {
    if (repair.isName(key)) continue;
    const keyAt = repair.originalOf(entry.keyAt);
    entries.set(key, { keyAt, node: restore(entry.node, repair) });
  }
  return { ...node, at, entries };
}

function treeOf(program: AST.TOMLProgram): TomlTable {
  const top = program.body[0];
  const root = emptyTable({ line: 1, column: 1 });
  for (const item of top.body) {
    if (item.type === "TOMLKeyValue") addKeyValue(root, item, 0);
    else addTable(root, item);
  }
  return root;
}

function addTable(root: TomlTable, table: AST.TOMLTable): void {
  const at = positionOf(table);
  let current: TomlNode = root;
  for (const [index, segment] of table.resolvedKey.entries()) {
    if (index > DEEPEST) throw new TooDeep(at);
    const keyAt = positionOf(table.key.keys[index] ?? table.key);
    const nextIsIndex = typeof table.resolvedKey[index + 1] === "number";
    const made: TomlNode = nextIsIndex ? { kind: "array", at, items: [] } : emptyTable(at);
    current = descend(current, segment, { keyAt, node: made });
  }
  if (current.kind !== "table") return;
  for (const item of table.body) addKeyValue(current, item, table.resolvedKey.length);
}

function descend(parent: TomlNode, segment: string | number, made: TomlEntry): TomlNode {
  if (parent.kind === "array" && typeof segment === "number") {
    const item = parent.items[segment] ?? made.node;
    parent.items[segment] = item;
    return item;
  }
  if (parent.kind === "table" && typeof segment === "string") {
    const entry = parent.entries.get(segment) ?? made;
    parent.entries.set(segment, entry);
    return entry.node;
  }
  return parent;
}

function addKeyValue(table: TomlTable, item: AST.TOMLKeyValue, depth: number): void {
  let current = table;
  const { keys } = item.key;
  for (const [index, key] of keys.entries()) {
    const keyAt = positionOf(key);
    if (depth + index > DEEPEST) throw new TooDeep(keyAt);
    const name = key.type === "TOMLBare" ? key.name : key.value;
    if (index === keys.length - 1) {
      current.entries.set(name, { keyAt, node: nodeOf(item.value, depth + index + 1) });
      return;
    }
    const next = descend(current, name, { keyAt, node: emptyTable(keyAt) });
    if (next.kind !== "table") return;
    current = next;
  }
}

function nodeOf(content: AST.TOMLContentNode, depth: number): TomlNode {
  const at = positionOf(content);
  if (depth > DEEPEST) throw new TooDeep(at);
  switch (content.type) {
    case "TOMLArray": {
      const items = content.elements.map((element) => nodeOf(element, depth + 1));
      return { kind: "array", at, items };
    }
    case "TOMLInlineTable": {
      const table = emptyTable(at);
      for (const item of content.body) addKeyValue(table, item, depth + 1);
      return table;
    }
    case "TOMLValue":
      return { kind: "value", at, value: content.value };
  }
}

function emptyTable(at: TextPosition): TomlTable {
  return { kind: "table", at, entries: new Map() };
}

function positionOf(node: { readonly loc: AST.SourceLocation }): TextPosition {
  const { line, column } = node.loc.start;
  return { line, column: column + 1 };
}
