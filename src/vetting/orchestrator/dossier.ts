import { unitOf } from "../../hardware/samples.ts";
import type { Dossier, SensorSeries } from "../protocol-operator.ts";
import type { VettingOrchestrator } from "./orchestrator.ts";
import type { KeptReading } from "./records.ts";

/** Lines of the log that a dossier has. */
const DOSSIER_LINES = 5_000;

/** All of a run: what its reports are made of. @throws ProblemError not-found */
export function dossierOf(
  orchestrator: VettingOrchestrator,
  number: number,
  about: Dossier["orchestrator"],
): Dossier {
  const { run, spec } = orchestrator.entry(number);
  const { records } = orchestrator;
  const results = records.results(number);
  const last = results.findLast(({ report }) => report.inventory !== undefined);
  return {
    view: orchestrator.view(run),
    spec,
    inventory: last?.report.inventory ?? null,
    rules: records.rules(number),
    results,
    events: records.events(number),
    sensors: seriesOf(records.readings(number)),
    log: records.lastLines(number, DOSSIER_LINES),
    orchestrator: about,
  };
}

/** A sum that never changed is told as well: nothing was counted, and somebody looked. */
const errorSeries = (key: string): SensorSeries & { points: [number, number][] } => ({
  ...{ kind: "errors", key, unit: "sum", critical: null, points: [] },
});

export function seriesOf(readings: readonly KeptReading[]): SensorSeries[] {
  const series = new Map<string, SensorSeries & { points: [number, number][] }>();
  for (const { at, sensors, errors } of readings) {
    // What is counted is drawn beside what is measured.
    for (const [key, value] of Object.entries(errors)) {
      const one = series.get(`errors ${key}`) ?? errorSeries(key);
      one.points.push([at, value]);
      series.set(`errors ${key}`, one);
    }
    for (const [kind, key, value, critical] of sensors) {
      const name = `${kind} ${key}`;
      const unit = Object.hasOwn(unitOf, kind) ? unitOf[kind as keyof typeof unitOf] : "";
      const one = series.get(name) ?? { kind, key, unit, critical, points: [] };
      one.critical ??= critical;
      one.points.push([at, value]);
      series.set(name, one);
    }
  }
  return [...series.values()];
}
