import { write } from "node:fs";
import { promisify } from "node:util";
import * as v from "valibot";
import { OutputClosed, printJson, printText, tellText } from "../../command-line/output.ts";
import { durationArgument } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { parseBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { WorkerClient } from "../client.ts";
import type { ProgramEnding } from "../guest-agent/protocol.ts";
import {
  type ExecCommand,
  type ExecItem,
  execCommandSchema,
  execLimits,
} from "../protocol-exec.ts";

interface ExecOptions {
  readonly name: string;
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly directory: string | undefined;
  readonly "time-limit": string | undefined;
  readonly "output-limit": string | undefined;
  readonly "control-socket": string;
}

/** Runs a program in a guest. @returns its exit status, or 128 and the number of its signal */
export async function runExec(options: ExecOptions): Promise<number> {
  const command = readCommand(options);
  using client = await WorkerClient.connect(options["control-socket"]);
  // A stdout that is closed is told before anything runs.
  await printText("");
  const end = await client.exec(options.name, command, writeItem);
  if (end.killed === "time-limit") tellText(`${options.name}: killed after its time limit\n`);
  if (end.left_out > 0) {
    tellText(`${options.name}: ${end.left_out} bytes of output beyond the limit were left out\n`);
  }
  return exitStatus(end.ending);
}

/** As shells have it. */
export function exitStatus(ending: ProgramEnding): number {
  const SIGNALLED = 128;
  return ending.kind === "exited" ? ending.status : SIGNALLED + ending.signal;
}

/** @throws UsageError for what the worker would refuse: too long a request is not even read */
export function readCommand(
  options: Pick<ExecOptions, "command" | "env" | "directory" | "time-limit" | "output-limit">,
): ExecCommand {
  const { command, env, directory } = options;
  const timeLimit = options["time-limit"];
  const outputLimit = options["output-limit"];
  const outcome = v.safeParse(execCommandSchema, {
    argv: [...command],
    ...(env.length > 0 && { environment: [...env] }),
    ...(directory !== undefined && { working_directory: directory }),
    ...(timeLimit !== undefined && {
      time_limit_ms: Math.ceil(durationArgument("--time-limit", timeLimit)),
    }),
    ...(outputLimit !== undefined && { output_limit: readSize(outputLimit) }),
  });
  if (outcome.success) return outcome.output;
  throw new UsageError(`This cannot be run in a guest: ${describeIssues(outcome.issues)}`);
}

function readSize(text: string): number {
  const bytes = parseBytes(text);
  if (bytes !== undefined && bytes <= execLimits.outputBytes) return bytes;
  const most = `${execLimits.outputBytes / 1024 ** 2}MiB`;
  throw new UsageError(`Expected a size of at most ${most} after --output-limit, received ${text}`);
}

const writeLater = promisify(write);

/**
 * Writes without keeping this thread: a worker lets a client go that does not take what the guest
 * says, and a pager that nobody scrolls is no reason. What waits here is within the output's limit.
 */
async function writeItem({ stream, data }: ExecItem): Promise<void> {
  let bytes = Buffer.from(data, "base64");
  while (bytes.length > 0) {
    try {
      const { bytesWritten } = await writeLater(stream === "stdout" ? 1 : 2, bytes);
      bytes = bytes.subarray(bytesWritten);
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === "EPIPE") throw new OutputClosed(`${stream} is closed`, { cause: error });
      if (code !== "EAGAIN") throw new Error(`Cannot write to ${stream}`, { cause: error });
      // Somebody made the descriptor non-blocking: Bun waits until it takes more.
      const rest = bytes;
      const { promise, resolve } = Promise.withResolvers<void>();
      process[stream].write(rest, () => resolve());
      await promise;
      return;
    }
  }
}

interface PingOptions {
  readonly name: string;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Asks whether the agent in a guest answers. */
export async function runPing({ name, json, ...options }: PingOptions): Promise<number> {
  using client = await WorkerClient.connect(options["control-socket"]);
  const milliseconds = await client.pingGuest(name);
  if (json) await printJson({ name, milliseconds });
  else await printText(`${name}: its agent answered within ${milliseconds.toFixed(2)} ms\n`);
  return ExitCode.done;
}
