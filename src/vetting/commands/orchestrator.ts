import { type AuthorityFlags, readFlags } from "../../authority/commands/daemon.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { configureLogging } from "../../logging/logger.ts";
import { parseAddress } from "../../network/dhcp/address.ts";
import type { OrchestratorConfiguration } from "../orchestrator/daemon.ts";

interface OrchestratorFlags extends AuthorityFlags {
  readonly throughput: string | undefined;
}

/** @throws UsageError, and what the daemon throws */
export async function runOrchestratorCommand(flags: OrchestratorFlags): Promise<number> {
  const { orchestratorBuckets, runOrchestrator } = await import("../orchestrator/daemon.ts");
  const options = readFlags(flags, process.getuid?.() ?? 0, orchestratorBuckets);
  const throughput = readThroughput(flags);
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  return await runOrchestrator(options, { throughput });
}

/** @throws UsageError */
function readThroughput({
  throughput,
  address: own,
}: OrchestratorFlags): OrchestratorConfiguration["throughput"] {
  if (throughput === undefined) return undefined;
  const [, address = "", digits = ""] = /^([\d.]+):(\d{1,5})$/.exec(throughput) ?? [];
  const port = Number(digits);
  if (parseAddress(address) === undefined || port > 65_535) {
    throw new UsageError(
      `Expected IPV4:PORT, such as 10.0.0.1:7445, after --throughput, received ${throughput}`,
    );
  }
  const host = own === undefined ? address : new URL(own).hostname;
  if (host !== "0.0.0.0") return { address, port, host };
  throw new UsageError(
    "Expected --address beside --throughput 0.0.0.0, because hosts are told where to go, " +
      "received none",
  );
}
