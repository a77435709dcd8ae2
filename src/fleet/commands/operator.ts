import { type AuthorityFlags, readFlags } from "../../authority/commands/daemon.ts";
import { configureLogging } from "../../logging/logger.ts";

/** @throws UsageError, and what the daemon throws */
export async function runOperatorCommand(flags: AuthorityFlags): Promise<number> {
  const { operatorBuckets, runOperator } = await import("../operator/daemon.ts");
  const options = readFlags(flags, process.getuid?.() ?? 0, operatorBuckets);
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  return await runOperator(options);
}
