/** What is counted of processes, and told to scrapers: over a clock of the test's own. */
import { describe, expect, test } from "bun:test";
import { type MetricPart, MetricText } from "../../src/http/metrics.ts";
import { initialState, type ProcessEvent, type ProcessState } from "../../src/process/lifecycle.ts";
import { metricParts, SAMPLES_A_PART, type Usage } from "../../src/process/metrics.ts";
import { initialOrchestration, makePlan, step } from "../../src/process/orchestration.ts";
import { ProcessMeter, RESTART_BUCKETS } from "../../src/process/process-meter.ts";
import type { ProcessSpecification } from "../../src/process/specification.ts";
import { exited, makeSpecification } from "../support/lifecycle/life.ts";

/** One process "it", whose events come from the test, and what is counted of it. */
class Stage {
  readonly #plan;
  readonly meter;
  state;
  now = 1_000;
  #invocations = 0;

  constructor(change: Partial<ProcessSpecification> = {}) {
    const specification = makeSpecification({ name: "it", ...change });
    this.#plan = makePlan({
      holder: true,
      concurrentStarts: undefined,
      partitions: [],
      processes: [specification],
    });
    this.state = initialOrchestration(this.#plan);
    this.meter = new ProcessMeter(["it"], this.now);
  }

  get it(): ProcessState {
    return this.state.processes.get("it") ?? initialState;
  }

  get counted() {
    const { since, restarts, counts, sum, diedAt } = this.meter.of("it") ?? {};
    return { since, ...restarts, all: counts?.reduce((total, one) => total + one, 0), sum, diedAt };
  }

  take(event: ProcessEvent, after = 0): this {
    this.now += after;
    const chance = { random: () => 0.5, invocation: () => `i${++this.#invocations}` };
    const before = this.it;
    const occurred = { kind: "process", name: "it", event } as const;
    const outcome = step(this.#plan, this.state, occurred, { now: this.now, chance });
    this.state = outcome.state;
    expect(outcome.changed.has("it")).toBe(this.it !== before);
    this.meter.note("it", { before, after: this.it, now: this.now });
    return this;
  }

  started(after = 0): this {
    return this.take({ kind: "started", invocation: `i${this.#invocations}`, processId: 7 }, after);
  }

  ends(after = 0): this {
    const invocation = `i${this.#invocations}`;
    this.take({ kind: "died", invocation, ending: exited(1) }, after);
    return this.take({ kind: "cleared", invocation });
  }
}

describe("restarts, by reason", () => {
  const begun = () => new Stage().take({ kind: "start" }).started();

  test("a first start is none", () => {
    expect(begun().counted).toMatchObject({ died: 0, unready: 0, asked: 0, all: 0 });
  });

  test("it died by itself: with the time until the next start", () => {
    const stage = begun().ends(50).started(20);
    expect(stage.counted).toMatchObject({ died: 1, unready: 0, asked: 0, all: 1, sum: 0.02 });
    expect(stage.it.restarts).toBe(1);
    expect(stage.counted.diedAt).toBeUndefined();
  });

  test("waits of the back-off are part of that time", () => {
    const stage = begun().ends(50).started(1).ends(50);
    expect(stage.it.phase).toBe("backing-off");
    stage.take({ kind: "deadline" }, 100).started(4);
    expect(stage.counted).toMatchObject({ died: 2, all: 2 });
    expect(stage.counted.sum).toBeCloseTo(0.001 + 0.104, 6);
  });

  test("somebody asked", () => {
    const stage = begun().take({ kind: "restart" }).ends(5).started(1);
    expect(stage.counted).toMatchObject({ died: 0, asked: 1, all: 1 });
  });

  test("it was not ready in time", () => {
    const stage = new Stage({ readiness: { kind: "notify" } });
    stage.take({ kind: "start" }).started().take({ kind: "deadline" }, 2_000).ends(1).started(1);
    expect(stage.counted).toMatchObject({ died: 0, unready: 1, asked: 0, all: 1 });
  });

  test("one that rested in between is asked for, and the time of its rest is none", () => {
    const stage = new Stage({ restart: "never" }).take({ kind: "start" }).started().ends(5);
    expect(stage.it.phase).toBe("finished");
    stage.take({ kind: "restart" }, 10_000).started(1);
    expect(stage.it.restarts).toBe(1);
    expect(stage.counted).toMatchObject({ died: 0, asked: 1, all: 0, sum: 0 });
  });

  test("a start after a stop is none, as `restarts` has it", () => {
    const stage = begun().take({ kind: "stop", hurry: false }).ends(1);
    stage.take({ kind: "start" }, 10).started(1);
    expect(stage.it.restarts).toBe(0);
    expect(stage.counted).toMatchObject({ died: 0, unready: 0, asked: 0, all: 0 });
  });

  test("a time longer than every bucket is counted in the last", () => {
    const stage = begun().ends(50).started(31_000);
    expect(stage.meter.of("it")?.counts.at(-1)).toBe(1);
    expect(stage.meter.of("it")?.counts.length).toBe(RESTART_BUCKETS.length + 1);
  });
});

test("since when it is in its phase", () => {
  const stage = new Stage().take({ kind: "start" }, 10).started(5);
  expect(stage.counted.since).toBe(1_015);
  stage.take({ kind: "start" }, 500);
  expect(stage.counted.since).toBe(1_015);
  stage.take({ kind: "restart" }, 1);
  expect(stage.counted.since).toBe(1_516);
});

