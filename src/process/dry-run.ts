import { readFileSync, writeSync } from "node:fs";
import { ExitCode } from "../units/exit-code.ts";
import { hostlerCommit, hostlerVersion } from "../units/version.ts";
import type { DryRunAnswer } from "./dry-run-answer.ts";
import { refuseConfiguredState } from "./inherited-configuration.ts";
import { decodeState } from "./protocol-state.ts";

const STDIN = 0;
const STDOUT = 1;

/**
 * Looks whether this program could go on with the state on its standard input, and says so. It
 * loads all that it would need for it, and touches nothing.
 */
export async function runDryRun(nonce: string): Promise<number> {
  const decoded = decodeState(readFileSync(STDIN, "utf8"));
  const refusal = "refusal" in decoded ? decoded.refusal : refuseConfiguredState(decoded.state);
  if (refusal !== undefined) {
    tell({ answer: "refused", ...refusal });
    return ExitCode.refused;
  }
  // The whole of it, with the C library: a build for another machine ends here.
  await import("./orchestrator.ts");
  const program = { version: hostlerVersion, commit: hostlerCommit };
  tell({ answer: "ready", nonce, ...program });
  return ExitCode.done;
}

function tell(answer: DryRunAnswer): void {
  writeSync(STDOUT, `${JSON.stringify(answer)}\n`);
}
