import { clientFlags, jsonFlag } from "../../authority/flags.ts";

export { jsonFlag };

/** What commands that ask an orchestrator have in common. */

export const refused = { 111: "the orchestrator is away, or refused" } as const;

export const askFlags = {
  ...clientFlags,
  "control-socket": {
    ...clientFlags["control-socket"],
    description: "Where this host's orchestrator takes requests",
  },
  ...jsonFlag,
} as const;

export const runArgument = {
  run: { type: "positional", description: "The number of a run" },
} as const;
export const hostArgument = {
  host: { type: "positional", description: "A host's name, or the card that it boots from" },
} as const;
export const reasonFlag = {
  reason: { type: "string", valueHint: "text", description: "Why, for whoever looks" },
} as const;
export const stageFlag = {
  stage: { type: "string", valueHint: "stage", description: "SMART, CPUStress, Storage, …" },
} as const;
