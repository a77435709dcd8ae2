import * as v from "valibot";
import { parseDuration } from "../units/units.ts";
import type { HealthPlan } from "./health.ts";
import { LONGEST_PATTERN } from "./health-pattern.ts";

/** What a configuration may say of a health check; over it is a refusal that a test shows. */
export const healthLimits = {
  /** Milliseconds. */
  shortestTime: 100,
  longestTime: 60 * 60_000,
  /** Failures or successes in a row. */
  most: 1000,
  pathLength: 1024,
} as const;

const duration = v.pipe(
  v.string(),
  v.transform((text) => parseDuration(text) ?? Number.NaN),
  v.check((time) => Number.isFinite(time), 'Expected a duration such as "10s" or "500ms"'),
  v.maxValue(healthLimits.longestTime, 'Expected at most "1h"'),
);
const time = v.pipe(duration, v.minValue(healthLimits.shortestTime, 'Expected at least "100ms"'));
const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535));
const status = v.pipe(v.number(), v.integer(), v.minValue(100), v.maxValue(599));
const count = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(healthLimits.most));
const pattern = v.pipe(v.string(), v.minLength(1), v.maxLength(LONGEST_PATTERN));
const path = v.pipe(
  v.string(),
  v.maxLength(healthLimits.pathLength),
  // It stands in the first line of a request: no space or control character may end it early.
  v.regex(/^\/[\u0021-\u007e]*$/, 'Expected a path such as "/healthz", of printable ASCII'),
);

/** Of every check; the defaults are those of Kubernetes' probes but for the grace. */
const common = {
  interval: v.optional(time, "10s"),
  timeout: v.optional(time, "2s"),
  unhealthy_after: v.optional(count, 3),
  healthy_after: v.optional(count, 1),
  grace: v.optional(duration, "60s"),
};

/** The health check of a machine, as a configuration has it; the kind decides which keys go. */
export const healthSchema = v.pipe(
  v.variant("kind", [
    v.strictObject({ kind: v.literal("tcp"), port, ...common }),
    v.strictObject({
      kind: v.literal("http"),
      port: v.optional(port, 80),
      path: v.optional(path, "/"),
      /** One that is fine; without it 200 to 399. */
      status: v.optional(status),
      body: v.optional(pattern),
      ...common,
    }),
    v.strictObject({ kind: v.literal("agent"), ...common }),
    v.strictObject({ kind: v.literal("serial"), pattern, ...common }),
  ]),
  v.transform((read): HealthPlan => {
    const { interval, timeout, unhealthy_after, healthy_after, grace, ...check } = read;
    const times = { interval, timeout, grace };
    const thresholds = { unhealthyAfter: unhealthy_after, healthyAfter: healthy_after };
    if (check.kind !== "http") return { check, ...times, ...thresholds };
    const fine = check.status;
    const range = fine === undefined ? { least: 200, most: 399 } : { least: fine, most: fine };
    const http = { kind: check.kind, port: check.port, path: check.path, body: check.body };
    return { check: { ...http, status: range }, ...times, ...thresholds };
  }),
);
