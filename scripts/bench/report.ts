/** The result as Markdown for people and the system's README, and as JSON. */
import type { Findings } from "./measure.ts";
import type { ProcessBenchResult } from "./process.ts";
import type { Memory } from "./process-status.ts";
import { pairedRatio, type Summary, summarize } from "./statistics.ts";
import { describe, describeMemory, type Place, table, times } from "./tables.ts";

export const place: Place = { file: "src/process/README.md", bench: "process" };

interface Gap {
  readonly summary: Summary | undefined;
  readonly ratio: number | undefined;
}

interface RowReport {
  readonly name: string;
  readonly short: Gap;
  readonly long: Gap;
  readonly missed: number;
  readonly start: Summary | undefined;
  readonly memory: Memory | undefined;
}

function reportRows({ rows }: ProcessBenchResult): RowReport[] {
  const [floor] = rows;
  const gapOf = (row: Findings, gap: "short" | "long"): Gap => ({
    summary: summarize([...row[gap].values()].flat()),
    ratio: floor === undefined ? undefined : pairedRatio(row[gap], floor[gap]),
  });
  return rows.map((row) => ({
    name: row.name,
    short: gapOf(row, "short"),
    long: gapOf(row, "long"),
    missed: row.missed,
    start: summarize(row.starts),
    memory: row.memory,
  }));
}

/** Tables, the machine, and how it was measured. */
export function formatMarkdown(result: ProcessBenchResult): string {
  const restarts = table(
    ["SIGKILL → first instruction", "after 20 ms", "floor", "after 1.5 s", "floor"],
    reportRows(result).map(({ name, short, long, missed }) => [
      missed === 0 ? name : `${name} (${missed} restarts missed)`,
      describe(short.summary),
      times(short.ratio),
      describe(long.summary),
      times(long.ratio),
    ]),
  );
  const daemons = table(
    ["Daemons", "start → child runs, ms", "RSS", "PSS", "anonymous, MiB"],
    reportRows(result)
      .filter(({ start }) => start !== undefined)
      .map(({ name, start, memory }) => [name, describe(start), ...describeMemory(memory)]),
  );
  const own = table(
    ["hostler's daemons", "start → READY=1, ms", "RSS", "PSS", "anonymous, MiB"],
    result.daemons.map(({ name, ready, memory }) => [
      name,
      describe(summarize(ready)),
      ...describeMemory(memory),
    ]),
  );
  const reexecutions = table(
    ["`process reexecute`", "lines of logs", "the control socket does not answer, ms"],
    result.reexecutions.map(({ processes, lines, silences }) => [
      processes === 1 ? "1 process" : `${processes} processes`,
      lines.toLocaleString("en"),
      describe(summarize(silences)),
    ]),
  );
  const tables = [restarts, legend(result), daemons, own, reexecutions];
  return [...tables, describeMachine(result)].join("\n\n");
}

function legend({ seed }: ProcessBenchResult): string {
  return [
    "Milliseconds: **median** (10th–90th percentile), number of samples. The factor is the median",
    "of the ratios to the floor of the same round. One run, all rows in every round, in an order",
    `drawn from the seed ${seed}. The floor is 40 lines of C: posix_spawn, pidfd, poll, waitid.`,
    "Every supervisor is in SCHED_FIFO 10, less the threads of its runtime that only compile and",
    "collect; every child is in SCHED_OTHER (each was looked at). hostler is in its default",
    'configuration with `backoff = "none"`; user = "nobody" goes through its launcher. s6 and',
    "runit start a child at most once a second; supervisord looks once a second; pm2 is without",
    "its limit of 16 restarts.",
  ].join("\n");
}

function describeMachine({ machine }: ProcessBenchResult): string {
  const { processor, cores, kernel, hostler, peers } = machine;
  const versions = Object.entries(peers).map(([name, version]) => `${name} ${version}`);
  const [first, ...others] = versions;
  const own = `hostler ${hostler["hostler"]} (${hostler["commit"]?.slice(0, 12)})`;
  return [
    `Measured on ${processor}, ${cores} cores, Linux ${kernel}, ${hostler["libc"]};`,
    `${own}, Bun ${hostler["Bun"]}, ${first},`,
    `${others.join(", ")}.`,
  ].join("\n");
}

export function formatJson(result: ProcessBenchResult): string {
  const { machine, seed, daemons, reexecutions } = result;
  const report = { machine, seed, rows: reportRows(result), daemons, reexecutions };
  return JSON.stringify(report, undefined, 2);
}
