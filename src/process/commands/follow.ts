import { printJsonLine, printText } from "../../command-line/output.ts";
import { wholeNumber } from "../../command-line/parse.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { OrchestratorClient } from "../client.ts";
import { configurationLimits } from "../configuration.ts";
import type { LogLine, ProcessEventRecord } from "../protocol.ts";
import { eventDetail, streamLine } from "./words.ts";

interface LogOptions {
  readonly name: string | undefined;
  readonly lines: string | undefined;
  readonly follow: boolean;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Prints what processes wrote. */
export async function runLogs(options: LogOptions): Promise<number> {
  const { name, follow, json } = options;
  const range = { name: "--lines", least: 0, most: configurationLimits.logLines };
  const lines = options.lines === undefined ? undefined : wholeNumber(options.lines, range);
  using client = await OrchestratorClient.connect(options["control-socket"]);
  const request = {
    ...(name !== undefined && { name }),
    ...(lines !== undefined && { lines }),
    ...(follow && { follow }),
  };
  for await (const line of client.logs(request)) {
    if (json) await printJsonLine(line);
    else await printText(logText(line));
  }
  return ExitCode.done;
}

interface EventOptions {
  readonly follow: boolean;
  readonly after: string | undefined;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Prints what happened. */
export async function runEvents(options: EventOptions): Promise<number> {
  const range = { name: "--after", least: 0, most: Number.MAX_SAFE_INTEGER };
  const after = options.after === undefined ? undefined : wholeNumber(options.after, range);
  using client = await OrchestratorClient.connect(options["control-socket"]);
  const request = {
    ...(after !== undefined && { after }),
    ...(options.follow && { follow: true }),
  };
  for await (const event of client.events(request)) {
    if (options.json) await printJsonLine(event);
    else await printText(eventText(event));
  }
  return ExitCode.done;
}

/** "2026-11-21T04:39:07.867827Z media stderr the line"; lost lines are told where they were. */
export function logText(line: LogLine): string {
  const { name, time, stream, dropped = 0 } = line;
  const lost =
    dropped === 0 ? "" : streamLine([time, name, `(${dropped} lines dropped: memory is bounded)`]);
  return lost + streamLine([time, name, stream, line.line]);
}

/** "2026-11-21T04:39:08.170020Z media died ran for 303 ms" */
export function eventText(event: ProcessEventRecord): string {
  return streamLine([event.time, event.name, event.what, eventDetail(event)]);
}
