import { printJson, printText } from "../../command-line/output.ts";
import { renderTableWithin } from "../../command-line/table.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { formatDuration } from "../../units/units.ts";
import { OrchestratorClient } from "../client.ts";
import type { ProcessSummary } from "../protocol.ts";
import { shortEnding } from "./words.ts";

interface ListOptions {
  readonly "control-socket": string;
  readonly json: boolean;
  readonly watch: boolean;
}

/** Prints all processes; with `watch` what becomes of them. */
export async function runList(options: ListOptions): Promise<number> {
  if (options.watch) return await (await import("./watch.ts")).runWatch(options);
  using client = await OrchestratorClient.connect(options["control-socket"]);
  if (options.json) await printJson(await client.list());
  else await printText(renderList(await client.list(), process.stdout.columns));
  return ExitCode.done;
}

/**
 * The table of all processes, with columns for refused starts and reasons where there are any.
 * @param width of the terminal; undefined: a reason has the room that it takes
 */
export function renderList(processes: readonly ProcessSummary[], width?: number): string {
  const hasReasons = processes.some(({ reason }) => reason !== null);
  const hasRefusals = processes.some(({ refused_starts: refused }) => refused > 0);
  const columns = [
    ...["NAME", "PARTITION", "PHASE", "PID", "RESTARTS"],
    ...(hasRefusals ? ["REFUSED"] : []),
    ...["LAST EXIT", "UPTIME"],
    ...(hasReasons ? ["REASON"] : []),
  ];
  const rows = processes.map((process) => [
    process.name,
    process.partition ?? "-",
    process.phase,
    process.pid === null ? "-" : String(process.pid),
    String(process.restarts),
    ...(hasRefusals ? [String(process.refused_starts)] : []),
    shortEnding(process.last_exit),
    process.uptime_ms === null ? "-" : formatDuration(process.uptime_ms),
    ...(hasReasons ? [process.reason ?? ""] : []),
  ]);
  return renderTableWithin(columns, rows, width);
}
