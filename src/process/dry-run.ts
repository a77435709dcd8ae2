import { readFileSync, writeSync } from "node:fs";
import { ExitCode } from "../units/exit-code.ts";
import { hostlerCommit, hostlerVersion } from "../units/version.ts";
import type { DryRunAnswer } from "./dry-run-answer.ts";
import { decodeState, type OrchestratorState, refuseState } from "./protocol-state.ts";
import type { Configuration } from "./specification.ts";

const STDIN = 0;
const STDOUT = 1;

let trial: { readonly nonce: string; readonly state: OrchestratorState } | undefined;

/**
 * Looks whether this program could go on with the state on its standard input, called as the
 * orchestrator was: it goes the same way, up to the point where the daemon would begin.
 * @param words the random word, then those that the orchestrator was called with
 */
export async function runDryRun(
  [nonce = "", ...words]: readonly string[],
  runCommand: (words: string[]) => Promise<number>,
): Promise<number> {
  const decoded = decodeState(readFileSync(STDIN, "utf8"));
  if ("refusal" in decoded) {
    tell({ answer: "refused", ...decoded.refusal });
    return ExitCode.refused;
  }
  trial = { nonce, state: decoded.state };
  return await runCommand(words);
}

/** The state that is tried; undefined where nothing is. */
export function stateOnTrial(): OrchestratorState | undefined {
  return trial?.state;
}

/** Says what the trial came to, in place of the daemon with this configuration. */
export async function finishTrial(configuration: Configuration): Promise<number> {
  if (trial === undefined) throw new Error("Bug: there is no trial");
  const { nonce, state } = trial;
  const nameOf = ({ name }: { readonly name: string }) => name;
  const refusal = refuseState(state, {
    processes: configuration.processes.map(nameOf),
    partitions: configuration.partitions.map(nameOf),
  });
  if (refusal !== undefined) {
    tell({ answer: "refused", ...refusal });
    return ExitCode.refused;
  }
  // The whole of it, with the C library: a build for another machine ends here.
  await import("./orchestrator.ts");
  tell({ answer: "ready", nonce, version: hostlerVersion, commit: hostlerCommit });
  return ExitCode.done;
}

function tell(answer: DryRunAnswer): void {
  writeSync(STDOUT, `${JSON.stringify(answer)}\n`);
}
