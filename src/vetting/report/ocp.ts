import type { Inventory } from "../../hardware/inventory.ts";
import type { Dossier, KeptResult } from "../protocol-operator.ts";
import type { Finding, Outcome } from "../protocol-result.ts";
import type { Calendar } from "./calendar.ts";

/**
 * A run as the Open Compute Project's test and validation output, version 2.0: lines of JSON, each
 * with its number and its time. https://github.com/opencomputeproject/ocp-diag-core, json_spec.
 * Each attempt at a stage is a step; SpecValidate is one as well. Pure.
 */

interface Line {
  readonly timestamp: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Values of a measurement series: more of one sensor stand in the JSON alone. */
export const SERIES_ELEMENTS = 1_000;

export function ocpText(dossier: Dossier, calendar: Calendar): string {
  const lines = linesOf(dossier, calendar).map(({ timestamp, body }, sequenceNumber) =>
    JSON.stringify({ sequenceNumber, timestamp, ...body }),
  );
  return lines.map((line) => `${line}\n`).join("");
}

function linesOf(dossier: Dossier, calendar: Calendar): Line[] {
  const { view, rules, results } = dossier;
  const begin = view.created;
  const end = view.ended ?? view.changed;
  const run = (timestamp: string, artifact: object): Line => ({
    timestamp,
    body: { testRunArtifact: artifact },
  });
  const lines: Line[] = [
    { timestamp: begin, body: { schemaVersion: { major: 2, minor: 0 } } },
    run(begin, { testRunStart: startOf(dossier) }),
  ];
  for (const [index, result] of results.entries()) {
    lines.push(...stepOf(`step${index}`, result, dossier));
    if (result.stage === "Inventory" && result === lastInventory(results) && rules.length > 0) {
      lines.push(...rulesStep(dossier, result.ended));
    }
  }
  lines.push(...seriesSteps(dossier, end, calendar));
  if (view.reason !== "") {
    const severity = view.verdict === "passed" ? "INFO" : "WARNING";
    lines.push(run(end, { log: { severity, message: view.reason } }));
  }
  lines.push(run(end, { testRunEnd: endOf(dossier) }));
  return lines;
}

const lastInventory = (results: readonly KeptResult[]) =>
  results.findLast(({ stage }) => stage === "Inventory");

function startOf({ view, spec, inventory, orchestrator }: Dossier) {
  return {
    name: "hostler vetting",
    version: orchestrator.version,
    commandLine: "hostler vetting agent",
    parameters: {
      run: view.run,
      spec: spec.name,
      specRevision: view.spec_revision,
      stages: spec.stages,
    },
    dutInfo: {
      dutInfoId: view.mac,
      name: view.host,
      ...(inventory !== null && {
        platformInfos: platformsOf(inventory),
        softwareInfos: softwareOf(inventory),
        hardwareInfos: hardwareOf(inventory),
      }),
    },
  };
}

function platformsOf({ system }: Inventory) {
  const words = [system.manufacturer, system.product].filter((word) => word !== null);
  return words.length === 0 ? [] : [{ info: words.join(" ") }];
}

function softwareOf({ firmware, kernel, bmc }: Inventory) {
  const optional = (name: string, version: string | null | undefined, id: string) => ({
    name,
    softwareInfoId: id,
    softwareType: "FIRMWARE",
    ...(typeof version === "string" && { version }),
  });
  return [
    { name: "Linux", version: kernel.release, softwareInfoId: "kernel", softwareType: "SYSTEM" },
    optional(firmware.boot === "uefi" ? "UEFI" : "BIOS", firmware.version, "firmware"),
    ...(bmc === null ? [] : [optional("BMC", bmc.firmware, "bmc")]),
  ];
}

/** Facts of a component that the host tells. */
function described(facts: Readonly<Record<string, string | null>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(facts).filter((fact): fact is [string, string] => fact[1] !== null),
  );
}

