import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { UsageError } from "../../command-line/usage-error.ts";
import { configureLogging } from "../../logging/logger.ts";
import { type GivenParameters, readBootParameters } from "../agent/boot-parameters.ts";

interface Flags {
  readonly orchestrator: string | undefined;
  readonly run: string | undefined;
  readonly pin: string | undefined;
  readonly mac: string | undefined;
  readonly "token-file": string | undefined;
  readonly folder: string;
  readonly "authorized-keys": string | undefined;
  readonly "no-power": boolean;
  readonly "log-json": boolean;
  readonly verbose: boolean;
}

export async function runAgentCommand(flags: Flags): Promise<number> {
  const parameters = readBootParameters(readFileSync("/proc/cmdline", "utf8"), givenBy(flags));
  if ("refusals" in parameters) throw new UsageError(parameters.refusals.join("\n"));
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  const { runAgent } = await import("../agent/run-agent.ts");
  return await runAgent({
    parameters,
    folder: resolve(flags.folder),
    authorizedKeys: resolve(flags["authorized-keys"] ?? join(homedir(), ".ssh/authorized_keys")),
    changesPower: !flags["no-power"],
  });
}

function givenBy(flags: Flags): GivenParameters {
  const { orchestrator, run, pin, mac, "token-file": tokenFile } = flags;
  const token = tokenFile === undefined ? undefined : readToken(tokenFile);
  const all = { orchestrator, run, pin, mac, token };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

function readToken(path: string): string {
  let why: unknown;
  try {
    return readFileSync(path, "utf8").trim();
  } catch (failure) {
    why = failure instanceof Error ? failure.message : failure;
  }
  throw new UsageError(`Cannot read the run's token: ${why}. Give another --token-file.`);
}
