import { printJsonLine, printText } from "../../command-line/output.ts";
import { escapeControls } from "../../logging/format.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { WorkerClient } from "../client.ts";
import type { VmEventRecord } from "../protocol.ts";

interface EventOptions {
  readonly name: string | undefined;
  readonly follow: boolean;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Prints what happened. */
export async function runEvents(options: EventOptions): Promise<number> {
  const { name, follow } = options;
  using client = await WorkerClient.connect(options["control-socket"]);
  const request = { ...(name !== undefined && { name }), ...(follow && { follow }) };
  for await (const event of client.events(request)) {
    if (options.json) await printJsonLine(event);
    else await printText(eventText(event));
  }
  return ExitCode.done;
}

function eventText({ time, name, what, detail }: VmEventRecord): string {
  const words = [time, name, what, ...(detail === undefined ? [] : [detail])];
  return `${escapeControls(words.join(" "))}\n`;
}
