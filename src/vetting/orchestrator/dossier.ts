import { unitOf } from "../../hardware/samples.ts";
import type { LogLine } from "../protocol.ts";
import type { Dossier, KeptResult, SensorSeries } from "../protocol-operator.ts";
import type { VettingOrchestrator } from "./orchestrator.ts";
import type { KeptReading } from "./records.ts";

/** What of a run's log and readings a dossier has: an answer has a bound, and so has a reader. */
export const dossierLimits = {
  lines: 5_000,
  /** Characters of those lines: the last are told. */
  logCharacters: 2 * 1024 ** 2,
  /** Points of all series together: over it every second reading is told, or every third, … */
  points: 100_000,
} as const;

/** All of a run: what its reports are made of. @throws ProblemError not-found */
export function dossierOf(
  orchestrator: VettingOrchestrator,
  number: number,
  about: Dossier["orchestrator"],
): Dossier {
  const { run, spec } = orchestrator.entry(number);
  const { records } = orchestrator;
  const results = records.results(number);
  return {
    view: orchestrator.view(run),
    spec,
    inventory: inventoryOf(results),
    rules: records.rules(number),
    results,
    events: records.events(number),
    sensors: seriesOf(records.readings(number)),
    log: lastOf(records.lastLines(number, dossierLimits.lines)),
    orchestrator: about,
  };
}

/** What the last of its results that has an inventory says the host is made of. */
export function inventoryOf(results: readonly KeptResult[]): Dossier["inventory"] {
  return results.findLast(({ report }) => report.inventory !== undefined)?.report.inventory ?? null;
}

/** A sum that never changed is told as well: nothing was counted, and somebody looked. */
const errorSeries = (key: string): SensorSeries & { points: [number, number][] } => ({
  ...{ kind: "errors", key, unit: "sum", critical: null, points: [] },
});

/** The last lines that have so many characters at most. */
export function lastOf(
  lines: readonly LogLine[],
  most: number = dossierLimits.logCharacters,
): LogLine[] {
  let characters = 0;
  const first = lines.findLastIndex(({ text }) => {
    characters += text.length;
    return characters > most;
  });
  return lines.slice(first + 1);
}

/** Every so many readings, so that all series together have as many points as there may be. */
function thinned(readings: readonly KeptReading[], most: number): readonly KeptReading[] {
  const points = readings.reduce(
    (sum, { sensors, errors }) => sum + sensors.length + Object.keys(errors).length,
    0,
  );
  const every = Math.max(1, Math.ceil(points / most));
  return readings.filter((_reading, place) => place % every === 0);
}

export function seriesOf(
  all: readonly KeptReading[],
  most: number = dossierLimits.points,
): SensorSeries[] {
  const readings = thinned(all, most);
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
