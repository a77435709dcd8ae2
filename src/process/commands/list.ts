import { printJson, printJsonLine, printText } from "../../command-line/output.ts";
import { renderTable } from "../../command-line/table.ts";
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

/** Prints all processes; with `watch` again whenever something happens. */
export async function runList(options: ListOptions): Promise<number> {
  using client = await OrchestratorClient.connect(options["control-socket"]);
  if (options.watch) await watch(client, options.json);
  else if (options.json) await printJson(await client.list());
  else await printText(renderList(await client.list()));
  return ExitCode.done;
}

/** The table of all processes, with columns for refused starts and reasons where there are any. */
export function renderList(processes: readonly ProcessSummary[]): string {
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
  return renderTable(columns, rows);
}

/** Draws after every event; what happens while it draws is drawn together. */
async function watch(client: OrchestratorClient, json: boolean): Promise<void> {
  let changed = true;
  let wake = Promise.withResolvers<void>();
  const follow = async (): Promise<never> => {
    for await (const _event of client.events({ follow: true })) {
      changed = true;
      wake.resolve();
    }
    throw new Error("The orchestrator ended the stream of its events");
  };
  const draw = async (): Promise<never> => {
    for (;;) {
      if (!changed) await wake.promise;
      wake = Promise.withResolvers<void>();
      changed = false;
      const processes = await client.list();
      if (json) await printJsonLine(processes);
      else await printText(frame(renderList(processes)));
    }
  };
  await Promise.race([follow(), draw()]);
}

/** On a terminal the table stays in its place; elsewhere tables follow each other. */
function frame(table: string): string {
  return process.stdout.isTTY ? `\u001b[H\u001b[2J${table}` : `${table}\n`;
}
