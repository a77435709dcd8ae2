/**
 * Which of two versions is the later one: Semantic Versioning 2.0.0, 11 (precedence). Build
 * metadata is none of a version here.
 */

/**
 * @param one as `releaseVersionSchema` takes it
 * @returns below 0 when the first is the earlier one, above 0 when it is the later one
 */
export function compareVersions(one: string, other: string): number {
  const [first, second] = [partsOf(one), partsOf(other)];
  for (const [index, number] of first.numbers.entries()) {
    const difference = compareNumerals(number, second.numbers[index] ?? "0");
    if (difference !== 0) return difference;
  }
  // What is released comes after all that went before its release.
  if (first.before.length === 0 || second.before.length === 0) {
    return second.before.length - first.before.length;
  }
  for (const [index, word] of first.before.entries()) {
    const there = second.before[index];
    if (there === undefined) return 1;
    const difference = compareWords(word, there);
    if (difference !== 0) return difference;
  }
  return first.before.length - second.before.length;
}

/** The later of two; null is below every version. */
export function laterVersion(one: string | null, other: string | null): string | null {
  if (one === null || other === null) return one ?? other;
  return compareVersions(one, other) >= 0 ? one : other;
}

function partsOf(version: string) {
  const dash = version.indexOf("-");
  const core = dash < 0 ? version : version.slice(0, dash);
  const before = dash < 0 ? [] : version.slice(dash + 1).split(".");
  return { numbers: core.split("."), before };
}

function compareWords(one: string, other: string): number {
  const areNumbers = [one, other].map((word) => /^\d+$/.test(word));
  if (areNumbers[0] && areNumbers[1]) return compareNumerals(one, other);
  // Numbers come before words.
  if (areNumbers[0] !== areNumbers[1]) return areNumbers[0] ? -1 : 1;
  return compareTexts(one, other);
}

/** Digits of any length: beyond 2^53 two numbers would be the same. */
function compareNumerals(one: string, other: string): number {
  const [first, second] = [one.replace(/^0+(?=\d)/, ""), other.replace(/^0+(?=\d)/, "")];
  return first.length - second.length || compareTexts(first, second);
}

function compareTexts(one: string, other: string): number {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}
