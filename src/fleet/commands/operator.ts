import { type AuthorityFlags, readFlags } from "../../authority/commands/daemon.ts";
import { tellText } from "../../command-line/output.ts";
import { configureLogging } from "../../logging/logger.ts";
import { formatErrors } from "../../toml/format-errors.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { operatorDefaults, readOperatorConfiguration } from "../operator/configuration.ts";

interface OperatorFlags extends AuthorityFlags {
  readonly config: string | undefined;
}

/** @throws UsageError, and what the daemon throws */
export async function runOperatorCommand(flags: OperatorFlags): Promise<number> {
  const outcome =
    flags.config === undefined
      ? { kind: "ok" as const, configuration: operatorDefaults }
      : readOperatorConfiguration(flags.config);
  if (outcome.kind === "refused") {
    tellText(formatErrors(outcome.errors));
    return ExitCode.usage;
  }
  const { operatorBuckets, runOperator } = await import("../operator/daemon.ts");
  const options = readFlags(flags, process.getuid?.() ?? 0, operatorBuckets);
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  return await runOperator(options, outcome.configuration);
}
