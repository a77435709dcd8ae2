import { printJson, printText } from "../../command-line/output.ts";
import { renderTable } from "../../command-line/table.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { OrchestratorClient } from "../client.ts";
import type { PartitionSummary } from "../protocol.ts";

interface PartitionOptions {
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Prints where processes run beside this host, and whether their agents are there. */
export async function runPartitions(options: PartitionOptions): Promise<number> {
  using client = await OrchestratorClient.connect(options["control-socket"]);
  const partitions = await client.partitions();
  if (options.json) await printJson(partitions);
  else await printText(renderPartitions(partitions));
  return ExitCode.done;
}

/** The table of all partitions, with a column for reasons where one is away. */
export function renderPartitions(partitions: readonly PartitionSummary[]): string {
  const hasReasons = partitions.some(({ reason }) => reason !== null);
  const columns = [
    ...["NAME", "STATE", "SINCE", "AGENT", "PID", "PROTOCOL", "ENDPOINT", "PROCESSES"],
    ...(hasReasons ? ["REASON"] : []),
  ];
  const rows = partitions.map((partition) => [
    partition.name,
    partition.state,
    partition.since,
    partition.agent_version ?? "-",
    partition.agent_pid === null ? "-" : String(partition.agent_pid),
    partition.protocol,
    endpointText(partition.endpoint),
    partition.processes.join(",") || "-",
    ...(hasReasons ? [partition.reason ?? ""] : []),
  ]);
  return renderTable(columns, rows);
}

function endpointText({ connect, listen }: PartitionSummary["endpoint"]): string {
  return listen === undefined ? `connect ${connect ?? "-"}` : `listen ${listen}`;
}
