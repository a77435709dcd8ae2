import { printJson, printText } from "../../command-line/output.ts";
import { escapeControls } from "../../logging/format.ts";
import type { VmSummary } from "../protocol.ts";

/** Where a machine is, and where it is to be. */
export function aimedPhase({ phase, wanted }: VmSummary): string {
  return wanted === phase || phase === "removed" ? phase : `${phase} (to be ${wanted})`;
}

/** … and why it is not where it should be. */
export function phaseText(summary: VmSummary): string {
  const { reason } = summary;
  return `${aimedPhase(summary)}${reason === null ? "" : `: ${escapeControls(reason)}`}`;
}

/** How it stands to its checks, and what the first that is not passed says. */
export function healthText({ health }: VmSummary): string {
  if (health === null) return "-";
  const bad = health.checks.find(({ state, reason }) => reason !== null && state === health.state);
  if (bad === undefined || health.state === "healthy") return health.state;
  return `${health.state}: ${bad.check}: ${escapeControls(bad.reason ?? "")}`;
}

/** One line for a machine; null is one that is no more. */
export async function printSummary(
  summary: VmSummary | null,
  options: { readonly json: boolean; readonly name: string },
): Promise<void> {
  if (options.json) await printJson(summary);
  else if (summary === null) await printText(`${options.name}: removed\n`);
  else {
    const address = summary.address === null ? "" : `, ${summary.address}`;
    await printText(`${summary.name}: ${phaseText(summary)}${address}\n`);
  }
}
