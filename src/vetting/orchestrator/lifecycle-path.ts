import type { HardwareIdentity } from "../../hardware/inventory.ts";
import { type PathState, path, type RunState } from "../protocol.ts";
import { type Outcome, type Stage, type StageReport, stages, worstOf } from "../protocol-result.ts";
import type { Run } from "./lifecycle-state.ts";

/** The host is at work, or about to be. */
export function isOnPath(state: RunState): state is PathState {
  return path.some((one) => one === state);
}

export function isFailure(outcome: Outcome): boolean {
  return outcome === "FAIL" || outcome === "ERROR";
}

export function isSameIdentity(left: HardwareIdentity, right: HardwareIdentity): boolean {
  return (
    left.uuid === right.uuid &&
    left.system_serial === right.system_serial &&
    left.board_serial === right.board_serial
  );
}

/**
 * What a report comes to: never better than its findings, and no PASS where less was covered than
 * it says itself that there has to be.
 */
export function outcomeOf({ outcome, findings, coverage }: StageReport): Outcome {
  const worst = worstOf(findings.map((finding) => finding.outcome));
  if (isFailure(worst) && !isFailure(outcome)) return worst;
  if (outcome !== "PASS") return outcome;
  const isShort = coverage.some(
    ({ covered, total, least }) => total !== null && covered < least * total,
  );
  return isShort || worst === "WARN" ? "WARN" : "PASS";
}

/** Stages that are done again when this one is tried again: none before it. */
export function isAtOrBefore(stage: Stage, last: Stage): boolean {
  return stages.indexOf(stage) <= stages.indexOf(last);
}

/** What an operator accepted though it failed. */
export function overridesOf({ stages: walked, ...run }: Run): readonly string[] {
  return [
    ...stages.filter(
      (stage) => walked[stage]?.isOverridden && isFailure(walked[stage]?.outcome ?? "PASS"),
    ),
    ...(run.areRulesOverridden ? ["SpecValidate"] : []),
    ...(run.isIdentityOverridden ? ["identity"] : []),
  ];
}

/** Whether a stage may be gone on after. */
export function isSettled(run: Run, stage: Stage): boolean {
  const progress = run.stages[stage];
  if (progress === undefined || progress.outcome === null) return false;
  return !isFailure(progress.outcome) || progress.isOverridden;
}
