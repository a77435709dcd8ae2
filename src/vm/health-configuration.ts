import * as v from "valibot";
import { parseDuration } from "../units/units.ts";
import type { HealthCheck, HealthPlan } from "./health.ts";
import { LONGEST_PATTERN } from "./health-pattern.ts";

/** What a configuration may say of a health check; over it is a refusal that a test shows. */
export const healthLimits = {
  /** Milliseconds. */
  shortestTime: 100,
  longestTime: 60 * 60_000,
  /** Failures or successes in a row. */
  most: 1000,
  pathLength: 1024,
  /** Checks of one machine. */
  checks: 16,
} as const;

const durationOf = (least: number, expected: string) =>
  v.pipe(
    v.string(),
    v.check(
      (text) => parseDuration(text) !== undefined,
      'Expected a duration such as "10s" or "500ms"',
    ),
    v.check((text) => (parseDuration(text) ?? least) >= least, expected),
    v.check(
      (text) => (parseDuration(text) ?? 0) <= healthLimits.longestTime,
      'Expected at most "1h"',
    ),
  );
const duration = durationOf(0, "Expected a duration");
const time = durationOf(healthLimits.shortestTime, 'Expected at least "100ms"');
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

/** Of every check. */
const common = {
  interval: v.optional(time),
  timeout: v.optional(time),
  unhealthyAfter: v.optional(count),
  healthyAfter: v.optional(count),
  grace: v.optional(duration),
  onUnhealthy: v.optional(v.picklist(["tell", "restart"])),
  stopGrace: v.optional(duration),
};

/** One health check of a machine, as it is declared; the kind decides which keys go. */
export const healthCheckSchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("tcp"), port, ...common }),
  v.strictObject({
    kind: v.literal("http"),
    port: v.optional(port),
    path: v.optional(path),
    /** One that is fine; without it 200 to 399. */
    status: v.optional(status),
    body: v.optional(pattern),
    ...common,
  }),
  v.strictObject({ kind: v.literal("agent"), ...common }),
  v.strictObject({ kind: v.literal("serial"), pattern, ...common }),
]);
export type DeclaredCheck = v.InferOutput<typeof healthCheckSchema>;

/** All checks of a machine: it is healthy when each of them says so. */
export const healthSchema = v.pipe(v.array(healthCheckSchema), v.maxLength(healthLimits.checks));

/** What is left out; those of Kubernetes' probes, but for the graces. */
const defaults = {
  interval: 10_000,
  timeout: 2_000,
  unhealthyAfter: 3,
  healthyAfter: 1,
  grace: 60_000,
  onUnhealthy: "tell",
  stopGrace: 10_000,
} as const;

/** What a declared check comes to. */
export function healthPlanOf(declared: DeclaredCheck): HealthPlan {
  const timeOf = (text: string | undefined, otherwise: number) =>
    text === undefined ? otherwise : (parseDuration(text) ?? otherwise);
  return {
    check: checkOf(declared),
    interval: timeOf(declared.interval, defaults.interval),
    timeout: timeOf(declared.timeout, defaults.timeout),
    unhealthyAfter: declared.unhealthyAfter ?? defaults.unhealthyAfter,
    healthyAfter: declared.healthyAfter ?? defaults.healthyAfter,
    grace: timeOf(declared.grace, defaults.grace),
    onUnhealthy: declared.onUnhealthy ?? defaults.onUnhealthy,
    stopGrace: timeOf(declared.stopGrace, defaults.stopGrace),
  };
}

function checkOf(declared: DeclaredCheck): HealthCheck {
  switch (declared.kind) {
    case "tcp":
      return { kind: "tcp", port: declared.port };
    case "http": {
      const { port = 80, path = "/", status: fine, body } = declared;
      const range = fine === undefined ? { least: 200, most: 399 } : { least: fine, most: fine };
      return { kind: "http", port, path, status: range, body };
    }
    case "agent":
      return { kind: "agent" };
    case "serial":
      return { kind: "serial", pattern: declared.pattern };
  }
}

/** A check in a few words. */
export function describeCheck(check: HealthCheck): string {
  switch (check.kind) {
    case "tcp":
      return `tcp port ${check.port}`;
    case "http":
      return `http port ${check.port} ${check.path}`;
    case "agent":
      return "agent";
    case "serial":
      return `serial "${check.pattern}"`;
  }
}
