import type { KeptResult } from "../protocol-operator.ts";
import { badge, element, table } from "./dom.ts";
import { bytesText, percentText, valueText } from "./format.ts";
import { isOfMatrix, matrixOf, matrixTable } from "./run-matrix.ts";

/** What each stage found, of its last attempt; what is not well stands first. */

const gravity = ["ERROR", "FAIL", "WARN", "SKIP", "PASS"];

export function resultSections(results: readonly KeptResult[]): HTMLElement[] {
  const last = new Map(results.map((result) => [result.stage, result]));
  return [...last.values()].map(resultSection);
}

function resultSection({ stage, attempt, report }: KeptResult): HTMLElement {
  const { findings, coverage, measurements, evidence, outcome } = report;
  const sorted = findings.toSorted(
    (left, right) => gravity.indexOf(left.outcome) - gravity.indexOf(right.outcome),
  );
  const isWell = outcome === "PASS" || outcome === "SKIP";
  const matrix = matrixOf(report);
  const others = measurements.filter((one) => !isOfMatrix(one));
  const count = attempt > 1 ? `, attempt ${attempt}` : "";
  return element(
    "section",
    { id: stage },
    element(
      "details",
      { open: !isWell, "data-key": `result ${stage}` },
      element("summary", {}, element("h3", {}, `${stage}${count} `, badge(outcome))),
      element("p", {}, report.summary),
      table(
        sorted.slice(0, 200),
        [
          { title: "outcome", kind: "tight", cell: (one) => badge(one.outcome) },
          { title: "of", cell: ({ component }) => component },
          { title: "what", cell: ({ message }) => message },
          { title: "expected", cell: ({ expected }) => expected ?? "" },
          { title: "found", cell: ({ found }) => found ?? "" },
        ],
        `what ${stage} found`,
      ),
      sorted.length > 200
        ? element("p", { class: "faint" }, `${sorted.length - 200} more stand in the report.`)
        : undefined,
      coverage.length === 0 ? undefined : coverageTable(coverage),
      matrix && matrixTable(matrix),
      others.length === 0 ? undefined : measurementTable(others),
      ...evidence.map(({ name, component, text }) =>
        element(
          "div",
          {},
          element("h4", {}, `${name} of ${component}`),
          element("pre", { tabindex: 0 }, text),
        ),
      ),
    ),
  );
}

function coverageTable(coverage: KeptResult["report"]["coverage"]): HTMLElement {
  const amount = (value: number, unit: string) =>
    unit === "bytes" ? bytesText(value) : `${valueText(value)} ${unit}`;
  return table(
    coverage,
    [
      { title: "looked at", cell: ({ component }) => component },
      { title: "so much", kind: "number", cell: ({ covered, unit }) => amount(covered, unit) },
      {
        title: "of",
        kind: "number",
        cell: ({ total, unit }) => (total === null ? "nobody knows" : amount(total, unit)),
      },
      {
        title: "part",
        kind: "number",
        cell: ({ covered, total }) =>
          total === null || total === 0 ? "" : percentText(covered / total),
      },
    ],
    "coverage",
  );
}

function measurementTable(measurements: KeptResult["report"]["measurements"]): HTMLElement {
  return table(
    measurements.slice(0, 200),
    [
      { title: "measured", cell: ({ name }) => name },
      { title: "of", cell: ({ component }) => component },
      { title: "value", kind: "number", cell: ({ value, unit }) => `${valueText(value)} ${unit}` },
    ],
    "measurements",
  );
}
