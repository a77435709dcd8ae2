import type { Mistake } from "./configuration-reader.ts";
import { MISTAKES_LIMIT, type TextPosition } from "./toml-tree.ts";

/** Where one value of the text is: in an object, which has said these keys, or in an array. */
type Level =
  | { readonly kind: "object"; readonly keys: Set<string>; key: string; isAtKey: boolean }
  | { readonly kind: "array"; index: number };

/**
 * Keys that stand twice in one object, of which JSON.parse takes the last one without a word: it is
 * most likely that two things were meant. At most 16. Pure.
 * @param text which JSON.parse takes
 */
export function doubledKeys(text: string): readonly Mistake[] {
  const found: Mistake[] = [];
  const levels: Level[] = [];
  for (let at = 0; at < text.length && found.length < MISTAKES_LIMIT; at += 1) {
    const level = levels.at(-1);
    const letter = text[at];
    if (letter === '"') {
      const begin = at;
      at = endOfString(text, begin);
      if (level?.kind !== "object" || !level.isAtKey) continue;
      level.key = JSON.parse(text.slice(begin, at + 1)) as string;
      level.isAtKey = false;
      if (level.keys.has(level.key)) found.push(doubled(pathOf(levels), positionOf(text, begin)));
      level.keys.add(level.key);
    } else if (letter === "{") {
      levels.push({ kind: "object", keys: new Set(), key: "", isAtKey: true });
    } else if (letter === "[") levels.push({ kind: "array", index: 0 });
    else if (letter === "}" || letter === "]") levels.pop();
    else if (letter === "," && level?.kind === "array") level.index += 1;
    else if (letter === "," && level?.kind === "object") level.isAtKey = true;
  }
  return found;
}

/** Where its second quote stands. */
function endOfString(text: string, begin: number): number {
  let at = begin + 1;
  while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at;
}

const pathOf = (levels: readonly Level[]) =>
  levels.map((level) => (level.kind === "object" ? level.key : level.index));

function doubled(path: Mistake["path"], at: TextPosition): Mistake {
  const expected = "a key that stands once in its object";
  return { at, path, expected, received: "the same key once more" };
}

function positionOf(text: string, at: number): TextPosition {
  const lines = text.slice(0, at).split("\n");
  return { line: lines.length, column: (lines.at(-1) ?? "").length + 1 };
}
