import { formatBytes } from "../../units/bytes.ts";
import { type Dossier, type KeptResult, stateWord } from "../protocol-operator.ts";
import type { StageReport } from "../protocol-result.ts";
import { specDiff } from "../spec/diff.ts";
import type { Calendar } from "./calendar.ts";
import { type Chart, type ChartBand, type ChartLine, drawChart } from "./chart.ts";
import { html, type Markup } from "./escape.ts";
import { inventorySection } from "./inventory-section.ts";
import { reportStyle } from "./style.ts";
import { badge, facts, table } from "./tables.ts";

/** A run as one file of HTML that needs nothing else: no script, no fetch. Pure. */

export function htmlText(dossier: Dossier, calendar: Calendar): string {
  const { view } = dossier;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${view.host}, run ${view.run}: ${view.verdict ?? view.state}</title>
<style>${{ markup: reportStyle }}</style>
</head>
<body>
${headSection(dossier)}
${stagesSection(dossier)}
${chartsSection(dossier, calendar)}
${specSection(dossier)}
${dossier.results.map((result, index) => resultSection(result, index))}
${dossier.inventory === null ? undefined : inventorySection(dossier.inventory)}
${eventsSection(dossier)}
${logSection(dossier)}
${chainSection(dossier)}
</body>
</html>
`;
  return page.markup;
}

function headSection({ view, orchestrator }: Dossier): Markup {
  const verdict = view.verdict ?? "open";
  return html`<header>
<h1>${view.host} <span class="badge verdict ${verdict}">${verdict}</span></h1>
${view.reason === "" ? undefined : html`<p>${view.reason}</p>`}
${facts([
  ["run", view.run],
  ["boots from", view.mac],
  ["spec", `${view.spec}, revision ${view.spec_revision}`],
  ["state", stateWord(view)],
  ["overridden", view.overrides.length === 0 ? null : view.overrides.join(", ")],
  ["created", view.created],
  ["ended", view.ended],
  ["address", view.address],
  ["agent", view.agent_version],
  ["vetted by", `${orchestrator.name}, hostler ${orchestrator.version}`],
  ["lost on the way", view.dropped === 0 ? null : `${view.dropped} lines and readings`],
])}</header>`;
}

function stagesSection({ view, results }: Dossier): Markup {
  const last = new Map(results.map((result) => [result.stage, result]));
  return html`<section>
<h2>Stages</h2>
${table(view.stages, [
  { title: "stage", cell: ({ stage }) => stage },
  {
    title: "outcome",
    cell: ({ stage, outcome }) => {
      if (outcome === null) return "—";
      return html`${badge(outcome)}${view.overrides.includes(stage) ? " overridden" : undefined}`;
    },
  },
  { title: "what came of it", cell: ({ summary }) => summary },
  { title: "attempts", isNumber: true, cell: ({ attempts }) => attempts },
  {
    title: "took",
    isNumber: true,
    cell: ({ stage }) => durationText(last.get(stage)?.duration_ms),
  },
])}</section>`;
}

/** "2 h 3 min", "3 min 5 s", "0.4 s". */
export function durationText(milliseconds: number | undefined): string {
  if (milliseconds === undefined) return "";
  if (milliseconds < 60_000) return `${Math.round(milliseconds / 100) / 10} s`;
  const seconds = Math.round(milliseconds / 1_000);
  const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor((seconds % 3_600) / 60)];
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${seconds % 60} s`;
}

const charted = [
  { kind: "temperature", title: "Temperatures" },
  { kind: "power", title: "Power" },
  { kind: "fan", title: "Fans" },
] as const;

function chartsSection(dossier: Dossier, calendar: Calendar): Markup | undefined {
  const bands = bandsOf(dossier.results, calendar);
  const sensorCharts = charted.map(({ kind, title }): Chart => {
    const series = dossier.sensors.filter((one) => one.kind === kind);
    const criticals = new Set(series.flatMap(({ critical }) => critical ?? []));
    return {
      title,
      unit: series[0]?.unit ?? "",
      lines: hottestFirst(series.map(({ key, points }) => ({ name: key, points }))),
      bands,
      marks: [...criticals].map((value) => ({ name: "critical", value })),
    };
  });
  const errors: Chart = {
    ...{ title: "Errors that were counted", unit: "sum", bands, marks: [] },
    lines: errorLines(dossier, calendar),
  };
  const charts = [...sensorCharts, errors].flatMap((chart) => drawChart(chart) ?? []);
  if (charts.length === 0) return undefined;
  return html`<section><h2>While it worked</h2>
${charts}</section>`;
}

