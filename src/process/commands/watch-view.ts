import { alignColumns } from "../../command-line/table.ts";
import { formatBytes } from "../../units/bytes.ts";
import { formatDuration, type MonotonicTime } from "../../units/units.ts";
import type { ProcessSummary } from "../protocol.ts";
import { endingText, phaseText, shortEnding, streamLine } from "./words.ts";

/** What becomes of processes, from one look at them to the next. Pure. */

export interface Look {
  readonly at: MonotonicTime;
  readonly processes: readonly ProcessSummary[];
}

/** Of one processor, since the look before; null where there is nothing to compare with. */
export function processorPercents(before: Look | undefined, now: Look): (number | null)[] {
  const formerly = new Map(before?.processes.map((process) => [process.name, process]));
  const seconds = (now.at - (before?.at ?? now.at)) / 1_000;
  return now.processes.map((process) => percentOf(process, formerly.get(process.name), seconds));
}

function percentOf(
  process: ProcessSummary,
  former: ProcessSummary | undefined,
  seconds: number,
): number | null {
  // Another instance has begun anew, even where it has come further meanwhile.
  if (former?.invocation !== process.invocation || seconds <= 0) return null;
  const [one, other] = [former.usage?.cpu_seconds, process.usage?.cpu_seconds];
  if (one === undefined || other === undefined || other < one) return null;
  return Math.round(((other - one) / seconds) * 1_000) / 10;
}

/** Why it does not run, or how the instance before this one ended when that was no success. */
export function lastError({ reason, last_exit: ending }: ProcessSummary): string {
  if (reason !== null) return reason;
  const isSuccess = ending === null || (ending.kind === "exited" && ending.status === 0);
  return isSuccess ? "" : endingText(ending);
}

const head = ["NAME", "PHASE", "PID", "RESTARTS", "CPU", "MEMORY", "UPTIME", "LAST ERROR"];

/** One line for all of them, and a table in the order of the configuration. */
export function renderWatch(before: Look | undefined, now: Look): string[] {
  const percents = processorPercents(before, now);
  const rows = now.processes.map((process, index) => {
    const percent = percents[index] ?? null;
    return [
      process.name,
      process.phase,
      process.pid === null ? "-" : String(process.pid),
      String(process.restarts),
      percent === null ? "-" : `${percent.toFixed(1)} %`,
      process.usage == null ? "-" : formatBytes(process.usage.memory_bytes),
      process.uptime_ms === null ? "-" : formatDuration(inWholeSeconds(process.uptime_ms)),
      lastError(process),
    ];
  });
  return [summaryOf(now, percents), ...alignColumns([head, ...rows])];
}

/** What is drawn each second need not say more. */
const inWholeSeconds = (time: number) => (time < 1_000 ? time : Math.floor(time / 1_000) * 1_000);

function summaryOf({ processes }: Look, percents: readonly (number | null)[]): string {
  const count = (phase: string) => processes.filter((one) => one.phase === phase).length;
  const percent = percents.reduce<number>((sum, one) => sum + (one ?? 0), 0);
  const memory = processes.reduce((sum, { usage }) => sum + (usage?.memory_bytes ?? 0), 0);
  return [
    `${processes.length} process${processes.length === 1 ? "" : "es"}, ${count("ready")} ready`,
    ...(count("failed") === 0 ? [] : [`${count("failed")} failed`]),
    `${percent.toFixed(1)} % of a processor`,
    formatBytes(memory),
  ].join(", ");
}

/** Those of which something else is to be said than before; all of them where nothing was. */
export function changesOf(
  before: readonly ProcessSummary[] | undefined,
  now: readonly ProcessSummary[],
): ProcessSummary[] {
  const told = new Map(before?.map((process) => [process.name, wordsOf(process)]));
  return now.filter((process) => told.get(process.name) !== wordsOf(process));
}

/** What makes a change: time alone makes none. */
function wordsOf(process: ProcessSummary): string {
  const { uptime_ms: _uptime, usage: _usage, ...rest } = process;
  return JSON.stringify(rest);
}

/** "2026-11-21T04:39:08.170020Z media ready, process 12; 1 restart; last exit SIGKILL". */
export function changeText(time: string, process: ProcessSummary): string {
  const { restarts, refused_starts: refused, last_exit: ending } = process;
  const parts = [
    phaseText(process),
    `${restarts} restart${restarts === 1 ? "" : "s"}`,
    ...(refused === 0 ? [] : [`${refused} refused`]),
    ...(ending === null ? [] : [`last exit ${shortEnding(ending)}`]),
  ];
  return streamLine([time, process.name, parts.join("; ")]);
}
