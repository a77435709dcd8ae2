import { type AuthorityFlags, readFlags } from "../../authority/commands/daemon.ts";
import { tellText } from "../../command-line/output.ts";
import { configureLogging } from "../../logging/logger.ts";
import { formatErrors } from "../../toml/format-errors.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { masterDefaults, readMasterConfiguration } from "../master/configuration.ts";

interface MasterCommandFlags extends AuthorityFlags {
  readonly config: string | undefined;
}

/** @throws UsageError, and what the daemon throws */
export async function runMasterCommand(flags: MasterCommandFlags): Promise<number> {
  const outcome =
    flags.config === undefined
      ? { kind: "ok" as const, configuration: masterDefaults }
      : readMasterConfiguration(flags.config);
  if (outcome.kind === "refused") {
    tellText(formatErrors(outcome.errors));
    return ExitCode.usage;
  }
  const { masterBuckets, runMaster } = await import("../master/daemon.ts");
  const options = readFlags(flags, process.getuid?.() ?? 0, masterBuckets);
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  return await runMaster(options, outcome.configuration);
}
