import { printJsonLine, printText } from "../../command-line/output.ts";
import { wholeNumber } from "../../command-line/parse.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { LiveUpdateClient } from "../client.ts";
import type { UpdateEventRecord } from "../protocol.ts";
import { streamLine } from "./words.ts";

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
  using client = await LiveUpdateClient.connect(options["control-socket"]);
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

/** "2026-11-21T04:39:08.170020Z u-7 ready qemu-1 64 MiB" */
export function eventText(event: UpdateEventRecord): string {
  const { time, update, what, client, session, detail } = event;
  return streamLine([time, update, what, session ?? client, detail]);
}
