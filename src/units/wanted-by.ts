import type * as v from "valibot";

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

/** What stood there, of whoever may read it: a list or a table is shown as JSON, and not as one. */
export function receivedBy({ received, input }: v.BaseIssue<unknown>, longest: number): string {
  const isCompound = typeof input === "object" && input !== null;
  const shown = (isCompound ? JSON.stringify(input) : undefined) ?? received;
  return shown.length <= longest ? shown : `${shown.slice(0, longest - 1)}…`;
}
