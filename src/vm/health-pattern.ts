/** UTF-16 units of a pattern. */
export const LONGEST_PATTERN = 256;

/**
 * Whether the pattern is somewhere in the text: its own characters, and `*` for any others between.
 * No regular expression: a guest decides what the text is, and could have one try for ever.
 */
export function matchesPattern(pattern: string, text: string): boolean {
  let begin = 0;
  for (const part of pattern.split("*")) {
    const found = text.indexOf(part, begin);
    if (found < 0) return false;
    begin = found + part.length;
  }
  return true;
}
