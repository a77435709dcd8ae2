import { renderTable } from "../../command-line/table.ts";
import { isHindering, summarize, type TargetFinding } from "../target-findings.ts";

/** For people: what was found of a target, what to mend, and whether it is loaded. */
export function renderTargetFindings(findings: readonly TargetFinding[]): string {
  const rows = findings.map(({ check, status, found, expected }) => [
    check,
    status,
    found,
    expected,
  ]);
  const mends = findings
    .filter(({ mend }) => mend !== null)
    .map(({ check, mend }) => `${check}: ${mend}\n`);
  return [
    renderTable(["check", "status", "found", "expected"], rows),
    mends.length === 0 ? "" : `\nTo mend:\n${mends.join("")}`,
    `\n${verdict(findings)}\n`,
  ].join("");
}

function verdict(findings: readonly TargetFinding[]): string {
  const { loads, forceable } = summarize(findings);
  if (loads) return "This kernel can be loaded.";
  const names = (list: readonly TargetFinding[]) => list.map(({ check }) => check).join(", ");
  const hindering = findings.filter(isHindering);
  if (forceable) return `This kernel is loaded only with --force: ${names(hindering)}.`;
  const final = hindering.filter(({ force }) => !force);
  return `This kernel cannot be loaded, --force or not: ${names(final)}.`;
}
