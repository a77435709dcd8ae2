import * as v from "valibot";
import {
  type Coverage,
  type Delta,
  type Engine,
  type Evidence,
  type Finding,
  type Measurement,
  type Outcome,
  resultLimits,
  type StageReport,
  worstOf,
} from "../protocol-result.ts";
import type { TaskEnding } from "../protocol-task.ts";
import type { StageDone } from "./stage.ts";

/** What the judges of all stages say in the same words. */

/** What a judge has told so far. */
export interface Told {
  readonly findings: Finding[];
  readonly coverage: Coverage[];
  readonly engines: Engine[];
  readonly measurements: Measurement[];
  readonly evidence: Evidence[];
}

export const emptyTold = (): Told => ({
  findings: [],
  coverage: [],
  engines: [],
  measurements: [],
  evidence: [],
});

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

/** What a person needs to believe that nothing ends it, or to see of what it died. */
export function evidenceOf({
  plan: { component },
  ending,
}: StageDone["tasks"][number]): Evidence[] {
  if (ending.kind === "stuck") return [{ name: "stack", component, text: ending.stack }];
  if (ending.kind !== "died" || ending.lastWords === "") return [];
  return [{ name: "last-output", component, text: ending.lastWords }];
}

/** A task's report; or undefined, with a finding and evidence of why there is none. */
export function reportOf<Schema extends v.GenericSchema>(
  schema: Schema,
  { plan, ending }: StageDone["tasks"][number],
  what: string,
  told: Told,
): v.InferOutput<Schema> | undefined {
  const { component } = plan;
  if (ending.kind !== "report") {
    told.findings.push(unreported(what, component, ending));
    told.evidence.push(...evidenceOf({ plan, ending }));
    return undefined;
  }
  const parsed = v.safeParse(schema, ending.report);
  if (parsed.success) return parsed.output;
  const message = `${what} reported what is none: ${parsed.issues[0].message}`;
  told.findings.push(finding("ERROR", "malformed-report", component, message));
  return undefined;
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

/** Tells what was looked at, and where it was too little, that as well. */
export function cover(
  told: Pick<Told, "coverage" | "findings">,
  coverage: Coverage,
  what: string,
): void {
  told.coverage.push(coverage);
  const little = tooLittle(coverage, what);
  if (little !== undefined) told.findings.push(little);
}

type Source = Delta["source"];

/** What no stage may cause, and what is worth a look wherever it happens. */
const common: Partial<Record<Source, readonly ["FAIL" | "WARN", string]>> = {
  "machine-check": ["FAIL", "Machine checks"],
  "memory-uncorrected": ["FAIL", "Errors of memory that nothing corrected"],
  "memory-corrected": ["WARN", "Errors of memory that were corrected"],
  "pcie-fatal": ["FAIL", "Fatal errors of PCI Express"],
  "pcie-nonfatal": ["FAIL", "Errors of PCI Express that nothing corrected"],
  "pcie-correctable": ["WARN", "Errors of PCI Express that were corrected"],
  "kernel-log": ["WARN", "Faults of hardware that the kernel's log names"],
};

/**
 * Counters that rose, or went back, while a stage ran.
 * @param judgedElsewhere of these, by limits of the stage, only that one went back is said here
 */
export function* commonDeltas(
  { deltas }: StageDone,
  judgedElsewhere: readonly Source[],
): Generator<Finding> {
  for (const { source, component, before, after } of deltas) {
    if (after < before) {
      const message = `The counter ${source} went back: this host has forgotten what it counted`;
      const details = { expected: `at least ${before}`, found: `${after}` };
      yield finding("WARN", "counter-reset", component, message, details);
      continue;
    }
    const [outcome, what] = common[source] ?? [];
    if (outcome === undefined || after === before || judgedElsewhere.includes(source)) continue;
    const message = `${what} while this stage ran`;
    const details = { expected: "0", found: `${after - before}` };
    yield finding(outcome, source, component, message, details);
  }
}

/** Sensors and counters that fell silent: nothing of them is taken for well. */
export function* missingSensors({ missing }: StageDone): Generator<Finding> {
  for (const { key, reason } of missing) {
    const message = `${key} told something before, and nothing while this stage ran: ${reason}`;
    yield finding("WARN", "sensor-missing", key, message);
  }
}

/** A report whose outcome is the worst of its findings, within what a result may carry. */
export function stageReport(
  found: Omit<StageReport, "outcome" | "deltas"> & Pick<StageReport, "deltas">,
): StageReport {
  const { findings, coverage, engines, measurements, deltas, evidence } = found;
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
    evidence: evidence
      .slice(0, resultLimits.pieces)
      .map((piece) => ({ ...piece, text: shortened(piece.text, resultLimits.evidence) })),
  };
}

/** What must not fall out of a list that is too long stands first. */
function weight({ outcome }: Finding): number {
  return { PASS: 0, SKIP: 1, WARN: 2, FAIL: 3, ERROR: 4 }[outcome];
}
