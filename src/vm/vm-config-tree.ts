import type { TomlEntry, TomlNode } from "../toml/toml-tree.ts";

/** Arrays and objects in each other. */
const DEEPEST = 32;
const nowhere = { line: 0, column: 0 };

/**
 * JSON as a tree for the readers of src/toml, without places. A member that is null is as if it
 * were not there, as cloud-hypervisor has it.
 * @returns undefined for what is nested too deeply
 */
export function nodeOfJson(json: unknown, depth = 0): TomlNode | undefined {
  if (depth > DEEPEST) return undefined;
  if (Array.isArray(json)) {
    const items = json.map((item: unknown) => nodeOfJson(item, depth + 1));
    if (items.includes(undefined)) return undefined;
    return { kind: "array", at: nowhere, items: items as TomlNode[] };
  }
  if (typeof json === "object" && json !== null) {
    const entries = new Map<string, TomlEntry>();
    for (const [key, value] of Object.entries(json)) {
      if (value === null) continue;
      const node = nodeOfJson(value, depth + 1);
      if (node === undefined) return undefined;
      entries.set(key, { keyAt: nowhere, node });
    }
    return { kind: "table", at: nowhere, entries };
  }
  // In an array, where it is no member.
  const value = json === null ? "null" : (json as string | number | boolean);
  return { kind: "value", at: nowhere, value };
}

/** The way back, for what is only passed on. */
export function jsonOfNode(node: TomlNode): unknown {
  if (node.kind === "value") return node.value;
  if (node.kind === "array") return node.items.map(jsonOfNode);
  return Object.fromEntries([...node.entries].map(([key, entry]) => [key, jsonOfNode(entry.node)]));
}