function hardwareOf(inventory: Inventory) {
  const { processors, memory, disks, network, graphics, power_supplies } = inventory;
  return [
    ...processors.map(({ socket, vendor, model }) => ({
      hardwareInfoId: `processor ${socket}`,
      ...{ name: socket, partType: "processor", location: socket },
      ...described({ manufacturer: vendor, partNumber: model }),
    })),
    ...memory.slots
      .filter(({ size_bytes }) => size_bytes !== 0)
      .map(({ locator, manufacturer, serial, part }) => ({
        hardwareInfoId: `memory ${locator}`,
        ...{ name: locator, partType: "memory", location: locator },
        ...described({ manufacturer, serialNumber: serial, partNumber: part }),
      })),
    ...disks.map(({ name, serial, model, firmware, pci }) => ({
      hardwareInfoId: `disk ${serial ?? name}`,
      ...{ name, partType: "disk" },
      ...described({ serialNumber: serial, partNumber: model, version: firmware, location: pci }),
    })),
    ...network.map(({ name, mac, firmware, pci }) => ({
      hardwareInfoId: name,
      ...{ name, partType: "network", serialNumber: mac },
      ...described({ version: firmware, location: pci }),
    })),
    ...graphics.map(({ pci, serial, model, firmware }) => ({
      hardwareInfoId: `gpu ${pci}`,
      ...{ name: model ?? pci, partType: "graphics", location: pci },
      ...described({ serialNumber: serial, version: firmware }),
    })),
    ...power_supplies.map(({ locator, manufacturer, serial, model }) => ({
      hardwareInfoId: `psu ${locator}`,
      ...{ name: locator, partType: "power supply", location: locator },
      ...described({ manufacturer, serialNumber: serial, partNumber: model }),
    })),
  ];
}

function stepOf(testStepId: string, result: KeptResult, { inventory }: Dossier): Line[] {
  const { report, started, ended, stage, attempt, source } = result;
  const at = (timestamp: string, artifact: object): Line => ({
    timestamp,
    body: { testStepArtifact: { testStepId, ...artifact } },
  });
  const known = new Set(inventory === null ? [] : hardwareOf(inventory).map(idOf));
  const whose = (component: string) =>
    known.has(component) ? { hardwareInfoId: component } : { subcomponent: { name: component } };
  const name = attempt === 1 ? stage : `${stage}, attempt ${attempt}`;
  const engines = report.engines.map(
    ({ task, engine, version }) => `${task}: ${engine}${version === null ? "" : ` ${version}`}`,
  );
  return [
    at(started, { testStepStart: { name } }),
    ...engines.map((message) => at(started, { log: { severity: "INFO", message } })),
    ...(source === "orchestrator"
      ? [at(started, { log: { severity: "INFO", message: "written by the orchestrator" } })]
      : []),
    ...report.measurements.map(({ name: measured, component, value, unit }) =>
      at(ended, { measurement: { name: measured, value, unit, ...whose(component) } }),
    ),
    ...report.coverage.map(({ component, unit, covered, total, least }) =>
      at(ended, {
        measurement: {
          ...{ name: "coverage", value: covered, unit, ...whose(component) },
          ...(total !== null && {
            validators: [{ name: "least", type: "GREATER_THAN_OR_EQUAL", value: least * total }],
          }),
        },
      }),
    ),
    ...report.deltas.map(({ source: counter, component, before, after }) =>
      at(ended, {
        measurement: {
          ...{ name: `${counter} delta`, value: after - before, unit: "count" },
          ...whose(component),
        },
      }),
    ),
    ...report.findings.map((finding) => at(ended, findingArtifact(finding, whose))),
    ...(report.evidence.length === 0
      ? []
      : [
          at(ended, {
            extension: { name: "hostler evidence", content: { evidence: report.evidence } },
          }),
        ]),
    at(ended, { log: { severity: severityOf(report.outcome), message: report.summary || name } }),
    at(ended, { testStepEnd: { status: statusOf(report.outcome) } }),
  ];
}

const idOf = ({ hardwareInfoId }: { readonly hardwareInfoId: string }) => hardwareInfoId;

/** What is not well of the hardware is a diagnosis; what broke of the test is an error. */
function findingArtifact(finding: Finding, whose: (component: string) => object): object {
  const { outcome, code, component, expected, found } = finding;
  const details = [
    ...(expected === null ? [] : [`expected ${expected}`]),
    ...(found === null ? [] : [`found ${found}`]),
  ];
  const message = [finding.message, ...details].join("; ");
  switch (outcome) {
    case "ERROR":
      return { error: { symptom: code, message: `${component}: ${message}` } };
    case "SKIP":
      return { log: { severity: "INFO", message: `SKIP ${component}: ${message}` } };
    case "WARN":
      return { diagnosis: { verdict: code, type: "UNKNOWN", message, ...whose(component) } };
    case "PASS":
    case "FAIL":
      return { diagnosis: { verdict: code, type: outcome, message, ...whose(component) } };
  }
}

