import { type AuthorityFlags, readFlags } from "../../authority/commands/daemon.ts";
import { configureLogging } from "../../logging/logger.ts";

/** @throws UsageError, and what the daemon throws */
export async function runOrchestratorCommand(flags: AuthorityFlags): Promise<number> {
  const { orchestratorBuckets, runOrchestrator } = await import("../orchestrator/daemon.ts");
  const options = readFlags(flags, process.getuid?.() ?? 0, orchestratorBuckets);
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  return await runOrchestrator(options);
}
