import { isAbsolute } from "node:path";
import { printJson, printText } from "../../command-line/output.ts";
import { alignColumns } from "../../command-line/table.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { OrchestratorClient } from "../client.ts";
import type { About } from "../protocol.ts";

interface AboutOptions {
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Prints which program the orchestrator runs. */
export async function runAbout(options: AboutOptions): Promise<number> {
  using client = await OrchestratorClient.connect(options["control-socket"]);
  return await tell(await client.about(), options);
}

interface ReexecuteOptions extends AboutOptions {
  readonly file: string | undefined;
  readonly digest: string | undefined;
}

/** Has the orchestrator go on as another program, and prints which one that is. */
export async function runReexecute(options: ReexecuteOptions): Promise<number> {
  const { file, digest } = options;
  if (file !== undefined && !isAbsolute(file)) {
    throw new UsageError(`Expected the absolute path of a file, received ${file}`);
  }
  refuseDigest(digest);
  using client = await OrchestratorClient.connect(options["control-socket"]);
  const about = await client.reexecute({
    ...(file !== undefined && { program: file }),
    ...(digest !== undefined && { digest }),
  });
  return await tell(about, options);
}

/** @throws UsageError where --digest is given, and is no SHA-256 */
export function refuseDigest(digest: string | undefined): void {
  if (digest === undefined || /^[0-9a-f]{64}$/.test(digest)) return;
  throw new UsageError(`Expected 64 hexadecimal digits after --digest, received ${digest}`);
}

/** What a crash of it would leave to go on. */
function describeHolder({ holder }: About): string {
  if (holder === null || holder === undefined) return "none: a crash ends what runs";
  if (holder.process_id === 0) return "not there: a crash ends what runs";
  if (holder.kept === null) return `process ${holder.process_id}, just reached`;
  return `process ${holder.process_id}, keeps ${holder.kept} descriptors`;
}

async function tell(about: About, { json }: AboutOptions): Promise<number> {
  if (json) await printJson(about);
  else await printText(renderAbout(about));
  return ExitCode.done;
}

export function renderAbout(about: About): string {
  const rows = [
    ["version", `${about.version} (${about.commit})`],
    ["program", about.program],
    ["SHA-256", about.digest],
    ["process", String(about.process_id)],
    ["instance", about.instance],
    ["since", about.started_at],
    ["holder", describeHolder(about)],
  ];
  return `${alignColumns(rows).join("\n")}\n`;
}
