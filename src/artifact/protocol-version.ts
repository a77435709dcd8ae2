import * as v from "valibot";

/** Semantic Versioning 2.0.0, without build metadata. */
export const artifactVersionSchema = v.pipe(
  v.string(),
  v.maxLength(64),
  v.regex(
    /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$/,
    "a version such as 1.4.0 or 1.5.0-rc.1",
  ),
);

/**
 * Which of two versions is the higher one: section 11 of Semantic Versioning 2.0.0.
 * @returns a number below 0, 0, or above 0
 */
export function compareVersions(one: string, other: string): number {
  const [left, right] = [split(one), split(other)];
  for (const [index, part] of left.numbers.entries()) {
    const difference = compareNumbers(part, right.numbers[index] ?? "0");
    if (difference !== 0) return difference;
  }
  // 1.0.0-rc.1 comes before 1.0.0.
  if (left.early.length === 0 || right.early.length === 0) {
    return Math.sign(right.early.length - left.early.length);
  }
  for (const [index, part] of left.early.entries()) {
    const beside = right.early[index];
    if (beside === undefined) return 1;
    const difference = compareParts(part, beside);
    if (difference !== 0) return difference;
  }
  return left.early.length < right.early.length ? -1 : 0;
}

function split(version: string): { readonly numbers: string[]; readonly early: string[] } {
  const dash = version.indexOf("-");
  const core = dash < 0 ? version : version.slice(0, dash);
  const early = dash < 0 ? [] : version.slice(dash + 1).split(".");
  return { numbers: core.split("."), early };
}

/** Numbers come before words. */
function compareParts(one: string, other: string): number {
  const [isNumber, isOtherNumber] = [/^\d+$/.test(one), /^\d+$/.test(other)];
  if (isNumber && isOtherNumber) return compareNumbers(one, other);
  if (isNumber !== isOtherNumber) return isNumber ? -1 : 1;
  return one < other ? -1 : Number(one > other);
}

/** As texts: a number of 60 digits has no other exact form here. */
function compareNumbers(one: string, other: string): number {
  const [left, right] = [one.replace(/^0+(?=\d)/, ""), other.replace(/^0+(?=\d)/, "")];
  if (left.length !== right.length) return left.length < right.length ? -1 : 1;
  return left < right ? -1 : Number(left > right);
}
