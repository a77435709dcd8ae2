import { type AST, ParseError, parseTOML } from "toml-eslint-parser";

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

/** The text is no TOML; the parser stops at the first place where that shows. */
export interface TomlRefusal {
  readonly at: TextPosition;
  readonly message: string;
}

/** Arrays and tables in each other. */
const DEEPEST = 32;

class TooDeep extends Error {
  readonly at: TextPosition;
  constructor(at: TextPosition) {
    super(`arrays and tables are nested more than ${DEEPEST} deep`);
    this.at = at;
  }
}

export function parseToml(text: string): { readonly root: TomlTable } | TomlRefusal {
  const start = { line: 1, column: 1 };
  try {
    return { root: treeOf(parseTOML(text)) };
  } catch (error) {
    if (error instanceof TooDeep) return { at: error.at, message: error.message };
    if (error instanceof ParseError) {
      const at = { line: error.lineNumber, column: Math.max(1, error.column) };
      return { at, message: error.message };
    }
    // The parser's own recursion has no limit but the stack.
    if (error instanceof RangeError) return { at: start, message: "it is nested too deeply" };
    throw error;
  }
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
