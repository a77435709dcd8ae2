import { killPoint } from "../../../ffi/fault-hooks.ts";
import type { AgentRoles } from "../upgrade-agent.ts";

/** Every place between two steps at which a test kills us, in the order of the steps. */
export const hostSteps = {
  store: ["begun", "copied", "placed", "stored"],
  swap: ["begun", "previous", "current", "swapped"],
  swapBack: ["reverting", "back", "reverted"],
  collect: ["set-aside", "removed"],
  guard: ["noted", "guarded"],
  install: ["proved", "linked", "named", "units"],
  uninstall: ["taken", "unlinked", "emptied", "removed-all"],
  roles: ["role-noted", "role-asked"],
} as const;

export type HostStep = (typeof hostSteps)[keyof typeof hostSteps][number];

/** In the build for fault tests this ends the process when a test named the step. */
export function passStep(step: HostStep): void {
  killPoint(`fleet:${step}`);
}

/** Where the canonical agent is joined with its host, its store and its supervisor. */
export const agentSteps = [
  /** The journal is read, and what follows from it is begun. */
  "opened",
  /** The store is followed, and told the status. */
  "followed",
  "marker-heard",
  "candidate-heard",
  "status-told",
  "hand-over",
  "handed-over",
  "renew",
] as const;
export type AgentStep = (typeof agentSteps)[number];

/** As passStep. */
export function passAgentStep(step: AgentStep): void {
  killPoint(`fleet-agent:${step}`);
}

/** Roles, between two of these steps. */
export function passHandOver(roles: AgentRoles): AgentRoles {
  return {
    handOver: (build, onLook) => {
      passAgentStep("hand-over");
      const handed = roles.handOver(build, onLook);
      passAgentStep("handed-over");
      return handed;
    },
  };
}