test("another program goes on with it; with other buckets, with the time alone", () => {
  const stage = new Stage().take({ kind: "start" }).started().ends(50).started(20);
  const next = new ProcessMeter(["it"], 9_000);
  next.restore(stage.meter.save());
  expect(next.of("it")).toEqual(stage.meter.of("it"));
  const other = new ProcessMeter(["it"], 9_000);
  other.restore(stage.meter.save().map((saved) => ({ ...saved, counts: [1] })));
  expect(other.of("it")).toMatchObject({ since: stage.counted.since, sum: 0 });
  expect(other.of("it")?.counts.length).toBe(RESTART_BUCKETS.length + 1);
  other.restore(stage.meter.save().map((saved) => ({ ...saved, name: "unknown" })));
  expect(other.of("unknown")).toBeUndefined();
});

describe("what a scraper is told", () => {
  const partsOf = (names: readonly string[], usage: ReadonlyMap<string, Usage> = new Map()) => {
    const processes = names.map((name) => makeSpecification({ name }));
    const state = initialOrchestration(
      makePlan({ holder: true, concurrentStarts: undefined, partitions: [], processes }),
    );
    const meter = new ProcessMeter(names, 0);
    return metricParts({
      state,
      now: 2_500,
      meterOf: (name) => meter.of(name),
      usage,
      logOf: () => ({ dropped: 3 }),
      logFileOf: (name) => (name === "it" ? { dropped: 2 } : undefined),
      partitions: [{ name: "qm", isConnected: true }],
      newestEvent: 12,
      own: {
        cpu: { by: "process", value: 1.5 },
        memory: { by: "process", value: 4_096 },
      },
      program: { version: "1.2.3", commit: "abc" },
    });
  };
  const textOf = (parts: Iterable<MetricPart>) => {
    const text = new MetricText();
    return [...parts].map((part) => text.of(part)).join("");
  };

  test("one process", () => {
    const usage = new Map<string, Usage>([
      ["it", { cpu: { by: "cgroup", value: 0.25 }, memory: { by: "process", value: 8_192 } }],
    ]);
    const lines = textOf(partsOf(["it"], usage)).split("\n");
    expect(lines.filter((line) => !line.startsWith("#"))).toEqual([
      'hostler_orchestrator_info{version="1.2.3",commit="abc"} 1',
      'hostler_orchestrator_agent_connected{partition="qm"} 1',
      "hostler_orchestrator_events_total 12",
      "hostler_orchestrator_processes 1",
      "hostler_orchestrator_memory_bytes 4096",
      "hostler_orchestrator_cpu_seconds_total 1.5",
      'hostler_process_phase{process="it",phase="idle"} 1',
      'hostler_process_phase_seconds{process="it",phase="idle"} 2.5',
      'hostler_process_restarts_total{process="it",reason="died"} 0',
      'hostler_process_restarts_total{process="it",reason="unready"} 0',
      'hostler_process_restarts_total{process="it",reason="unhealthy"} 0',
      'hostler_process_restarts_total{process="it",reason="asked"} 0',
      'hostler_process_refused_starts_total{process="it"} 0',
      'hostler_process_cpu_seconds_total{process="it",by="cgroup"} 0.25',
      'hostler_process_memory_bytes{process="it",by="process"} 8192',
      'hostler_process_log_dropped_lines_total{process="it"} 3',
      'hostler_process_log_file_dropped_lines_total{process="it"} 2',
      "",
    ]);
  });

  test("a histogram, of those alone that were restarted", () => {
    const stage = new Stage().take({ kind: "start" }).started().ends(50).started(20);
    const facts = { state: stage.state, now: stage.now, usage: new Map(), partitions: [] };
    const parts = metricParts({
      ...facts,
      meterOf: (name) => stage.meter.of(name),
      logOf: () => undefined,
      logFileOf: () => undefined,
      newestEvent: 0,
      own: undefined,
      program: { version: "1", commit: "a" },
    });
    const lines = textOf(parts).split("\n");
    expect(lines.filter((line) => line.startsWith("hostler_process_restart_seconds"))).toEqual([
      ...["0.001", "0.0025", "0.01"].map((le) => bucket(le, 0)),
      ...["0.05", "0.25", "1", "5", "30", "+Inf"].map((le) => bucket(le, 1)),
      'hostler_process_restart_seconds_sum{process="it"} 0.02',
      'hostler_process_restart_seconds_count{process="it"} 1',
    ]);
    expect(textOf(partsOf(["it"]))).not.toContain("restart_seconds");
  });

  const bucket = (le: string, count: number) =>
    `hostler_process_restart_seconds_bucket{process="it",le="${le}"} ${count}`;

  test("many processes come in parts of a bounded size, each metric described once", () => {
    const names = Array.from({ length: 1_500 }, (_, index) => `it-${index}`);
    const parts = [...partsOf(names)];
    expect(Math.max(...parts.map(({ samples }) => samples.length))).toBeLessThan(
      SAMPLES_A_PART + 16,
    );
    const heads = [...textOf(parts).matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
    expect(heads).toEqual([...new Set(heads)]);
    const phases = parts.filter(({ name }) => name === "hostler_process_phase");
    expect(phases.flatMap(({ samples }) => samples).length).toBe(1_500);
  });
});
