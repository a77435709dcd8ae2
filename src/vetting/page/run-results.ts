import type { KeptResult } from "../protocol-operator.ts";
import { badge, element, table } from "./dom.ts";
import { bytesText, percentText, valueText } from "./format.ts";

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
  const count = attempt > 1 ? `, attempt ${attempt}` : "";
  return element(
    "section",
    { id: stage },
    element(
      "details",
      { open: !isWell },
      element("summary", {}, element("h2", {}, `${stage}${count} `, badge(outcome))),
      element("p", {}, report.summary),
      table(sorted.slice(0, 200), [
        { title: "outcome", cell: (one) => badge(one.outcome) },
        { title: "of", cell: ({ component }) => component },
        { title: "what", cell: ({ message }) => message },
        { title: "expected", cell: ({ expected }) => expected ?? "" },
        { title: "found", cell: ({ found }) => found ?? "" },
      ]),
      coverage.length === 0 ? undefined : coverageTable(coverage),
      measurements.length === 0 ? undefined : measurementTable(measurements),
      ...evidence.map(({ name, component, text }) =>
        element(
          "div",
          {},
          element("h3", {}, `${name} of ${component}`),
          element("pre", { tabindex: 0 }, text),
        ),
      ),
    ),
  );
}

function coverageTable(coverage: KeptResult["report"]["coverage"]): HTMLElement {
  const amount = (value: number, unit: string) =>
    unit === "bytes" ? bytesText(value) : `${valueText(value)} ${unit}`;
  return table(coverage, [
    { title: "looked at", cell: ({ component }) => component },
    { title: "so much", isNumber: true, cell: ({ covered, unit }) => amount(covered, unit) },
    {
      title: "of",
      isNumber: true,
      cell: ({ total, unit }) => (total === null ? "nobody knows" : amount(total, unit)),
    },
    {
      title: "part",
      isNumber: true,
      cell: ({ covered, total }) =>
        total === null || total === 0 ? "" : percentText(covered / total),
    },
  ]);
}

function measurementTable(measurements: KeptResult["report"]["measurements"]): HTMLElement {
  return table(measurements.slice(0, 200), [
    { title: "measured", cell: ({ name }) => name },
    { title: "of", cell: ({ component }) => component },
    { title: "value", isNumber: true, cell: ({ value, unit }) => `${valueText(value)} ${unit}` },
  ]);
}
