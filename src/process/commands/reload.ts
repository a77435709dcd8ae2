import { printJsonLine, printText, tellText } from "../../command-line/output.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { formatErrors, formatWarning } from "../../toml/format-errors.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { OrchestratorClient, OrchestratorError } from "../client.ts";
import type { ReloadPart } from "../protocol.ts";
import { describePlan } from "../reload-plan.ts";
import { streamLine } from "./words.ts";

interface ReloadOptions {
  readonly "dry-run": boolean;
  readonly wait: boolean;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Has the orchestrator read its configuration anew, and says what that means. */
export async function runReload(options: ReloadOptions): Promise<number> {
  const { "dry-run": dryRun, wait, json } = options;
  if (dryRun && wait) {
    throw new UsageError("Expected --dry-run or --wait, received both: nothing is waited for");
  }
  using client = await OrchestratorClient.connect(options["control-socket"]);
  let last: ReloadPart["what"] | undefined;
  for await (const part of client.reload({ dryRun })) {
    last = part.what;
    await tellPart(part, json);
    if (part.what === "refused") return ExitCode.usage;
    if (part.what === "planned" && !wait) return ExitCode.done;
    if (part.what === "applied" && part.refused.length > 0) return ExitCode.refused;
  }
  if (last === "applied") return ExitCode.done;
  throw new OrchestratorError("The orchestrator did not say what became of the reload");
}

async function tellPart(part: ReloadPart, json: boolean): Promise<void> {
  if (json) {
    await printJsonLine(part);
    return;
  }
  switch (part.what) {
    case "refused":
      tellText(formatErrors(part.errors));
      break;
    case "planned":
      tellText(part.warnings.map((warning) => `${formatWarning(warning)}\n`).join(""));
      await printText(
        describePlan(part)
          .map((line) => streamLine([line]))
          .join(""),
      );
      break;
    case "applied":
      for (const { name, reason } of part.refused) {
        tellText(streamLine([`${name}: cannot be changed while it runs: ${reason}`]));
      }
      await printText(`${part.refused.length === 0 ? "all of it" : "the rest"} is put in\n`);
      break;
  }
}
