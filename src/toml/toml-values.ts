import type { Path } from "./configuration-reader.ts";
import type { JsonOutcome } from "./json-tree.ts";
import { parseToml, type TextPosition, type TomlNode } from "./toml-tree.ts";

/** TOML as values that know where they stand, as parseJsonTree has those of JSON. Pure. */
export function parseTomlValues(text: string): JsonOutcome {
  const { root, refusals } = parseToml(text);
  const begin = { line: 1, column: 1 };
  if (root === undefined) return { value: undefined, refusals, placeOf: () => begin };
  return { value: plainOf(root), refusals, placeOf: (path) => positionOf(root, path) };
}

function plainOf(node: TomlNode): unknown {
  if (node.kind === "value") return node.value;
  if (node.kind === "array") return node.items.map(plainOf);
  return Object.fromEntries([...node.entries].map(([key, entry]) => [key, plainOf(entry.node)]));
}

/** Where a key stands, or the nearest table above it. */
function positionOf(root: TomlNode, path: Path): TextPosition {
  let node: TomlNode = root;
  let at = node.at;
  for (const segment of path) {
    if (node.kind === "table") {
      const entry = node.entries.get(String(segment));
      if (entry === undefined) return at;
      at = entry.keyAt;
      node = entry.node;
    } else if (node.kind === "array") {
      const item = node.items[Number(segment)];
      if (item === undefined) return at;
      node = item;
      at = item.at;
    } else return at;
  }
  return at;
}
