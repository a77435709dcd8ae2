import type { Dossier, LiveEvent, RunView } from "../protocol-operator.ts";
import { type Band, chartLimits, type Line, LiveChart } from "./charts.ts";
import { element } from "./dom.ts";

/** Temperatures, power and errors of a run, over its stages. */

const drawn = [
  { kind: "temperature", title: "Temperatures", unit: "°C" },
  { kind: "power", title: "Power", unit: "W" },
  { kind: "errors", title: "Errors, counted since the agent began", unit: "" },
] as const;

interface Chart {
  readonly kind: string;
  readonly chart: LiveChart;
  readonly lines: Map<string, Line>;
  critical: number | undefined;
}

export class RunCharts {
  readonly place: HTMLElement;
  readonly #empty = element("p", { class: "faint" }, "No sensor has told anything yet.");
  readonly #charts: readonly Chart[];
  #bands: readonly Band[] = [];

  constructor() {
    this.#charts = drawn.map(({ kind, title, unit }) => ({
      ...{ kind, chart: new LiveChart(title, unit), lines: new Map(), critical: undefined },
    }));
    this.place = element("div", {}, this.#empty, ...this.#charts.map(({ chart }) => chart.place));
  }

  open({ sensors, view }: Dossier): void {
    for (const { kind, key, points, critical } of sensors) {
      const chart = this.#charts.find((one) => one.kind === kind);
      if (chart === undefined) continue;
      chart.lines.set(key, { name: key, points: points.slice(-chartLimits.points) });
      if (critical !== null) chart.critical = Math.min(critical, chart.critical ?? critical);
    }
    this.setStages(view);
  }

  setStages(view: RunView): void {
    this.#bands = view.stages.flatMap(({ stage, started, ended }): Band[] => {
      if (started === null) return [];
      const until = ended === null ? undefined : Date.parse(ended);
      return [{ name: stage, from: Date.parse(started), until }];
    });
    this.#draw();
  }

  add({ at, sensors, errors }: Extract<LiveEvent, { readonly kind: "sensors" }>): void {
    for (const [kind, key, value] of sensors) this.#addPoint(kind, key, [at, value]);
    for (const [key, value] of Object.entries(errors)) this.#addPoint("errors", key, [at, value]);
    this.#draw();
  }

  #addPoint(kind: string, key: string, point: [number, number]): void {
    const chart = this.#charts.find((one) => one.kind === kind);
    if (chart === undefined) return;
    const line = chart.lines.get(key) ?? { name: key, points: [] };
    // What came with the dossier may come once more.
    if ((line.points.at(-1)?.[0] ?? 0) >= point[0]) return;
    line.points.push(point);
    if (line.points.length > chartLimits.points) line.points.shift();
    chart.lines.set(key, line);
  }

  #draw(): void {
    this.#empty.hidden = this.#charts.some(({ lines }) => lines.size > 0);
    for (const { chart, lines, critical } of this.#charts) {
      chart.set([...lines.values()], this.#bands, critical);
    }
  }

  destroy(): void {
    for (const { chart } of this.#charts) chart.destroy();
  }
}
