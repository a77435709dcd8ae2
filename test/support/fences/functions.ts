/**
 * Functions have at most 70 lines. The formatter is relied upon: what opens in a line of some
 * indentation ends in the next line of that indentation that begins with its bracket. Lines in
 * tables (literals of objects and arrays) do not count, and describe is a heading, no function.
 */
import { codeOf, type SourceFile, type Violation } from "./source.ts";

export const functionLineLimit = 70;

const opensBlock =
  /^\}|^(if|for|while|switch|try|do|else|class|interface|type|describe|skipUnless|onlyInAll)\b/;
const opensLiteral = /([=:(,[?]|\breturn|\bsatisfies [\w<>, ]+|=>) ?[[{(]*[[{]$|^[[{]$/;

export function checkFunctionLength(file: SourceFile): Violation[] {
  if (!/^(src|ffi|scripts|test)\/.*\.ts$/.test(file.path)) return [];
  const lines = codeOf(file.text).split("\n");
  return lines.flatMap((line, index) => {
    if (!opensFunction(line.trim())) return [];
    const end = endOf(lines, index);
    const count = end - index + 1 - tableLines(lines, index + 1, end);
    if (count <= functionLineLimit) return [];
    const message = `a function of ${count} lines; at most ${functionLineLimit}: split it`;
    return [{ path: file.path, line: index + 1, message }];
  });
}

/** A line that ends with the opening brace of a function's body. */
function opensFunction(line: string): boolean {
  if (!line.endsWith("{") || opensBlock.test(line)) return false;
  if (line.endsWith("=> {") || /\bfunction\b/.test(line)) return true;
  // A method, or the last line of a signature that takes several.
  return /^(?:[\w#[\].]+\s)*[\w#[\].]*\(.*\)(: [^=]+)? \{$|^\)(: [^=]+)? \{$/.test(line);
}

/** @returns the index of the line that closes what the line of this index opens */
function endOf(lines: readonly string[], start: number): number {
  const indentation = indentationOf(lines[start] ?? "");
  for (let index = start + 1; index < lines.length; index += 1) {
    const line = lines[index] ?? "";
    if (indentationOf(line) === indentation && /^[}\])]/.test(line.trim())) return index;
  }
  return lines.length - 1;
}

function tableLines(lines: readonly string[], start: number, end: number): number {
  let count = 0;
  for (let index = start; index < end; index += 1) {
    const line = (lines[index] ?? "").trim();
    if (!opensLiteral.test(line) || opensFunction(line) || opensBlock.test(line)) continue;
    const close = endOf(lines, index);
    count += close - index;
    index = close;
  }
  return count;
}

function indentationOf(line: string): number {
  return line.length - line.trimStart().length;
}
