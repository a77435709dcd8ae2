import type * as v from "valibot";

/** What a validation found wrong, for a person: at most three findings, each bounded. */
export function describeIssues(issues: readonly v.BaseIssue<unknown>[]): string {
  const shown = issues.slice(0, 3).map((issue) => {
    const path = issue.path?.map((item) => String(item.key)).join(".") ?? "";
    const place = path === "" ? "" : `${path}: `;
    const expected = issue.expected === null ? issue.message : `expected ${issue.expected}`;
    return `${place}${expected}, received ${issue.received}`.slice(0, 200);
  });
  const more = issues.length > 3 ? ` (and ${issues.length - 3} more)` : "";
  return `${shown.join("; ")}${more}`;
}
