import * as v from "valibot";
import { nearest } from "../units/nearest.ts";
import type { Bytes } from "../units/units.ts";
import type { Mistake, Path } from "./configuration-reader.ts";
import { parseJsonTree } from "./json-tree.ts";
import { parseToml, type TextPosition, type TomlNode } from "./toml-tree.ts";

/** A document in TOML or JSON, read by a valibot schema; each mistake has its place. Pure. */

export type DocumentOutcome<Output> =
  | {
      readonly kind: "read";
      readonly value: Output;
      /** Where something of it stands, for mistakes that no schema finds. */
      placeOf(path: Path): TextPosition;
    }
  | { readonly kind: "refused"; readonly mistakes: readonly Mistake[] };

/** Letters of what is told of a value. */
const LONGEST_RECEIVED = 120;

/** JSON is what begins with a brace. */
export function readDocument<Output>(
  text: string,
  schema: v.GenericSchema<unknown, Output>,
  limit: Bytes,
): DocumentOutcome<Output> {
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > limit) {
    const at = { line: 0, column: 0 };
    const expected = `at most ${limit} bytes`;
    return { kind: "refused", mistakes: [{ at, path: [], expected, received: `${bytes} bytes` }] };
  }
  const document = text.trimStart().startsWith("{") ? parseJsonTree(text) : tomlDocument(text);
  const { value, refusals, placeOf } = document;
  if (refusals.length > 0) {
    return { kind: "refused", mistakes: refusals.map((refusal) => ({ ...refusal, path: [] })) };
  }
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return { kind: "read", value: parsed.output, placeOf };
  const mistakes = parsed.issues.flatMap((issue) =>
    mistakesOf(issue, { schema: schema as object as Shape, placeOf }),
  );
  return { kind: "refused", mistakes };
}

function tomlDocument(text: string): ReturnType<typeof parseJsonTree> {
  const { root, refusals } = parseToml(text);
  const begin = { line: 1, column: 1 };
  if (root === undefined) return { value: undefined, refusals, placeOf: () => begin };
  return { value: plainOf(root), refusals, placeOf: (path) => positionOf(root, path) };
}

/** What of a schema says which keys it has. */
interface Shape {
  readonly entries?: Readonly<Record<string, Shape>>;
  readonly item?: Shape;
  readonly wrapped?: Shape;
}

interface Document {
  readonly schema: Shape;
  placeOf(path: Path): TextPosition;
}

function mistakesOf(issue: v.BaseIssue<unknown>, document: Document): Mistake[] {
  const path = (issue.path ?? []).map((item) => item.key as string | number);
  const [key, at] = [path.at(-1), document.placeOf(path)];
  const received = issue.received.slice(0, LONGEST_RECEIVED);
  if (issue.expected === "never" && typeof key === "string") {
    const known = keysAt(document.schema, path.slice(0, -1));
    const meant = nearest(key, known);
    const expected = known.length === 0 ? "no such key" : `a key among ${known.join(", ")}`;
    const mend = meant === undefined ? undefined : `Did you mean ${meant}?`;
    return [
      { at, path, expected: meant === undefined ? expected : "a known key", received: key, mend },
    ];
  }
  const isMissing = issue.received === "undefined";
  return [{ at, path, expected: wantedBy(issue), received: isMissing ? "nothing" : received }];
}

/** Words of a schema's own say more than its pattern; valibot's begin with "Invalid". */
function wantedBy({ expected, received, message, type }: v.BaseIssue<unknown>): string {
  if (received === "undefined" && expected?.startsWith('"') === true) return "a value";
  if (type === "safe_integer" || type === "integer") return "a whole number";
  if (type === "finite") return "a finite number";
  if (!message.startsWith("Invalid ")) return message.replace(/^Expected /, "");
  return expected ?? message;
}

function keysAt(schema: Shape, path: Path): readonly string[] {
  let shape: Shape | undefined = schema;
  for (const segment of [...path, undefined]) {
    while (shape?.wrapped !== undefined) shape = shape.wrapped;
    if (segment === undefined) break;
    shape = typeof segment === "number" ? shape?.item : shape?.entries?.[segment];
  }
  return Object.keys(shape?.entries ?? {});
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
