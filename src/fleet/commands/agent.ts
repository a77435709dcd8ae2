import { resolve } from "node:path";
import * as v from "valibot";
import { UsageError } from "../../command-line/usage-error.ts";
import { configureLogging } from "../../logging/logger.ts";
import type { CandidateTicket } from "../agent.ts";
import { instanceSchema, transactionSchema } from "../protocol.ts";
import { readPath } from "./read-path.ts";
import { readHeartbeat } from "./rollout-words.ts";

interface Flags {
  readonly folder: string;
  readonly identity: string;
  readonly candidate: string | undefined;
  readonly transaction: string | undefined;
  readonly heartbeat: string;
  readonly "log-json": boolean;
  readonly verbose: boolean;
}

export async function runAgentCommand(flags: Flags): Promise<number> {
  const options = {
    folder: readPath("--folder", flags.folder),
    identity: resolve(flags.identity),
    candidate: readTicket(flags),
  };
  configureLogging({
    ...(flags["log-json"] && { format: "json" as const }),
    ...(flags.verbose && { level: "debug" as const }),
  });
  const { runAgent } = await import("../agent.ts");
  return await runAgent(options);
}

function readTicket({ candidate, transaction, heartbeat }: Flags): CandidateTicket | undefined {
  if (candidate === undefined && transaction === undefined) return undefined;
  const isWhole = v.is(instanceSchema, candidate) && v.is(transactionSchema, transaction);
  if (isWhole) return { instance: candidate, transaction, every: readHeartbeat(heartbeat) };
  throw new UsageError(
    "Expected 32 hexadecimal digits after each of --candidate and --transaction, as an agent " +
      `tells its candidate, received ${candidate ?? "none"} and ${transaction ?? "none"}`,
  );
}
