import * as v from "valibot";
import { fleetLimits, instanceSchema } from "./protocol.ts";

/** What an agent asks of the supervisor that is its parent, on a control socket. */

export const defaultSuperviseSocket = "/run/hostler/fleet-supervise.sock";

/** Names the control socket to an agent that runs under a supervisor. */
export const SUPERVISOR_VARIABLE = "HOSTLER_FLEET_SUPERVISOR";
/** Names the installation to whatever a supervisor has started: who follows it knows them by it. */
export const FOLDER_VARIABLE = "HOSTLER_FLEET_FOLDER";

export const superviseLimits = {
  words: 64,
  wordLength: 4_096,
  variables: 64,
  /** Milliseconds that a candidate may be given, at most. */
  time: 604_800_000,
} as const;

const id = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const text = v.pipe(v.string(), v.maxLength(superviseLimits.wordLength));
const time = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(superviseLimits.time));
const instance = instanceSchema;

export const superviseRequestSchema = v.variant("verb", [
  v.strictObject({
    id,
    verb: v.literal("start-candidate"),
    instance,
    /** Absolute: the supervisor looks nowhere for it. */
    program: v.pipe(text, v.startsWith("/")),
    words: v.pipe(v.array(text), v.maxLength(superviseLimits.words)),
    environment: v.pipe(
      v.record(v.pipe(text, v.regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "the name of a variable")), text),
      v.check(
        (variables) => Object.keys(variables).length <= superviseLimits.variables,
        `at most ${superviseLimits.variables} variables`,
      ),
    ),
    ends_after_ms: time,
    ready_within_ms: time,
  }),
  v.strictObject({ id, verb: v.literal("find-candidate"), instance }),
  v.strictObject({ id, verb: v.literal("candidate-end"), instance }),
  v.strictObject({ id, verb: v.literal("stop-candidate"), instance }),
  v.strictObject({ id, verb: v.literal("restart-canonical") }),
  /** How the agent before this one ended; null where this supervisor has seen none end. */
  v.strictObject({ id, verb: v.literal("canonical-end") }),
  v.strictObject({ id, verb: v.literal("renew") }),
  v.strictObject({ id, verb: v.literal("status") }),
]);
export type SuperviseRequest = v.InferOutput<typeof superviseRequestSchema>;

/**
 * What a supervisor gives to itself when it goes on as another version: a child keeps its number,
 * and stays a child, when its parent calls execve(2). Loose, because a later version may say more.
 */
export const adoptionSchema = v.looseObject({
  format: v.literal(1),
  canonical: v.nullable(
    v.looseObject({ process: v.pipe(v.number(), v.safeInteger(), v.minValue(2)), program: text }),
  ),
});
export type Adoption = v.InferOutput<typeof adoptionSchema>;

/** Of `status`. */
export interface SuperviseStatus {
  readonly folder: string;
  readonly canonical: { readonly process: number; readonly program: string } | null;
  readonly candidate: { readonly process: number; readonly instance: string } | null;
}

/** Last words that are kept of candidates that have ended. */
export const MOST_ENDINGS = 8;
export const MOST_LOG: number = fleetLimits.lastWords;
