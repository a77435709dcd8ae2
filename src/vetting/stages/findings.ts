import type { Coverage, Finding, Outcome, StageReport } from "../protocol-result.ts";
import { resultLimits, worstOf } from "../protocol-result.ts";
import type { TaskEnding } from "../protocol-task.ts";

/** What the judges of all stages say in the same words. */

/** The text, or its beginning where it is longer than a result may carry. */
export function shortened(text: string, most: number = resultLimits.text): string {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

export function finding(
  outcome: Outcome,
  code: string,
  component: string,
  message: string,
  details: { readonly expected?: string; readonly found?: string } = {},
): Finding {
  const { expected, found } = details;
  return {
    outcome,
    code,
    component: shortened(component, resultLimits.name),
    message: shortened(message),
    expected: expected === undefined ? null : shortened(expected),
    found: found === undefined ? null : shortened(found),
  };
}

/**
 * A property that could not be looked at, by its name in the settings' `required`: a SKIP, or a
 * FAIL where the spec requires it.
 */
export function notSeen(
  property: string,
  component: string,
  reason: string,
  required: readonly string[],
): Finding {
  if (!required.includes(property)) {
    return finding("SKIP", "not-seen", component, `${property} was not seen: ${reason}`, {
      expected: property,
    });
  }
  const message = `${property} is required, and was not seen: ${reason}`;
  return finding("FAIL", "required-not-seen", component, message, { expected: property });
}

/** What a task comes to that did not report: the test broke, or was ended. */
export function unreported(
  what: string,
  component: string,
  ending: Exclude<TaskEnding, { readonly kind: "report" }>,
): Finding {
  switch (ending.kind) {
    case "failure":
      return finding("ERROR", "task-failed", component, `${what}: ${ending.message}`);
    case "overdue": {
      const done = ending.total > 0 ? `, with ${ending.done} of ${ending.total} done` : "";
      return finding("ERROR", "overdue", component, `${what} did not end in its time${done}`);
    }
    case "died":
      return finding(
        "ERROR",
        "task-died",
        component,
        `${what} died: ${ending.how}. Its last words: ${ending.lastWords || "none"}`,
      );
    case "stuck":
      return finding(
        "ERROR",
        "stuck-in-kernel",
        component,
        `${what} hangs in the kernel (${ending.wait || "nobody says where"}), and nothing ends it`,
      );
    case "cancelled":
      return finding("SKIP", "cancelled", component, `${what} was cancelled`);
  }
}

/** A part of something in percent, never rounded up to what it is not. */
export function percent(covered: number, total: number): string {
  return total === 0 ? "0 %" : `${Math.floor((covered / total) * 1_000) / 10} %`;
}

/** undefined where enough was looked at. Of an unknown total nobody can say that it was. */
export function tooLittle(coverage: Coverage, what: string): Finding | undefined {
  const { component, covered, total, least, unit } = coverage;
  const expected = `at least ${Math.round(least * 1_000) / 10} % of ${total ?? "all"} ${unit}`;
  if (total === null) {
    if (least === 0) return undefined;
    const message = `Nobody knows how much of ${what} there is, so ${covered} ${unit} may be all`;
    return finding("WARN", "coverage", component, message, { expected, found: `${covered}` });
  }
  if (covered >= least * total) return undefined;
  const found = `${covered} ${unit}, ${percent(covered, total)}`;
  return finding("WARN", "coverage", component, `Too little of ${what} was looked at`, {
    expected,
    found,
  });
}

/** A report whose outcome is the worst of its findings, within what a result may carry. */
export function stageReport(
  found: Omit<StageReport, "outcome" | "deltas"> & Pick<StageReport, "deltas">,
): StageReport {
  const { findings, coverage, engines, measurements, deltas } = found;
  const outcome = worstOf(findings.map((one) => one.outcome));
  const kept = [...findings].sort((one, other) => weight(other) - weight(one));
  return {
    ...found,
    outcome,
    summary: shortened(found.summary),
    findings: kept.slice(0, resultLimits.findings),
    coverage: coverage.slice(0, resultLimits.coverage),
    engines: engines.slice(0, resultLimits.engines),
    measurements: measurements.slice(0, resultLimits.measurements),
    deltas: deltas.slice(0, resultLimits.deltas),
  };
}

/** What must not fall out of a list that is too long stands first. */
function weight({ outcome }: Finding): number {
  return { PASS: 0, SKIP: 1, WARN: 2, FAIL: 3, ERROR: 4 }[outcome];
}