/** Of more lines than are drawn, those that came the highest. */
function hottestFirst(lines: readonly ChartLine[]): readonly ChartLine[] {
  const peak = ({ points }: ChartLine) =>
    points.reduce((most, [, value]) => Math.max(most, value), Number.NEGATIVE_INFINITY);
  return lines.toSorted((left, right) => peak(right) - peak(left));
}

function bandsOf(results: readonly KeptResult[], calendar: Calendar): ChartBand[] {
  return results.flatMap(({ stage, attempt, started, ended }) => {
    const [from, until] = [calendar.millisecondsOf(started), calendar.millisecondsOf(ended)];
    if (!(until >= from)) return [];
    return [{ name: attempt === 1 ? stage : `${stage} ${attempt}`, from, until }];
  });
}

/** As they were told while it worked; else by the stages, at whose ends they are known. */
function errorLines({ sensors, results }: Dossier, calendar: Calendar): ChartLine[] {
  const told = sensors.filter(({ kind }) => kind === "errors");
  if (told.length > 0) return told.map(({ key, points }) => ({ name: key, points }));
  const sources = new Set(
    results.flatMap(({ report }) => report.deltas.map(({ source }) => source)),
  );
  return [...sources].map((source) => {
    let sum = 0;
    const points = results.flatMap(({ started, ended, report }): [number, number][] => {
      const before = sum;
      for (const delta of report.deltas) {
        if (delta.source === source) sum += Math.max(0, delta.after - delta.before);
      }
      return [
        [calendar.millisecondsOf(started), before],
        [calendar.millisecondsOf(ended), sum],
      ];
    });
    return { name: source, points: points.filter(([at]) => Number.isFinite(at)) };
  });
}

function specSection({ spec, rules, inventory, view }: Dossier): Markup {
  const broken = rules.filter(({ outcome }) => outcome !== "PASS");
  const held = rules.length - broken.length;
  const free = inventory === null ? [] : specDiff(spec, inventory).flatMap((part) => part.free);
  const words =
    rules.length === 0
      ? "No rule was held against this host."
      : `${held} of ${rules.length} rules hold; the spec says nothing of ${free.length} facts.`;
  return html`<section>
<h2>Spec ${view.spec}</h2>
<p>${words}</p>
${table(
  [...broken, ...rules.filter(({ outcome }) => outcome === "PASS")],
  [
    { title: "", cell: ({ outcome }) => badge(outcome) },
    { title: "place", cell: ({ path }) => html`<code>${path}</code>` },
    { title: "expected", cell: ({ expected }) => expected },
    { title: "found", cell: ({ found }) => found },
    { title: "because", cell: ({ because }) => because ?? "" },
  ],
)}</section>`;
}

function resultSection(result: KeptResult, index: number): Markup {
  const { stage, attempt, report, started, ended, source, cancelled, duration_ms } = result;
  const notes = [
    ...(source === "orchestrator" ? ["written by the orchestrator"] : []),
    ...(cancelled ? ["cancelled"] : []),
  ];
  return html`<section id="result-${index}">
<h2>${stage}${attempt > 1 ? `, attempt ${attempt}` : ""} ${badge(report.outcome)}</h2>
<p>${report.summary}</p>
<p class="faint">${started} to ${ended}, ${durationText(duration_ms)}${
    notes.length === 0 ? "" : `; ${notes.join(", ")}`
  }</p>
${reportTables(report)}</section>
`;
}

