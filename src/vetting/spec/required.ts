import type { Stage, StageReport } from "../protocol-result.ts";
import { stages } from "../protocol-result.ts";
import type { RuleFinding, Spec } from "../protocol-spec.ts";
import { cut } from "./match.ts";

/** What a spec wants to have been seen, held against what the stages came to. Pure. */

/** Of each stage the last result; a run under way has not all of them. */
export type LastReports = Partial<Readonly<Record<Stage, StageReport>>>;

/** A finding for each property that a stage which is walked must have seen. */
export function validateRequired(
  spec: Pick<Spec, "stages">,
  reports: LastReports,
): readonly RuleFinding[] {
  return stages.flatMap((stage) => {
    const { enabled, required } = spec.stages[stage];
    return required.map((property): RuleFinding => {
      const missed = enabled ? missedOf(property, reports[stage]) : "the stage is not walked";
      return {
        path: cut(`stages.${stage}.required[${property}]`),
        rule: "seen",
        expected: `${property} was seen`,
        found: cut(missed === undefined ? "seen" : `not seen: ${missed}`),
        outcome: missed === undefined ? "PASS" : "FAIL",
        because: null,
      };
    });
  });
}

function missedOf(property: string, report: StageReport | undefined): string | undefined {
  if (report === undefined) return "the stage has no result";
  const finding = report.findings.find(
    ({ code, expected }) => notSeenCodes.includes(code) && expected === property,
  );
  if (finding !== undefined) return `${finding.component}: ${finding.message}`;
  return report.outcome === "SKIP" ? `the stage was skipped: ${report.summary}` : undefined;
}

/** By these a stage says what it could not look at; `expected` is the property's name. */
const notSeenCodes: readonly string[] = ["not-seen", "required-not-seen"];
