/**
 * Counters, gauges and histograms, told in the text format of Prometheus, version 0.0.4:
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 */

/** Series of one metric; a label whose values a caller chooses could make any number. */
export const SERIES_LIMIT = 1_000;
export const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Seconds; from a call that touches memory alone to one that waits for its time limit. */
export const LATENCY_BUCKETS: readonly number[] = [
  0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
];

export type Labels = Readonly<Record<string, string>>;

export interface Counter {
  add(labels?: Labels, amount?: number): void;
}

export interface Gauge {
  set(value: number, labels?: Labels): void;
}

export interface Histogram {
  observe(value: number, labels?: Labels): void;
}

interface Describe {
  /** "hostler_http_requests_total": with its unit, and "_total" for a counter. */
  readonly name: string;
  readonly help: string;
  readonly labels?: readonly string[];
}

/** A value, as it is told. */
export interface Sample {
  readonly labels: Labels;
  readonly value: number;
}

interface Metric {
  write(): string[];
}

/** The metrics of one daemon; each is made once, where it is counted. */
export class MetricsRegistry {
  readonly #metrics = new Map<string, Metric>();

  counter(description: Describe): Counter {
    const series = new Series(description, () => ({ value: 0 }));
    this.#add(description.name, {
      write: () => [...head(description, "counter"), ...valueLines(description.name, series)],
    });
    return {
      add: (labels = {}, amount = 1) => {
        series.of(labels).value += amount;
      },
    };
  }

  /** @param read asked for the value each time when it is told, in place of `set` */
  gauge(description: Describe, read?: () => number): Gauge {
    const series = new Series(description, () => ({ value: 0 }));
    this.#add(description.name, {
      write: () => {
        if (read !== undefined) series.of({}).value = read();
        return [...head(description, "gauge"), ...valueLines(description.name, series)];
      },
    });
    return {
      set: (value, labels = {}) => {
        series.of(labels).value = value;
      },
    };
  }

  /** What is read anew each time that it is told: what has gone since is not told any more. */
  collect(
    description: Pick<Describe, "name" | "help">,
    type: "gauge" | "counter",
    read: () => readonly Sample[],
  ): void {
    this.#add(description.name, {
      write: () => sampleLines(description, type, read().slice(0, SERIES_LIMIT)),
    });
  }

  histogram(description: Describe, bounds: readonly number[] = LATENCY_BUCKETS): Histogram {
    const series = new Series(description, () => ({
      counts: Array<number>(bounds.length + 1).fill(0),
      sum: 0,
    }));
    this.#add(description.name, {
      write: () => [
        ...head(description, "histogram"),
        ...[...series].flatMap(([labels, { counts, sum }]) =>
          histogramLines(description.name, { labels, counts, sum, bounds }),
        ),
      ],
    });
    return {
      observe: (value, labels = {}) => {
        const one = series.of(labels);
        const found = bounds.findIndex((bound) => value <= bound);
        const index = found < 0 ? bounds.length : found;
        one.counts[index] = (one.counts[index] ?? 0) + 1;
        one.sum += value;
      },
    };
  }

  #add(name: string, metric: Metric): void {
    if (!/^[a-z][a-z0-9_]*$/.test(name)) throw new Error(`${name} is no name of a metric`);
    if (this.#metrics.has(name)) throw new Error(`Two metrics are named ${name}`);
    this.#metrics.set(name, metric);
  }

  /** All metrics, as a scraper takes them. */
  toText(): string {
    const lines = [...this.#metrics.values()].flatMap((metric) => metric.write());
    return `${lines.join("\n")}\n`;
  }
}

/** The values of a metric by their labels; beyond the limit, all others share one series. */
class Series<Value> {
  readonly #names: readonly string[];
  readonly #make: () => Value;
  readonly #values = new Map<string, Value>();

  constructor({ name, labels = [] }: Describe, make: () => Value) {
    for (const label of labels) {
      if (!/^[a-z][a-z0-9_]*$/.test(label)) throw new Error(`${name}: no label is named ${label}`);
    }
    this.#names = labels;
    this.#make = make;
    // What has no labels is told from the start, as zero.
    if (labels.length === 0) this.of({});
  }