function reportTables(report: StageReport): Markup {
  const { findings, coverage, measurements, deltas, engines, evidence } = report;
  return html`${titled("Findings", findingsTable(findings))}${titled(
    "Coverage",
    table(coverage, [
      { title: "of", cell: ({ component }) => component },
      { title: "looked at", isNumber: true, cell: (one) => amountText(one.covered, one.unit) },
      {
        title: "there is",
        isNumber: true,
        cell: ({ total, unit }) => (total === null ? "nobody knows" : amountText(total, unit)),
      },
      {
        title: "part",
        isNumber: true,
        cell: ({ covered, total }) => (total === null ? "" : percentText(covered, total)),
      },
      { title: "least", isNumber: true, cell: ({ least }) => percentText(least, 1) },
    ]),
  )}${titled(
    "Measured",
    table(measurements, [
      { title: "what", cell: ({ name }) => name },
      { title: "of", cell: ({ component }) => component },
      { title: "value", isNumber: true, cell: ({ value, unit }) => `${valueText(value)} ${unit}` },
    ]),
  )}${titled(
    "Counters that changed",
    table(deltas, [
      { title: "counter", cell: ({ source }) => source },
      { title: "of", cell: ({ component }) => component },
      { title: "before", isNumber: true, cell: ({ before }) => before },
      { title: "after", isNumber: true, cell: ({ after }) => after },
    ]),
  )}${titled(
    "By these",
    table(engines, [
      { title: "task", cell: ({ task }) => task },
      { title: "engine", cell: ({ engine }) => engine },
      { title: "version", cell: ({ version }) => version ?? "" },
    ]),
  )}${evidence.map(
    ({ name, component, text }) => html`<h3>${name} of ${component}</h3>
<pre>${text}</pre>
`,
  )}`;
}

function findingsTable(findings: StageReport["findings"]): Markup | undefined {
  const sorted = findings.toSorted((left, right) => gravity(right) - gravity(left));
  return table(sorted, [
    { title: "", cell: ({ outcome }) => badge(outcome) },
    { title: "of", cell: ({ component }) => component },
    { title: "what", cell: ({ message, code }) => html`${message} <code>${code}</code>` },
    { title: "expected", cell: ({ expected }) => expected ?? "" },
    { title: "found", cell: ({ found }) => found ?? "" },
  ]);
}

const gravity = ({ outcome }: StageReport["findings"][number]) =>
  ["PASS", "SKIP", "WARN", "FAIL", "ERROR"].indexOf(outcome);

function titled(title: string, content: Markup | undefined): Markup | undefined {
  return content === undefined
    ? undefined
    : html`<h3>${title}</h3>
${content}`;
}

function amountText(amount: number, unit: string): string {
  return unit === "bytes" ? formatBytes(amount) : `${valueText(amount)} ${unit}`;
}

export function valueText(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : 2;
  return String(Number(value.toFixed(digits)));
}

/** Never rounded up to what it is not. */
function percentText(covered: number, total: number): string {
  if (total === 0) return "";
  return `${Math.floor((covered / total) * 1_000) / 10} %`;
}

function eventsSection({ events }: Dossier): Markup {
  return html`<section>
<h2>What happened</h2>
${table(events, [
  { title: "", isNumber: true, cell: ({ sequence }) => sequence },
  { title: "at", cell: ({ at }) => at },
  { title: "who", cell: ({ who }) => who },
  { title: "what", cell: ({ what }) => what },
  { title: "state", cell: ({ state }) => state },
  { title: "words", cell: ({ message }) => message },
])}</section>`;
}

function logSection({ log }: Dossier): Markup | undefined {
  if (log.length === 0) return undefined;
  const lines = log.map(
    ({ time, level, stage, text }) => `${time} ${level.padEnd(6)} ${stage ?? "-"}: ${text}`,
  );
  return html`<section>
<h2>The end of its log</h2>
<pre>${lines.join("\n")}</pre></section>`;
}

function chainSection({ results }: Dossier): Markup {
  return html`<section>
<h2>Chain of results</h2>
<p>Each hash is of its record with the hash before it. <code>hostler vetting report verify</code>
holds them against report.json, and the files against the signature of the orchestrator.</p>
${table(results, [
  { title: "result", cell: ({ stage, attempt }) => `${stage}, attempt ${attempt}` },
  { title: "SHA-256", cell: ({ hash }) => html`<code>${hash}</code>` },
])}</section>`;
}
