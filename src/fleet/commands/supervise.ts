import { resolve } from "node:path";
import * as v from "valibot";
import { UsageError } from "../../command-line/usage-error.ts";
import { configureLogging } from "../../logging/logger.ts";
import { type Milliseconds, parseDuration } from "../../units/units.ts";
import { type Adoption, adoptionSchema } from "../protocol-supervise.ts";
import { readPath } from "./read-path.ts";

const MOST_WATCHDOG: Milliseconds = 3_600_000;

interface Flags {
  readonly folder: string;
  readonly "control-socket": string;
  readonly volatile: boolean;
  readonly watchdog: string;
  readonly adopt: string | undefined;
  readonly word: readonly string[];
  readonly "log-json": boolean;
  readonly verbose: boolean;
}

export async function runSuperviseCommand(flags: Flags): Promise<number> {
  const options = {
    folder: readPath("--folder", flags.folder),
    controlSocket: resolve(flags["control-socket"]),
    words: flags.word,
    acceptVolatile: flags.volatile,
    watchdog: readWatchdog(flags.watchdog),
    adoption: readAdoption(flags.adopt),
    notifySocket: process.env["NOTIFY_SOCKET"],
  };
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  const { runSupervise } = await import("../supervise.ts");
  return await runSupervise(options);
}

function readWatchdog(text: string): Milliseconds {
  const time = parseDuration(text);
  if (time !== undefined && time >= 1 && time <= MOST_WATCHDOG) return time;
  throw new UsageError(
    `Expected a time from 1ms to 1h, such as 30s, after --watchdog, received ${text}`,
  );
}

function readAdoption(text: string | undefined): Adoption | undefined {
  if (text === undefined) return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), adoptionSchema), text);
  if (parsed.success) return parsed.output;
  throw new UsageError(
    `Expected what a supervisor gives itself after --adopt, received ${JSON.stringify(text)}`,
  );
}
