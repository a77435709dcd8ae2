import { printJson, printText, tellText } from "../../command-line/output.ts";
import { renderTable } from "../../command-line/table.ts";
import { readConfigurationText } from "../../toml/configuration-file.ts";
import { formatErrors } from "../../toml/format-errors.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { WorkerClient } from "../client.ts";
import { type DeclarationOutcome, declarationBytes, parseDeclaration } from "../declaration.ts";
import type { ReconciliationAnswer } from "../protocol.ts";

import { differsExitCode, isForMaster, type MasterFlags, runClusterApply } from "./cluster.ts";

interface ApplyOptions extends MasterFlags {
  readonly file: string;
  readonly verb: "apply" | "diff";
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Has the worker make and keep the machines as the file declares them, or says what that does. */
export async function runApply(options: ApplyOptions): Promise<number> {
  const { file, verb, json } = options;
  if (isForMaster(options)) return await runClusterApply(options);
  const outcome = readDeclaration(file);
  if (outcome.kind === "refused") {
    if (json) await printJson({ file, ok: false, errors: outcome.errors });
    else tellText(formatErrors(outcome.errors));
    return ExitCode.usage;
  }
  using client = await WorkerClient.connect(options["control-socket"]);
  const answer = await client.declare(verb, outcome.desired);
  if (json) await printJson(answer);
  else await printText(renderReconciliation(answer));
  const isSame = answer.commands.length === 0 && answer.convergence_percent === 100;
  return verb === "apply" || isSame ? ExitCode.done : differsExitCode;
}

function readDeclaration(file: string): DeclarationOutcome {
  const read = readConfigurationText(file, declarationBytes);
  return read.kind === "refused" ? read : parseDeclaration(file, read.text);
}

export function renderReconciliation(answer: ReconciliationAnswer): string {
  const { generation, convergence_percent: percent, commands, machines } = answer;
  const orders = new Map(commands.map((command) => [command.name, command]));
  const rows = machines.map(({ name, status, reason, drift }) => {
    const order = orders.get(name);
    const does = order === undefined ? "-" : `${order.kind}: ${order.detail}`;
    const differs = drift.map(
      ({ key, desired, observed }) =>
        `${key} ${JSON.stringify(observed)} → ${JSON.stringify(desired)}`,
    );
    return [name, status, does, [...differs, ...(reason === null ? [] : [reason])].join("; ")];
  });
  const head = `generation ${generation}: ${percent} % as declared\n`;
  return head + (rows.length === 0 ? "" : renderTable(["NAME", "STATUS", "DOES", "WHY"], rows));
}
