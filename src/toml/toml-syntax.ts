import type { TextPosition } from "./toml-tree.ts";

/**
 * Words of our own for the commonest mistakes of TOML, and a text to go on with, so that one
 * syntax error does not hide what else is wrong. Pure.
 */
export interface SyntaxMistake {
  readonly at: TextPosition;
  readonly expected: string;
  readonly received: string;
  readonly mend?: string;
  /** The line to go on with. */
  readonly line: string;
  /** What stands in that line is a guess: nothing is said of it. */
  readonly isGuess: boolean;
}

/** Where the parser stopped. */
interface Stop {
  readonly lines: readonly string[];
  readonly at: TextPosition;
  /** What the parser said. */
  readonly message: string;
  /** The last line before that says anything; 0 when there is none. */
  readonly before: number;
}

type Explanation = (stop: Stop) => SyntaxMistake | undefined;

export function explainSyntax(text: string, at: TextPosition, message: string): SyntaxMistake {
  const lines = text.split("\n");
  let before = at.line - 1;
  while (before > 0 && /^\s*(#.*)?$/.test(lines[before - 1] ?? "")) before -= 1;
  const stop = { lines, at, message, before };
  for (const explain of explanations) {
    const found = explain(stop);
    if (found !== undefined) return found;
  }
  const line = withoutValue(lineAt(stop, at.line));
  return { at, expected: "TOML", received: message, line, isGuess: true };
}

const lineAt = ({ lines }: Stop, number: number) => lines[number - 1] ?? "";
const quote = (text: string) => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);

/** The key stays: that it is there is known. */
function withoutValue(line: string): string {
  const key = /^\s*[\w."'-]+\s*=/.exec(line)?.[0];
  return key === undefined ? "" : `${key} ""`;
}

/** "[process.web" without its end; the parser says it of the line that follows. */
const openHeader: Explanation = (stop) => {
  for (const number of [stop.at.line, stop.before]) {
    const line = lineAt(stop, number);
    const [, whole, open, closed] =
      /^(\s*(\[\[?)[\w\s."'-]+?)\s*(\]?)\s*(?:#.*)?$/.exec(line) ?? [];
    if (whole === undefined || open === undefined || open.length === closed?.length) continue;
    const received = quote(line.trim());
    // No table of ours has two brackets.
    const isDouble = open.length === 2;
    const at = { line: number, column: isDouble ? whole.indexOf("[") + 1 : whole.length + 1 };
    const expected = isDouble ? "[NAME] in single brackets" : "] at the end of the table's name";
    return { at, expected, received, line: `${whole.replace("[[", "[")}]`, isGuess: false };
  }
  return undefined;
};

/** "restart = always", and a word in an array. */
const unquotedText: Explanation = (stop) => {
  const line = lineAt(stop, stop.at.line);
  let start = Math.min(stop.at.column - 1, line.length);
  while (start > 0 && !/[\s,[{=]/.test(line[start - 1] ?? "")) start -= 1;
  const head = line.slice(0, start);
  const isAlone = /^[^="'[{]*=\s*$/.test(head) && !/["'[\]{}]/.test(line.slice(start));
  const pattern = isAlone ? /^[^#]*[^#\s]/ : /^[^\s,\]}"'#={[]+/;
  const word = pattern.exec(line.slice(start))?.[0] ?? "";
  // The name of a table, or what follows one.
  if (/^\s*\[[^=]*$/.test(head)) return undefined;
  const isInArray = head.trim() === "" && /^\s*[^\s=]+,\s*$/.test(line);
  if (!/[=[,{]/.test(head) && !isInArray) return undefined;
  // A number of another form needs quotes as well: 5s, 1.2.3.4:80, 022.
  if (!/^[\w/~.+-]/.test(word) || /^[+-]?\d*$/.test(word.replace(/^0\d+$/, "x"))) return undefined;
  if (/^(true|false)$/.test(word)) return undefined;
  const at = { line: stop.at.line, column: start + 1 };
  const isFlag = /^(true|false)$/i.test(word);
  return {
    at,
    expected: isFlag ? "true or false in small letters" : "text in quotes",
    received: word.slice(0, 60),
    mend: isFlag ? `Write ${word.toLowerCase()}.` : `Text always needs quotes: ${quote(word)}.`,
    line: `${head}${JSON.stringify(word)}${line.slice(start + word.length)}`,
    isGuess: true,
  };
};

/** "command =", which the parser says of the line that follows. */
const noValue: Explanation = (stop) => {
  const line = lineAt(stop, stop.before);
  const [, key] = /^(\s*[\w."'-]+\s*=)\s*(?:#.*)?$/.exec(line) ?? [];
  if (key === undefined) return undefined;
  const at = { line: stop.before, column: key.length + 1 };
  const received = "the end of the line";
  return { at, expected: 'a value after "="', received, line: `${key} ""`, isGuess: true };
};

/** "command: …", as other formats have it. */
const colon: Explanation = (stop) => {
  const line = lineAt(stop, stop.at.line);
  const [, key] = /^(\s*[\w."'-]+\s*):/.exec(line) ?? [];
  if (key === undefined) return undefined;
  const at = { line: stop.at.line, column: key.length + 1 };
  const mended = `${key}=${line.slice(key.length + 1)}`;
  return { at, expected: '"=" after the key', received: ":", line: mended, isGuess: true };
};

/** An array or a table in a line that goes into the next key. */
const openValue: Explanation = (stop) => {
  const next = lineAt(stop, stop.at.line);
  const line = lineAt(stop, stop.before).replace(/\s+$/, "");
  if (!/^\s*([\w."'-]+\s*=|\[)/.test(next) || !line.includes("=")) return undefined;
  const bare = line.replace(/"(?:[^"\\]|\\.)*"|'[^']*'/g, "");
  if (bare.includes("#")) return undefined;
  const open = (one: string, other: string) => bare.split(one).length > bare.split(other).length;
  const closes = (["[]", "{}"] as const).find(([one, other]) => open(one ?? "", other ?? ""));
  if (closes === undefined) return undefined;
  const close = closes[1] ?? "";
  const at = { line: stop.before, column: line.length + 1 };
  const received = "the next key";
  return {
    at,
    expected: `${close} after the last value`,
    received,
    line: line + close,
    isGuess: true,
  };
};

/** A word alone: no table, and no key. */
const noEquals: Explanation = (stop) => {
  if (!stop.message.includes("Expected equal")) return undefined;
  const isHere = stop.at.column > 1;
  const number = isHere ? stop.at.line : stop.before;
  const received = quote(lineAt(stop, number).trim());
  const expected = "KEY = VALUE, or a table [NAME]";
  return { at: { line: number, column: 1 }, expected, received, line: "", isGuess: true };
};

const openQuote: Explanation = (stop) => {
  if (!stop.message.includes("Unterminated string") || stop.at.line > stop.lines.length) {
    return undefined;
  }
  const line = lineAt(stop, stop.at.line);
  if (line === "") return undefined;
  const received = "the end of the line";
  return {
    at: stop.at,
    expected: "a quote that ends the text",
    received,
    line: withoutValue(line),
    isGuess: true,
  };
};

const explanations = [openHeader, noValue, openValue, colon, openQuote, unquotedText, noEquals];
