import { formatBytes } from "../../units/bytes.ts";
import { type Rule, specLimits } from "../protocol-spec.ts";
import type { Scalar } from "./path.ts";

/** Whether a value is as a rule says, and how both are told to people. Pure. */

export type Match = Rule["match"];

export function holds(match: Match, value: Scalar): boolean {
  switch (match.is) {
    case "equal":
      return value === match.value;
    case "one-of":
      return match.values.includes(value);
    case "at-least":
      return typeof value === "number" && value >= match.value;
    case "at-most":
      return typeof value === "number" && value <= match.value;
    case "like":
      return typeof value === "string" && isLike(value, match.value);
    case "present":
      return true;
    case "absent":
      return false;
  }
}

/**
 * `*` for any letters, none too, and `?` for one. Every letter of the text is looked at once, with
 * all places of the pattern that it could stand at as the bits of one number: none is tried again.
 */
export function isLike(text: string, pattern: string): boolean {
  let letters = 0;
  let loops = 0n;
  let any = 0n;
  const places = new Map<string, bigint>();
  for (const letter of pattern) {
    const bit = 1n << BigInt(letters);
    if (letter === "*") {
      loops |= bit;
      continue;
    }
    if (letter === "?") any |= bit;
    else places.set(letter, (places.get(letter) ?? 0n) | bit);
    letters += 1;
  }
  let reached = 1n;
  for (const letter of text) {
    const here = any | (places.get(letter) ?? 0n);
    reached = ((reached & here) << 1n) | (reached & loops);
    if (reached === 0n) return false;
  }
  return (reached & (1n << BigInt(letters))) !== 0n;
}

/** "at-least 137438953472". */
export function ruleText(match: Match): string {
  switch (match.is) {
    case "equal":
    case "at-least":
    case "at-most":
    case "like":
      return cut(`${match.is} ${show(match.value)}`);
    case "one-of":
      return cut(`one-of ${match.values.map(show).join(" | ")}`);
    case "present":
    case "absent":
      return match.is;
  }
}

/** "at least 137438953472 (128 GiB)". */
export function expectedText(match: Match, path: string): string {
  switch (match.is) {
    case "equal":
      return foundText(match.value, path);
    case "one-of":
      return cut(`one of ${match.values.map((value) => foundText(value, path)).join(", ")}`);
    case "at-least":
      return cut(`at least ${foundText(match.value, path)}`);
    case "at-most":
      return cut(`at most ${foundText(match.value, path)}`);
    case "like":
      return cut(`like ${show(match.value)}`);
    case "present":
    case "absent":
      return match.is;
  }
}

export function foundText(value: unknown, path: string): string {
  if (typeof value === "object" && value !== null) return "present";
  const text = show(value as Scalar);
  const isSize = typeof value === "number" && value >= 1024 && path.endsWith("_bytes");
  return cut(isSize ? `${text} (${formatBytes(value)})` : text);
}

/** Letters that nobody sees are written out. */
function show(value: Scalar): string {
  if (typeof value !== "string") return String(value);
  const isPlain = value !== "" && value.trim() === value && !/[\p{C}\p{Zl}\p{Zp}]/u.test(value);
  return isPlain ? value : JSON.stringify(value);
}

export function cut(text: string): string {
  return text.length <= specLimits.text ? text : `${text.slice(0, specLimits.text - 1)}…`;
}