  of(labels: Labels): Value {
    const named = this.#text((name) => labels[name] ?? "");
    const isKnown = this.#values.has(named) || this.#values.size < SERIES_LIMIT;
    const key = isKnown ? named : this.#text(() => "others");
    const known = this.#values.get(key);
    if (known !== undefined) return known;
    const made = this.#make();
    this.#values.set(key, made);
    return made;
  }

  #text(textOf: (name: string) => string): string {
    return labelWords(this.#names.map((name) => [name, textOf(name)]));
  }

  [Symbol.iterator](): IterableIterator<[string, Value]> {
    return this.#values.entries();
  }
}

function head({ name, help }: Pick<Describe, "name" | "help">, type: string): string[] {
  const escaped = help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
  return [`# HELP ${name} ${escaped}`, `# TYPE ${name} ${type}`];
}

/** One metric as a scraper takes it, a line each. */
export function sampleLines(
  description: Pick<Describe, "name" | "help">,
  type: "gauge" | "counter",
  samples: readonly Sample[],
): string[] {
  return [...head(description, type), ...samples.map((sample) => sampleLine(description, sample))];
}

/** A part of a metric that is told in several, one behind the other. */
export interface MetricPart extends Pick<Describe, "name" | "help"> {
  readonly type: "gauge" | "counter" | "histogram";
  readonly samples: readonly PartSample[];
}

export interface PartSample extends Sample {
  /** Of a histogram: "_bucket", "_sum" and "_count". */
  readonly suffix?: string | undefined;
}

/** Metrics that come in parts, as a scraper takes them. */
export class MetricText {
  #last: string | undefined;

  /** The lines of the next part; what the metric is stands before its first part alone. */
  of(part: MetricPart): string {
    const { name, type, samples } = part;
    const heading = name === this.#last ? [] : head(part, type);
    this.#last = name;
    const lines = samples.map((sample) =>
      sampleLine({ name: `${name}${sample.suffix ?? ""}` }, sample),
    );
    return [...heading, ...lines].map((line) => `${line}\n`).join("");
  }
}

/** A histogram's samples, as they are told. */
export function histogramSamples(
  labels: Labels,
  one: Pick<HistogramValues, "counts" | "sum" | "bounds">,
): PartSample[] {
  const { counts, sum, bounds } = one;
  let total = 0;
  const buckets = counts.map((count, index) => {
    total += count;
    const le = `${bounds[index] ?? "+Inf"}`;
    return { suffix: "_bucket", labels: { ...labels, le }, value: total };
  });
  const ends = [
    { suffix: "_sum", labels, value: sum },
    { suffix: "_count", labels, value: total },
  ];
  return [...buckets, ...ends];
}

function sampleLine({ name }: Pick<Describe, "name">, { labels, value }: Sample): string {
  return `${name}${inBraces(labelWords(Object.entries(labels)))} ${value}`;
}

function valueLines(name: string, series: Series<{ value: number }>): string[] {
  return [...series].map(([labels, { value }]) => `${name}${inBraces(labels)} ${value}`);
}

interface HistogramValues {
  readonly labels: string;
  /** One more than there are bounds. */
  readonly counts: readonly number[];
  readonly sum: number;
  readonly bounds: readonly number[];
}

function histogramLines(name: string, one: HistogramValues): string[] {
  const { labels, counts, sum, bounds } = one;
  let total = 0;
  const lines = counts.map((count, index) => {
    total += count;
    const bound = `le="${bounds[index] ?? "+Inf"}"`;
    return `${name}_bucket${inBraces(labels === "" ? bound : `${labels},${bound}`)} ${total}`;
  });
  lines.push(`${name}_sum${inBraces(labels)} ${sum}`, `${name}_count${inBraces(labels)} ${total}`);
  return lines;
}

function inBraces(labels: string): string {
  return labels === "" ? "" : `{${labels}}`;
}

function labelWords(labels: readonly (readonly [name: string, text: string])[]): string {
  return labels.map(([name, text]) => `${name}="${escapeLabel(text)}"`).join(",");
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