function rulesStep({ rules }: Dossier, timestamp: string): Line[] {
  const at = (artifact: object): Line => ({
    timestamp,
    body: { testStepArtifact: { testStepId: "spec", ...artifact } },
  });
  const diagnoses = rules.map(({ path, rule, expected, found, outcome, because }) => {
    const message = `expected ${expected}; found ${found}${because === null ? "" : `; ${because}`}`;
    if (outcome === "ERROR") return at({ error: { symptom: `rule ${path}`, message } });
    const type = outcome === "PASS" || outcome === "FAIL" ? outcome : "UNKNOWN";
    const verdict = `rule ${path} ${rule}`;
    return at({ diagnosis: { verdict, type, message, subcomponent: { name: path } } });
  });
  const isBroken = rules.some(({ outcome }) => outcome === "ERROR");
  return [
    at({ testStepStart: { name: "SpecValidate" } }),
    ...diagnoses,
    at({ testStepEnd: { status: isBroken ? "ERROR" : "COMPLETE" } }),
  ];
}

/** Sensors go on over all stages, so their series stand in a step of their own. */
function seriesSteps({ sensors }: Dossier, end: string, calendar: Calendar): Line[] {
  const told = sensors.filter(({ points }) => points.length > 0);
  if (told.length === 0) return [];
  const at = (timestamp: string, artifact: object): Line => ({
    timestamp,
    body: { testStepArtifact: { testStepId: "sensors", ...artifact } },
  });
  const series = told.flatMap(({ kind, key, unit, critical, points }, index) => {
    const measurementSeriesId = `series${index}`;
    const kept = evenly(points, SERIES_ELEMENTS);
    const first = calendar.timeOf(kept[0]?.[0] ?? 0);
    const start = {
      ...{ name: `${kind} ${key}`, unit, measurementSeriesId },
      ...(critical !== null && {
        validators: [{ name: "critical", type: "LESS_THAN", value: critical }],
      }),
    };
    return [
      at(first, { measurementSeriesStart: start }),
      ...kept.map(([time, value], place) =>
        at(calendar.timeOf(time), {
          measurementSeriesElement: {
            ...{ index: place, value, timestamp: calendar.timeOf(time), measurementSeriesId },
          },
        }),
      ),
      at(end, { measurementSeriesEnd: { measurementSeriesId, totalCount: kept.length } }),
    ];
  });
  return [
    at(end, { testStepStart: { name: "sensors" } }),
    ...series,
    at(end, { testStepEnd: { status: "COMPLETE" } }),
  ];
}

function evenly<Item>(items: readonly Item[], most: number): readonly Item[] {
  if (items.length <= most) return items;
  const stride = items.length / most;
  return Array.from({ length: most }, (_, index) => items[Math.floor(index * stride)] as Item);
}

function severityOf(outcome: Outcome): string {
  if (outcome === "FAIL" || outcome === "ERROR") return "ERROR";
  return outcome === "WARN" ? "WARNING" : "INFO";
}

function statusOf(outcome: Outcome): "COMPLETE" | "ERROR" | "SKIP" {
  if (outcome === "ERROR") return "ERROR";
  return outcome === "SKIP" ? "SKIP" : "COMPLETE";
}

/** COMPLETE goes with PASS and FAIL, all else with NOT_APPLICABLE. */
function endOf({ view, results }: Dossier): { readonly status: string; readonly result: string } {
  switch (view.verdict) {
    case "passed":
    case "warned":
      return { status: "COMPLETE", result: "PASS" };
    case "failed": {
      const isTested = results.some(({ report }) => report.outcome === "FAIL");
      const isBroken = results.some(({ report }) => report.outcome === "ERROR");
      if (isBroken && !isTested) return { status: "ERROR", result: "NOT_APPLICABLE" };
      return { status: "COMPLETE", result: "FAIL" };
    }
    case "cancelled":
      return { status: "SKIP", result: "NOT_APPLICABLE" };
    // Lost, aborted, or not at its end.
    default:
      return { status: "ERROR", result: "NOT_APPLICABLE" };
  }
}
