import { printJsonLine, printText } from "../../command-line/output.ts";
import { MetricText } from "../../http/metrics.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { OrchestratorClient } from "../client.ts";

interface MetricsOptions {
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Prints what a scraper is told; as JSON a part of a metric in each line. */
export async function runMetrics(options: MetricsOptions): Promise<number> {
  using client = await OrchestratorClient.connect(options["control-socket"]);
  const text = new MetricText();
  for await (const part of client.metrics()) {
    if (options.json) await printJsonLine(part);
    else await printText(text.of(part));
  }
  return ExitCode.done;
}
