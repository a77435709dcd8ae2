import { histogramSamples, type MetricPart, type PartSample } from "../http/metrics.ts";
import type { MonotonicTime } from "../units/units.ts";
import type { ProcessState } from "./lifecycle.ts";
import type { LogBook } from "./log-book.ts";
import type { OrchestrationState } from "./orchestration.ts";
import { type MeterState, RESTART_BUCKETS, restartReasons } from "./process-meter.ts";

/**
 * What an orchestrator tells a scraper. Labels have the names of the configuration and of the
 * lifecycle alone: what a process does makes no series. Pure.
 */

/** A number, and who says so: the cgroup of an instance, or /proc of its main process alone. */
export interface Measure {
  readonly by: "cgroup" | "process";
  readonly value: number;
}

/** What an instance uses: processor time in seconds, memory in bytes. */
export interface Usage {
  readonly cpu: Measure;
  readonly memory: Measure;
}

export interface MetricFacts {
  readonly state: OrchestrationState;
  readonly now: MonotonicTime;
  readonly meterOf: (name: string) => MeterState | undefined;
  readonly usage: ReadonlyMap<string, Usage>;
  readonly logOf: (name: string) => Pick<LogBook, "dropped"> | undefined;
  /** The file that its lines are written to. */
  readonly logFileOf: (name: string) => { readonly dropped: number } | undefined;
  readonly partitions: readonly { readonly name: string; readonly isConnected: boolean }[];
  readonly newestEvent: number;
  readonly own: Usage | undefined;
  readonly program: { readonly version: string; readonly commit: string };
}

/** Samples that are made before others have their turn. */
export const SAMPLES_A_PART = 256;

type Describe = Pick<MetricPart, "name" | "help" | "type">;
type Entry = readonly [name: string, state: ProcessState];

/** Each metric, in parts that are made when they are asked for. */
export function* metricParts(facts: MetricFacts): Generator<MetricPart, void> {
  for (const part of ownParts(facts)) yield part;
  for (const [describe, read] of processMetrics) {
    let samples: PartSample[] = [];
    for (const entry of facts.state.processes) {
      samples.push(...read(facts, entry));
      if (samples.length < SAMPLES_A_PART) continue;
      yield { ...describe, samples };
      samples = [];
    }
    if (samples.length > 0) yield { ...describe, samples };
  }
}

function* ownParts(facts: MetricFacts): Generator<MetricPart> {
  const { own, program, partitions, newestEvent, state } = facts;
  const one = (describe: Describe, value: number) => ({
    ...describe,
    samples: [{ labels: {}, value }],
  });
  const info = {
    name: "hostler_orchestrator_info",
    help: "The program that runs, by its labels",
    type: "gauge",
  } as const;
  yield { ...info, samples: [{ labels: { ...program }, value: 1 }] };
  const connected = {
    name: "hostler_orchestrator_agent_connected",
    help: "1 where the agent of a partition is connected",
    type: "gauge",
  } as const;
  if (partitions.length > 0) {
    const samples = partitions.map(({ name, isConnected }) => ({
      labels: { partition: name },
      value: isConnected ? 1 : 0,
    }));
    yield { ...connected, samples };
  }
  const events = {
    name: "hostler_orchestrator_events_total",
    help: "What happened to processes, as hostler process events tells it",
    type: "counter",
  } as const;
  yield one(events, newestEvent);
  const processes = {
    name: "hostler_orchestrator_processes",
    help: "Processes of the configuration",
    type: "gauge",
  } as const;
  yield one(processes, state.processes.size);
  if (own === undefined) return;
  const memory = {
    name: "hostler_orchestrator_memory_bytes",
    help: "Resident memory of the orchestrator",
    type: "gauge",
  } as const;
  yield one(memory, own.memory.value);
  const cpu = {
    name: "hostler_orchestrator_cpu_seconds_total",
    help: "Processor time of the orchestrator",
    type: "counter",
  } as const;
  yield one(cpu, own.cpu.value);
}

const seconds = (from: MonotonicTime, to: MonotonicTime) => Math.max(0, (to - from) / 1_000);

const bySource =
  'by="cgroup": of all in its cgroup; by="process": of its main process alone, by /proc';

const processMetrics: readonly (readonly [
  Describe,
  (facts: MetricFacts, entry: Entry) => readonly PartSample[],
])[] = [
  [
    {
      name: "hostler_process_phase",
      help: "1 for the phase that a process is in; the others are not told",
      type: "gauge",
    },
    (_facts, [process, { phase }]) => [{ labels: { process, phase }, value: 1 }],
  ],
  [
    {
      name: "hostler_process_phase_seconds",
      help: "For how long a process has been in its phase",
      type: "gauge",
    },
    ({ meterOf, now }, [process, { phase }]) => {
      const since = meterOf(process)?.since;
      return since === undefined
        ? []
        : [{ labels: { process, phase }, value: seconds(since, now) }];
    },
  ],
  [
    {
      name: "hostler_process_restarts_total",
      help:
        "Instances that came after another one: it died by itself, was not ready in time, or " +
        "somebody asked",
      type: "counter",
    },
    ({ meterOf }, [process]) => {
      const meter = meterOf(process);
      if (meter === undefined) return [];
      return restartReasons.map((reason) => ({
        labels: { process, reason },
        value: meter.restarts[reason],
      }));
    },
  ],
  [
    {
      name: "hostler_process_refused_starts_total",
      help: "Starts that the kernel or the agent refused",
      type: "counter",
    },
    (_facts, [process, { refusedStarts }]) => [{ labels: { process }, value: refusedStarts }],
  ],
  [
    {
      name: "hostler_process_restart_seconds",
      help:
        "From a death that was noticed to the next start, waits of the back-off with it; only " +
        "of processes that were restarted",
      type: "histogram",
    },
    ({ meterOf }, [process]) => {
      const meter = meterOf(process);
      if (meter === undefined || meter.counts.every((count) => count === 0)) return [];
      const { counts, sum } = meter;
      return histogramSamples({ process }, { counts, sum, bounds: RESTART_BUCKETS });
    },
  ],
  [
    {
      name: "hostler_process_cpu_seconds_total",
      help: `Processor time of the instance that runs; ${bySource}`,
      type: "counter",
    },
    ({ usage }, [process]) => {
      const cpu = usage.get(process)?.cpu;
      return cpu === undefined ? [] : [{ labels: { process, by: cpu.by }, value: cpu.value }];
    },
  ],
  [
    {
      name: "hostler_process_memory_bytes",
      help: `Memory of the instance that runs: charged to its cgroup, or resident; ${bySource}`,
      type: "gauge",
    },
    ({ usage }, [process]) => {
      const memory = usage.get(process)?.memory;
      return memory === undefined
        ? []
        : [{ labels: { process, by: memory.by }, value: memory.value }];
    },
  ],
  [
    {
      name: "hostler_process_log_dropped_lines_total",
      help: "Lines that are not kept any more, as process logs tells it",
      type: "counter",
    },
    ({ logOf }, [process]) => {
      const book = logOf(process);
      return book === undefined ? [] : [{ labels: { process }, value: book.dropped }];
    },
  ],
  [
    {
      name: "hostler_process_log_file_dropped_lines_total",
      help: "Lines that its log_file did not take: a full disk, or one that is too slow",
      type: "counter",
    },
    ({ logFileOf }, [process]) => {
      const file = logFileOf(process);
      return file === undefined ? [] : [{ labels: { process }, value: file.dropped }];
    },
  ],
];
