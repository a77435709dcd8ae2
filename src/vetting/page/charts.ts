import uPlot from "uplot";
import { element, later } from "./dom.ts";
import { clockText, dayText, shownText } from "./format.ts";

/** Lines over time that grow, with the stages behind them. */

export interface Line {
  readonly name: string;
  /** Milliseconds since 1970, rising, and a value. */
  readonly points: [at: number, value: number][];
}

export interface Band {
  readonly name: string;
  readonly from: number;
  /** undefined: it goes on. */
  readonly until: number | undefined;
}

/** Lines of one chart, and points of one line that a browser keeps. */
export const chartLimits = { lines: 12, points: 4_000 } as const;

/** Pixels above the lines, for the names of the stages. */
const STRIP = 20;

const colours = ["--s0", "--s1", "--s2", "--s3", "--s4", "--s5"] as const;

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** One chart; `draw` again when its lines have grown. */
export class LiveChart {
  readonly place: HTMLElement;
  readonly #title: string;
  readonly #unit: string;
  readonly #figure: HTMLElement;
  #plot: uPlot | undefined;
  #names = "";
  #bands: readonly Band[] = [];
  #critical: number | undefined;
  #isWhole = true;
  #all: readonly Line[] = [];
  /** Of all, those that are drawn. */
  #lines: readonly Line[] = [];
  readonly #resize: ResizeObserver;
  readonly #caption = element("span", { class: "faint" });
  readonly #gone = new AbortController();

  /** @param unit none: what is drawn are whole numbers that were counted */
  constructor(title: string, unit: string) {
    this.#title = title;
    this.#unit = unit;
    this.#figure = element("div", { class: "plot", role: "img" });
    const caption = element("figcaption", {}, `${this.#named} `, this.#caption);
    this.place = element("figure", { class: "chart", hidden: true }, caption, this.#figure);
    this.#resize = new ResizeObserver(() => this.#fit());
    this.#resize.observe(this.#figure);
    // Colours are read when a chart is made.
    const isDark = matchMedia("(prefers-color-scheme: dark)");
    const drawAnew = () => {
      this.#names = "";
      this.#draw();
    };
    isDark.addEventListener("change", drawAnew, { signal: this.#gone.signal });
  }

  get #isCounted(): boolean {
    return this.#unit === "";
  }

  get #named(): string {
    return this.#isCounted ? this.#title : `${this.#title}, ${this.#unit}`;
  }

  set(lines: readonly Line[], bands: readonly Band[], critical: number | undefined): void {
    this.#all = lines;
    this.#bands = bands;
    this.#critical = critical;
    this.#drawSoon();
  }

  readonly #drawSoon = later(() => {
    if (!this.#gone.signal.aborted) this.#draw();
  });

  #draw(): void {
    this.#choose();
    this.place.hidden = this.#lines.length === 0;
    if (this.#lines.length === 0) return;
    const data = joined(this.#lines);
    const names = this.#lines.map(({ name }) => name).join("\n");
    if (this.#plot === undefined || names !== this.#names) {
      this.#plot?.destroy();
      this.#names = names;
      this.#plot = new uPlot(this.#options(), data, this.#figure);
      return;
    }
    // Whoever looks at a part goes on looking at it.
    this.#isWhole = showsAll(this.#plot);
    this.#plot.setData(data);
  }

  /** Those that rose highest. */
  #choose(): void {
    const told = this.#all.filter(({ points }) => points.length > 0);
    const peak = ({ points }: Line) => points.reduce((most, [, value]) => Math.max(most, value), 0);
    const ranked = told.map((line) => ({ line, peak: peak(line) }));
    ranked.sort((left, right) => right.peak - left.peak);
    this.#lines = ranked.slice(0, chartLimits.lines).map(({ line }) => line);
    const isCut = told.length > this.#lines.length;
    this.#caption.textContent = isCut ? `the ${chartLimits.lines} highest of ${told.length}` : "";
    this.#figure.setAttribute("aria-label", this.#words);
  }

  #fit(): void {
    const width = this.#figure.clientWidth;
    if (width > 0) this.#plot?.setSize({ width, height: heightOf(width) });
  }

