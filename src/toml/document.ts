import * as v from "valibot";
import { nearest } from "../units/nearest.ts";
import type { Bytes } from "../units/units.ts";
import { receivedBy, wantedBy } from "../units/wanted-by.ts";
import type { Mistake, Path } from "./configuration-reader.ts";
import { parseJsonTree } from "./json-tree.ts";
import { keysAt, type Shape } from "./schema-keys.ts";
import type { TextPosition } from "./toml-tree.ts";
import { parseTomlValues } from "./toml-values.ts";

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
  const document = text.trimStart().startsWith("{") ? parseJsonTree(text) : parseTomlValues(text);
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

interface Document {
  readonly schema: Shape;
  placeOf(path: Path): TextPosition;
}

function mistakesOf(issue: v.BaseIssue<unknown>, document: Document): Mistake[] {
  const path = (issue.path ?? []).map((item) => item.key as string | number);
  const [key, at] = [path.at(-1), document.placeOf(path)];
  const received = receivedBy(issue, LONGEST_RECEIVED);
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
  // A word that must be there is "expected" as itself, which is no help to who has left it out.
  const isWord = isMissing && issue.expected?.startsWith('"') === true;
  const expected = isWord ? "a value" : wantedBy(issue);
  return [{ at, path, expected, received: isMissing ? "nothing" : received }];
}
