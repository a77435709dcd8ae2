import { tellText } from "../../command-line/output.ts";
import { configureLogging } from "../../logging/logger.ts";
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
    const lines = outcome.errors.map(({ file, line, column, key_path, expected, received }) => {
      const place = line === 0 ? file : `${file}:${line}:${column}`;
      const key = key_path === "" ? "" : `${key_path}: `;
      return `${place}: ${key}expected ${expected}, received ${received}\n`;
    });
    tellText(lines.join(""));
    return ExitCode.usage;
  }
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  const { runWorker } = await import("../worker.ts");
  const warnings = outcome.warnings.map(
    ({ file, line, key_path, message, mend }) =>
      `${file}:${line}: ${key_path}: ${message}. ${mend}`,
  );
  return await runWorker({ configuration: outcome.configuration, warnings });
}
