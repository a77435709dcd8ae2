import { html, type Markup } from "./escape.ts";

/** A chart as SVG: lines over time, with the stages behind them. Pure. */

export interface ChartLine {
  readonly name: string;
  /** Milliseconds since 1970, rising, and a value. */
  readonly points: readonly (readonly [at: number, value: number])[];
}

export interface ChartBand {
  readonly name: string;
  readonly from: number;
  readonly until: number;
}

export interface Chart {
  readonly title: string;
  readonly unit: string;
  readonly lines: readonly ChartLine[];
  readonly bands: readonly ChartBand[];
  /** Dashed lines at these values. */
  readonly marks: readonly { readonly name: string; readonly value: number }[];
}

export const chartLimits = {
  /** Lines that are drawn; the rest is counted below the chart. */
  lines: 12,
  /** Points of one line; of more, the highest and the lowest of each stretch. */
  points: 600,
} as const;

const size = { width: 960, height: 240, left: 56, right: 12, top: 24, bottom: 28 } as const;
const plotWidth = size.width - size.left - size.right;
const plotHeight = size.height - size.top - size.bottom;

/** undefined where there is nothing to draw. */
export function drawChart(chart: Chart): Markup | undefined {
  const lines = chart.lines.filter(({ points }) => points.length > 0);
  if (lines.length === 0) return undefined;
  const drawn = lines.slice(0, chartLimits.lines);
  const scale = scaleOf(chart, drawn);
  const more = lines.length - drawn.length;
  return html`<figure class="chart">
<figcaption>${chart.title}, ${chart.unit}</figcaption>
<svg viewBox="0 0 ${size.width} ${size.height}" role="img" aria-label="${chart.title}">
${drawBands(chart.bands, scale)}${drawGrid(scale)}${drawMarks(chart.marks, scale)}
${drawn.map((line, index) => drawLine(line, index, scale))}
</svg>
<ul class="legend">${drawn.map(
    ({ name }, index) => html`<li><span class="key s${index}"></span>${name}</li>`,
  )}${more > 0 ? html`<li>and ${more} more, which the JSON has</li>` : undefined}</ul>
</figure>
`;
}

interface Scale {
  readonly from: number;
  readonly until: number;
  readonly ticks: readonly number[];
  x(at: number): number;
  y(value: number): number;
}

function scaleOf({ bands, marks }: Chart, lines: readonly ChartLine[]): Scale {
  const points = lines.flatMap((line) => thin(line.points));
  const times = [...points.map(([at]) => at), ...bands.flatMap((band) => [band.from, band.until])];
  const values = [...points.map(([, value]) => value), ...marks.map(({ value }) => value)];
  const [from, until] = rangeOf(times);
  const [low, high] = rangeOf(values);
  const ticks = ticksOf(Math.min(low, low >= 0 && low < high / 2 ? 0 : low), high);
  const [bottom, top] = rangeOf(ticks);
  return {
    from,
    until,
    ticks,
    x: (at) => round(size.left + ((at - from) / Math.max(1, until - from)) * plotWidth),
    y: (value) =>
      round(size.top + plotHeight - ((value - bottom) / (top - bottom || 1)) * plotHeight),
  };
}

function rangeOf(values: readonly number[]): readonly [low: number, high: number] {
  return values.reduce<readonly [number, number]>(
    ([low, high], value) => [Math.min(low, value), Math.max(high, value)],
    [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
  );
}

/** Three to seven round values that hold all of the range between them. */
export function ticksOf(low: number, high: number): readonly number[] {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((one) => one * power >= rough) ?? 10) * power;
  const [first, last] = [Math.floor(low / step), Math.ceil(high / step)];
  const count = Math.max(1, last - first);
  return Array.from({ length: count + 1 }, (_, index) => rounded((first + index) * step));
}

const rounded = (value: number) => Number(value.toPrecision(12));
const round = (value: number) => Math.round(value * 10) / 10;

/** Keeps what stands out: the lowest and the highest of each stretch. */
export function thin(points: ChartLine["points"]): ChartLine["points"] {
  if (points.length <= chartLimits.points) return points;
  const stretch = Math.ceil(points.length / (chartLimits.points / 2));
  const kept: (readonly [number, number])[] = [];
  for (let begin = 0; begin < points.length; begin += stretch) {
    const part = points.slice(begin, begin + stretch);
    const low = part.reduce((least, point) => (point[1] < least[1] ? point : least));
    const high = part.reduce((most, point) => (point[1] > most[1] ? point : most));
    const pair = low[0] < high[0] ? [low, high] : [high, low];
    kept.push(...(low === high ? [low] : pair));
  }
  return kept;
}

function drawBands(bands: readonly ChartBand[], scale: Scale): Markup[] {
  return bands.map((band, index) => {
    const [left, right] = [scale.x(band.from), scale.x(band.until)];
    const width = round(Math.max(1, right - left));
    // A name that does not fit would stand on the next one.
    const name = width >= band.name.length * 7 ? band.name : "";
    return html`<g class="band b${index % 2}"><title>${band.name}</title>
<rect x="${left}" y="${size.top}" width="${width}" height="${plotHeight}"/>
<text x="${round(left + 3)}" y="${size.top - 6}">${name}</text></g>
`;
  });
}

/** Where a time is told, and how its words stand there. */
const timeParts = [
  [0, "start"],
  [0.25, "middle"],
  [0.5, "middle"],
  [0.75, "middle"],
  [1, "end"],
] as const;

function drawGrid(scale: Scale): Markup[] {
  const [left, right] = [size.left, size.width - size.right];
  const lines = scale.ticks.map((tick) => {
    const y = scale.y(tick);
    return html`<line class="grid" x1="${left}" x2="${right}" y1="${y}" y2="${y}"/>
<text class="tick" x="${left - 6}" y="${y + 4}" text-anchor="end">${tick}</text>
`;
  });
  const minutes = Math.max(1, scale.until - scale.from) / 60_000;
  const times = timeParts.map(([part, anchor]) => {
    const at = scale.from + part * (scale.until - scale.from);
    const label = `${rounded(Math.round(part * minutes * 10) / 10)} min`;
    return html`<text class="tick" x="${scale.x(at)}" y="${size.height - 8}"
 text-anchor="${anchor}">${label}</text>
`;
  });
  return [...lines, ...times];
}

function drawMarks(marks: Chart["marks"], scale: Scale): Markup[] {
  return marks.map(({ name, value }) => {
    const y = scale.y(value);
    return html`<line class="mark" x1="${size.left}" x2="${size.width - size.right}"
 y1="${y}" y2="${y}"><title>${name}: ${value}</title></line>
`;
  });
}

function drawLine(line: ChartLine, index: number, scale: Scale): Markup {
  const points = thin(line.points);
  const path = points.map(([at, value]) => `${scale.x(at)},${scale.y(value)}`).join(" ");
  const [only] = points;
  if (points.length === 1 && only !== undefined) {
    return html`<circle class="line s${index}" cx="${scale.x(only[0])}" cy="${scale.y(only[1])}"
 r="2"><title>${line.name}</title></circle>
`;
  }
  const title = html`<title>${line.name}</title>`;
  return html`<polyline class="line s${index}" points="${path}">${title}</polyline>
`;
}
