import { printText, tellText } from "../../command-line/output.ts";
import { wholeNumber } from "../../command-line/parse.ts";
import { EventLoop } from "../../event-loop/event-loop.ts";
import { startWorker } from "../../event-loop/worker-factory.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { WorkerClient, WorkerError } from "../client.ts";
import { consoleLogOf } from "../console-log.ts";
import { plainConsoleText } from "../console-text.ts";
import { readScrollback } from "../perform/console-scrollback.ts";
import { attachConsole, processTerminal } from "../perform/console-terminal.ts";
import type { ViewerMode } from "../perform/machine-console.ts";
import { dialViewer } from "../perform/viewer.ts";

/** Lines that a console is asked for at most. */
const MOST_LINES = 1_000_000;

interface ConsoleOptions {
  readonly name: string;
  readonly "read-only": boolean;
  readonly take: boolean;
  readonly "control-socket": string;
}

/** Attaches this terminal until Ctrl-] is typed, or the worker ends it. */
export async function runConsole(options: ConsoleOptions): Promise<number> {
  const { name } = options;
  const path = await consolePath(name, options["control-socket"]);
  const mode = modeOf(options);
  using loop = new EventLoop(startWorker);
  const socket = dialViewer(path, mode);
  if (typeof socket === "string") throw new WorkerError(`The console of ${name}: ${socket}`);
  if (process.stdin.isTTY) tellText(`Attached to ${name}; Ctrl-] leaves it.\n`);
  const how = await attachConsole(loop, socket, processTerminal());
  if (how.kind === "detached") return ExitCode.done;
  throw new WorkerError(`The console of ${name} ended: ${how.reason}`);
}

function modeOf(options: ConsoleOptions): ViewerMode {
  if (options["read-only"]) return "r";
  return options.take ? "t" : "w";
}

async function consolePath(name: string, controlSocket: string): Promise<string> {
  using client = await WorkerClient.connect(controlSocket);
  return await client.console(name);
}

interface LogOptions {
  readonly name: string;
  readonly lines: string | undefined;
  readonly "control-socket": string;
}

/** Prints what the console said; nothing in it drives the terminal. */
export async function runLogs(options: LogOptions): Promise<number> {
  const range = { name: "--lines", least: 0, most: MOST_LINES };
  const lines = options.lines === undefined ? undefined : wholeNumber(options.lines, range);
  using client = await WorkerClient.connect(options["control-socket"]);
  const { folder } = await client.show(options.name);
  await printText(plainConsoleText(readScrollback(consoleLogOf(folder)), lines));
  return ExitCode.done;
}
