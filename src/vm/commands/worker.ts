import { tellText } from "../../command-line/output.ts";
import { configureLogging } from "../../logging/logger.ts";
import { formatErrors, formatWarning } from "../../toml/format-errors.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { readWorkerConfiguration, workerDefaults } from "../worker-configuration.ts";

interface WorkerFlags {
  readonly config: string | undefined;
  readonly "log-json": boolean;
  readonly verbose: boolean;
}

export async function runWorkerCommand(flags: WorkerFlags): Promise<number> {
  const outcome =
    flags.config === undefined
      ? { kind: "ok" as const, configuration: workerDefaults, warnings: [] }
      : readWorkerConfiguration(flags.config);
  if (outcome.kind === "refused") {
    tellText(formatErrors(outcome.errors));
    return ExitCode.usage;
  }
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  const { runWorker } = await import("../worker.ts");
  const warnings = outcome.warnings.map(formatWarning);
  return await runWorker({ configuration: outcome.configuration, warnings });
}
