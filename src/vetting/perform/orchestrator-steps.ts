import { killPoint } from "../../../ffi/fault-hooks.ts";

/** Steps of an orchestrator's database, before and after each of which a test kills it. */
export const orchestratorSteps = ["create", "commit"] as const;
export type OrchestratorStep = (typeof orchestratorSteps)[number];

/** In the build for fault tests this ends the process when a test named the place. */
export function passOrchestratorStep(step: OrchestratorStep, when: "before" | "after"): void {
  killPoint(`vetting-orchestrator:${step}:${when}`);
}
