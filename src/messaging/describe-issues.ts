import type * as v from "valibot";

/** Findings that are told, and letters of what is told of one. */
const MOST_FINDINGS = 3;
const LONGEST_PART = 200;

/** One thing that a validation found wrong, for a person; bounded. */
export interface Finding {
  /** What was expected, and in which part of the message. */
  readonly expected: string;
  readonly received: string;
}

/** Where valibot names no expectation, and its message repeats what was received. */
const expectations: Readonly<Record<string, string>> = {
  safe_integer: "a whole number",
  integer: "a whole number",
  finite: "a finite number",
};

/** What was expected there. */
export function wantedBy(issue: v.BaseIssue<unknown>): string {
  const { expected, received, path, message } = issue;
  // A member that is missing is "expected" by its own name, in quotes, in the place of itself.
  const key = path?.at(-1)?.key;
  const isMissing = received === "undefined" && expected === `"${String(key)}"`;
  if (isMissing) return "a value";
  if (expected === "never") return "no such key";
  // Words of a schema's own say more than its pattern; valibot's begin with "Invalid".
  if (!message.startsWith("Invalid ")) return message.replace(/^Expected /, "");
  return expected ?? expectations[issue.type] ?? issue.message;
}

function findingOf(issue: v.BaseIssue<unknown>): Finding {
  const path = issue.path?.map((item) => String(item.key)).join(".") ?? "";
  const wanted = wantedBy(issue);
  return {
    expected: (path === "" ? wanted : `${wanted} in ${path}`).slice(0, LONGEST_PART),
    received: issue.received.slice(0, LONGEST_PART),
  };
}

/** The first of what a validation found wrong. */
export function firstFinding(issues: readonly [v.BaseIssue<unknown>, ...unknown[]]): Finding {
  return findingOf(issues[0]);
}

/** What a validation found wrong with a message, in the words of every daemon's refusals. */
export function describeIssues(issues: readonly v.BaseIssue<unknown>[]): string {
  const shown = issues.slice(0, MOST_FINDINGS).map((issue) => {
    const { expected, received } = findingOf(issue);
    return `expected ${expected}, received ${received}`;
  });
  const more = issues.length - shown.length;
  return `${shown.join("; ")}${more > 0 ? ` (and ${more} more)` : ""}`;
}
