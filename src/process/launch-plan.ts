import * as v from "valibot";
import { constraintsSchema } from "./protocol.ts";

/**
 * What the launcher is told on its command line: `hostler --launch <plan> <program> <argv…>`.
 * Its own environment is the child's, less the variables that would change the launcher itself.
 */
export const launchPlanSchema = v.strictObject({
  constraints: constraintsSchema,
  /** The cgroup folder of this instance, which exists already. */
  cgroup: v.optional(v.string()),
  /** The limit on open descriptors that the child gets; the launcher's own was raised by Bun. */
  open_files: v.strictObject({ soft: v.number(), hard: v.number() }),
  /** Variables that the launcher must not see itself, as NAME=value. */
  carried: v.array(v.string()),
  /** The descriptor on which a failure is reported; closed by a successful exec. */
  report: v.number(),
});
export type LaunchPlan = v.InferOutput<typeof launchPlanSchema>;

/** What the launcher writes when it fails: one JSON object. */
export const launchFailureSchema = v.strictObject({
  /** What was tried: "exec", "setuid" … */
  stage: v.string(),
  message: v.string(),
  code: v.optional(v.string()),
});
export type LaunchFailure = v.InferOutput<typeof launchFailureSchema>;

/** True for variables that would change what our own binary does. */
export const changesBun = (variable: string) =>
  variable.startsWith("BUN_") || variable.startsWith("HOSTLER_");
