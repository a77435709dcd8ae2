import * as v from "valibot";
import { constraintsSchema } from "./protocol.ts";

/**
 * What the launcher is told on its command line:
 * `hostler --launch <plan> <program> <argv…> <environment…>`. Its own environment is not the
 * child's, in which anything may stand that changes what Bun or the C library do.
 */
export const launchPlanSchema = v.strictObject({
  constraints: constraintsSchema,
  /** The cgroup folder of this instance, which exists already. */
  cgroup: v.optional(v.string()),
  /** The limit on open descriptors that the child gets; the launcher's own was raised by Bun. */
  open_files: v.strictObject({ soft: v.number(), hard: v.number() }),
  /** How many words of argv there are; the environment follows them. */
  arguments: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  /** The child's descriptors; others end with the exec. */
  descriptors: v.array(v.number()),
  /** LISTEN_PID of sd_listen_fds(3) says the child's own number. */
  listen: v.optional(v.boolean()),
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