  #options(): uPlot.Options {
    const axis = { stroke: colour("--faint"), grid: { stroke: colour("--edge"), width: 1 } };
    const width = Math.max(280, this.#figure.clientWidth);
    return {
      ...{ width, height: heightOf(width), padding: [STRIP, null, null, null] },
      ...{ ms: 1, cursor: { drag: { x: true, y: false }, sync: { key: "run" } } },
      axes: [
        { ...axis, ticks: { stroke: colour("--edge") }, space: 75, values: clockTicks },
        {
          ...{ ...axis, ticks: { stroke: colour("--edge") }, size: 56 },
          ...(this.#isCounted && { incrs: wholeSteps }),
        },
      ],
      scales: {
        x: { auto: (_plot, isReset) => isReset || this.#isWhole },
        y: { range: (_plot, low, high) => this.#range(low, high) },
      },
      series: [
        {
          label: "Time",
          value: (plot, at, series, index) => {
            const shown = index === null ? lastOf(plot, series) : at;
            return shown === null ? "" : clockText(new Date(shown));
          },
        },
        ...this.#lines.map(({ name }, index) => ({
          label: shownText(name),
          stroke: colour(colours[index % colours.length] ?? "--s0"),
          width: 1.6,
          spanGaps: true,
          points: { show: false },
          ...(index >= colours.length && { dash: [5, 3] }),
          // A count stays as it is until the next one.
          ...(this.#isCounted && steppedPaths),
          value: (plot: uPlot, value: number | null, place: number, at: number | null) => {
            const shown = at === null ? lastOf(plot, place) : value;
            return shown === null ? "" : `${Number(shown.toPrecision(4))} ${this.#unit}`.trimEnd();
          },
        })),
      ],
      hooks: {
        drawClear: [(plot) => this.#drawBands(plot)],
        draw: [(plot) => this.#drawMark(plot)],
      },
    };
  }

  #range(low: number, high: number): [number, number] {
    const top = Math.max(high, this.#critical ?? high, this.#isCounted ? 1 : high);
    const bottom = low > 0 && low < top / 2 ? 0 : low;
    const room = (top - bottom || Math.abs(top) || 1) * 0.08;
    return [bottom === 0 ? 0 : bottom - room, top + room];
  }

  #drawBands(plot: uPlot): void {
    const { ctx: context } = plot;
    const { left, top, width, height } = plot.bbox;
    context.save();
    const ratio = devicePixelRatio;
    const strip = STRIP * ratio;
    context.beginPath();
    context.rect(left, top - strip, width, height + strip);
    context.clip();
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    for (const [index, band] of this.#bands.entries()) {
      const from = plot.valToPos(band.from, "x", true);
      const until = band.until === undefined ? left + width : plot.valToPos(band.until, "x", true);
      context.fillStyle = colour(index % 2 === 0 ? "--band" : "--band-other");
      context.fillRect(from, top - strip, until - from, height + strip);
      context.fillStyle = colour("--faint");
      const words = context.measureText(band.name).width;
      if (words + 8 * ratio < until - from) {
        context.fillText(band.name, Math.max(from, left) + 4 * ratio, top - 5 * ratio);
      }
    }
    context.restore();
  }

  #drawMark(plot: uPlot): void {
    if (this.#critical === undefined) return;
    const { ctx: context } = plot;
    const { left, width } = plot.bbox;
    const y = plot.valToPos(this.#critical, "y", true);
    context.save();
    context.strokeStyle = colour("--fail");
    context.lineWidth = 1.5 * devicePixelRatio;
    context.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    context.beginPath();
    context.moveTo(left, y);
    context.lineTo(left + width, y);
    context.stroke();
    context.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    context.fillStyle = colour("--fail");
    context.textAlign = "right";
    const words = `critical: ${this.#critical} ${this.#unit}`;
    context.fillText(words, left + width - 4 * devicePixelRatio, y + 13 * devicePixelRatio);
    context.restore();
  }

  /** A reader of screens is told the last values. */
  get #words(): string {
    const last = ({ points }: Line) => Number((points.at(-1)?.[1] ?? 0).toPrecision(4));
    const told = this.#lines.map((line) => `${line.name} ${last(line)}`);
    return shownText(`${this.#named}, at last: ${told.join(", ")}`);
  }

  destroy(): void {
    this.#gone.abort();
    this.#resize.disconnect();
    this.#plot?.destroy();
  }
}

const heightOf = (width: number) => (width < 480 ? 190 : 240);

/** Whether nobody chose a part of the times. */
function showsAll(plot: uPlot): boolean {
  const { min, max } = plot.scales["x"] ?? {};
  const [times] = plot.data;
  const [first, last] = [times[0], times.at(-1)];
  if (first === undefined || last === undefined || times.length < 2) return true;
  return (min ?? first) <= first && (max ?? last) >= last;
}

/** 1, 2, 5, 10, 20, 50, up to millions. */
const wholeSteps = [1, 10, 100, 1e3, 1e4, 1e5, 1e6].flatMap((of) => [of, 2 * of, 5 * of]);
const stepped = uPlot.paths.stepped?.({ align: 1 });
const steppedPaths = stepped === undefined ? {} : { paths: stepped };

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

/** "12:15:51" where they are close, "12:15" where not; the day, "11-30", where one begins. */
function clockTicks(_plot: uPlot, splits: number[], _axis: number, _space: number, step: number) {
  return splits.map((split) => {
    const at = new Date(split);
    const clock = clockText(at);
    if (step >= DAY || clock === "00:00:00") return dayText(at).slice(5);
    return step < MINUTE ? clock : clock.slice(0, 5);
  });
}

/** The last value of a series: the legend tells it while nobody points at another one. */
function lastOf(plot: uPlot, series: number): number | null {
  const values = plot.data[series] ?? [];
  for (let index = values.length - 1; index >= 0; index -= 1) {
    const value = values[index];
    if (value !== null && value !== undefined) return value;
  }
  return null;
}

/** All lines over the times of any of them. */
function joined(lines: readonly Line[]): uPlot.AlignedData {
  const times = [...new Set(lines.flatMap(({ points }) => points.map(([at]) => at)))].toSorted(
    (left, right) => left - right,
  );
  const columns = lines.map(({ points }) => {
    const values = new Map(points);
    return times.map((at) => values.get(at) ?? null);
  });
  return [times, ...columns] as uPlot.AlignedData;
}
