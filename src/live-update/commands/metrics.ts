import { printJson, printText } from "../../command-line/output.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { LiveUpdateClient } from "../client.ts";
import type { Metric } from "../protocol.ts";

interface MetricsOptions {
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Prints what Prometheus takes, for the node exporter's textfile collector and the like. */
export async function runMetrics(options: MetricsOptions): Promise<number> {
  using client = await LiveUpdateClient.connect(options["control-socket"]);
  const metrics = await client.metrics();
  if (options.json) await printJson(metrics);
  else await printText(renderMetrics(metrics));
  return ExitCode.done;
}

/** Version 0.0.4 of Prometheus' text format (its "Exposition formats"). */
export function renderMetrics(metrics: readonly Metric[]): string {
  return metrics
    .map(({ name, help, type, samples }) => {
      const lines = samples.map(({ labels, value }) => `${name}${labelText(labels)} ${value}\n`);
      return `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n${lines.join("")}`;
    })
    .join("");
}

/** Ids of clients stand in labels: none of them can end a label or a line. */
function labelText(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(
    ([name, value]) => `${name}="${escapeHelp(value).replaceAll('"', '\\"')}"`,
  );
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

const escapeHelp = (text: string) => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
