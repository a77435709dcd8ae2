import { printJson, printText } from "../../command-line/output.ts";
import { alignColumns, renderTable } from "../../command-line/table.ts";
import { formatBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { describeStartLimit } from "../../units/restarts.ts";
import { formatDuration } from "../../units/units.ts";
import { OrchestratorClient } from "../client.ts";
import type { ProcessDetail } from "../protocol.ts";

import { endingText, eventDetail, phaseText } from "./words.ts";

interface ShowOptions {
  readonly name: string;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Prints all that is known of one process. */
export async function runShow(options: ShowOptions): Promise<number> {
  using client = await OrchestratorClient.connect(options["control-socket"]);
  const detail = await client.show(options.name);
  if (options.json) await printJson(detail);
  else await printText(renderDetail(detail));
  return ExitCode.done;
}

export function renderDetail(detail: ProcessDetail): string {
  const { summary, log, history } = detail;
  const rows = [
    ["name", summary.name],
    ["partition", summary.partition ?? "- (this host)"],
    ["phase", phaseText(summary)],
    ["uptime", summary.uptime_ms === null ? "-" : formatDuration(summary.uptime_ms)],
    ["invocation", summary.invocation ?? "-"],
    ["command", detail.command.map(quoteWord).join(" ")],
    ["after", afterText(detail)],
    ["ready", detail.readiness],
    ...livenessRows(detail.liveness),
    ["restart", restartText(detail)],
    ["restarts", `${summary.restarts}; the last exit: ${endingText(summary.last_exit)}`],
    ...(summary.refused_starts > 0 ? [["refused starts", `${summary.refused_starts}`]] : []),
    ...scheduleRows(detail),
    ["stop", `${detail.stop.signal}, SIGKILL after ${formatDuration(detail.stop.grace_ms)}`],
    ...schedulingRows(detail.scheduling),
    ...parkedRows(detail.descriptor_store),
    ["log", `${log.lines} lines, ${formatBytes(log.bytes)}; ${log.dropped_lines} lines dropped`],
    ...logFileRows(log.file),
  ];
  const events = history.map((event) => [event.time, event.what, eventDetail(event)]);
  const past = renderTable(["WHEN", "WHAT", "HOW"], events);
  return `${alignColumns(rows).join("\n")}\n\n${past}`;
}

function afterText({ after, on_dependency_failure: policy }: ProcessDetail): string {
  if (after.length === 0) return "-";
  return `${after.join(", ")}${policy === "ignore" ? "" : `; on a failure of it: ${policy}`}`;
}

function livenessRows(liveness: ProcessDetail["liveness"]): string[][] {
  if (liveness === undefined) return [];
  const { check, interval_ms: interval, failures, on_failure: onFailure } = liveness;
  const often = failures === undefined ? "within" : "every";
  const limit = failures === undefined ? "" : `, ${failures} failures in a row`;
  return [["alive", `${check} ${often} ${formatDuration(interval)}${limit}; else ${onFailure}`]];
}

function schedulingRows(scheduling: ProcessDetail["scheduling"]): string[][] {
  if (scheduling === undefined) return [];
  const { nice, affinity, policy, priority, oom_score_adjust: score } = scheduling;
  const parts = [
    ...(policy === undefined ? [] : [`${policy}${priority === undefined ? "" : ` ${priority}`}`]),
    ...(nice === undefined ? [] : [`nice ${nice}`]),
    ...(affinity === undefined ? [] : [`processors ${affinity.join(", ")}`]),
    ...(score === undefined ? [] : [`oom_score_adjust ${score}`]),
  ];
  return [["scheduling", parts.join("; ")]];
}

function parkedRows(store: ProcessDetail["descriptor_store"]): string[][] {
  if (store === undefined) return [];
  const each = store.parked.map(({ name, is }) => `${name} (${is})`);
  const count = `${store.parked.length} of ${store.most}`;
  return [["parked", each.length === 0 ? count : `${count}: ${each.join(", ")}`]];
}

function logFileRows(file: ProcessDetail["log"]["file"]): string[][] {
  if (file == null) return [];
  const { path, bytes, dropped_lines: dropped } = file;
  return [["log file", `${path}, ${formatBytes(bytes)}; ${dropped} lines dropped`]];
}

function restartText(detail: ProcessDetail): string {
  const limit = detail.start_limit;
  if (limit === null) return detail.restart;
  const words = describeStartLimit({ starts: limit.starts, within: limit.within_ms });
  return `${detail.restart}; ${words}`;
}

/** The waits that can come if it kept failing; no row where nothing starts it by itself. */
function scheduleRows(detail: ProcessDetail): string[][] {
  const { backoff_schedule_ms: schedule, fails_after_schedule: thenFails } = detail;
  const words = schedule.map((wait) => (wait === 0 ? "at once" : formatDuration(wait)));
  if (thenFails && words.length === 0)
    return [["coming waits", "none: the start limit is reached"]];
  if (thenFails) return [["coming waits", `${words.join(", ")}, then the start limit`]];
  if (schedule.length === 0) return [];
  if (schedule.every((wait) => wait === 0)) return [["coming waits", "none: it restarts at once"]];
  return [["coming waits", `${words.join(", ")} …`]];
}

/** A word as a shell would take it back. */
function quoteWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
