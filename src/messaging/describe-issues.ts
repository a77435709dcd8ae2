import type * as v from "valibot";
import { wantedBy } from "../units/wanted-by.ts";

/** Findings that are told, and letters of what is told of one. */
const MOST_FINDINGS = 3;
const LONGEST_PART = 200;

/** One thing that a validation found wrong, for a person; bounded. */
export interface Finding {
  /** What was expected, and in which part of the message. */
  readonly expected: string;
  readonly received: string;
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
