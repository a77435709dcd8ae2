import * as v from "valibot";
import { inventorySchema } from "../hardware/inventory.ts";
import { counterSources } from "../hardware/samples.ts";

/** What became of a stage: who tested what by which engine, how much, and what was found. */

/** In their order on the way; the two that an agent does not walk are states of the run alone. */
export const stages = [
  "Inventory",
  "SMART",
  "CPUStress",
  "Storage",
  "Network",
  "GPU",
  "PSU",
] as const;
export type Stage = (typeof stages)[number];
export const stageSchema = v.picklist(stages);

export const outcomes = ["PASS", "WARN", "SKIP", "FAIL", "ERROR"] as const;
/**
 * PASS: looked at, enough of it, and well. WARN: for a person to judge; less than the spec's
 * minimum was looked at. SKIP: there was nothing to look at, or it could not be seen. FAIL: it is
 * not well. ERROR: the test itself broke; the hardware may be well or not.
 */
export type Outcome = (typeof outcomes)[number];
export const outcomeSchema = v.picklist(outcomes);

export const resultLimits = {
  text: 512,
  name: 128,
  findings: 1_024,
  coverage: 1_024,
  engines: 64,
  measurements: 4_096,
  deltas: 4_096,
  /** Pieces of evidence, and bytes of each: a kernel's log, a stack. */
  pieces: 64,
  evidence: 64 * 1024,
  /** Bytes of a result as JSON, its inventory and evidence with it. */
  bytes: 8 * 1024 ** 2,
} as const;

const text = v.pipe(v.string(), v.maxLength(resultLimits.text));
const name = v.pipe(v.string(), v.minLength(1), v.maxLength(resultLimits.name));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const number = v.pipe(v.number(), v.finite());
const most = <Item extends v.GenericSchema>(item: Item, length: number) =>
  v.pipe(v.array(item), v.maxLength(length));

/** What was found of one thing. A stage's outcome is the worst of its findings: `worstOf`. */
export const findingSchema = v.strictObject({
  outcome: outcomeSchema,
  /** Stable, for programs: "nvme-critical-warning", "coverage", "not-seen", "stuck-in-kernel". */
  code: v.pipe(v.string(), v.regex(/^[a-z][a-z0-9-]{0,63}$/, "words with dashes")),
  /** "disk S64ANX0R", "cpu 3", "eth0", "DIMM_A1"; "host" for all of it. */
  component: name,
  message: text,
  expected: v.nullable(text),
  found: v.nullable(text),
});
export type Finding = v.InferOutput<typeof findingSchema>;

export const coverageUnits = ["bytes", "core-seconds", "links", "devices", "sensors"] as const;
/** How much was looked at of how much there is. `total` null: nobody knows. */
export const coverageSchema = v.strictObject({
  component: name,
  unit: v.picklist(coverageUnits),
  covered: v.pipe(number, v.minValue(0)),
  total: v.nullable(v.pipe(number, v.minValue(0))),
  /** The spec's minimum, as a part of the total. */
  least: v.pipe(number, v.minValue(0), v.maxValue(1)),
});
export type Coverage = v.InferOutput<typeof coverageSchema>;

/** "smartctl" "7.3", or "hostler" and its version: who looked. */
export const engineSchema = v.strictObject({ task: name, engine: name, version: v.nullable(name) });
export type Engine = v.InferOutput<typeof engineSchema>;

/** A figure to compare hosts by: "sequential-read", "disk S64ANX0R", 276.1, "MB/s". */
export const measurementSchema = v.strictObject({
  name,
  component: name,
  value: number,
  unit: v.pipe(v.string(), v.maxLength(16)),
});
export type Measurement = v.InferOutput<typeof measurementSchema>;

/** A counter that rose while the stage ran, or that is below 0 because the host forgot. */
export const deltaSchema = v.strictObject({
  source: v.picklist(counterSources),
  component: name,
  before: count,
  after: count,
});
export type Delta = v.InferOutput<typeof deltaSchema>;

/** "kernel-log", "stack", "pstore", "last-output": what a person reads to believe it. */
export const evidenceSchema = v.strictObject({ name, component: name, text: v.string() });
export type Evidence = v.InferOutput<typeof evidenceSchema>;

/** What a stage came to, before it is known which attempt of which run it was. */
export const stageReportSchema = v.strictObject({
  outcome: outcomeSchema,
  summary: text,
  findings: most(findingSchema, resultLimits.findings),
  coverage: most(coverageSchema, resultLimits.coverage),
  engines: most(engineSchema, resultLimits.engines),
  measurements: most(measurementSchema, resultLimits.measurements),
  deltas: most(deltaSchema, resultLimits.deltas),
  evidence: most(evidenceSchema, resultLimits.pieces),
  inventory: v.optional(inventorySchema),
});
export type StageReport = v.InferOutput<typeof stageReportSchema>;

/**
 * The worst first. ERROR is worse than FAIL, because it says nothing of the hardware; SKIP is worse
 * than WARN only where all is skipped, which whoever judges a stage says by a finding of its own.
 */
const gravity: Record<Outcome, number> = { PASS: 0, SKIP: 1, WARN: 2, FAIL: 3, ERROR: 4 };

/** Of nothing at all: SKIP, because nothing was looked at. PASS needs one finding that is PASS. */
export function worstOf(found: readonly Outcome[]): Outcome {
  let worst: Outcome = "SKIP";
  if (found.includes("PASS")) worst = "PASS";
  for (const outcome of found) {
    if (outcome !== "SKIP" && gravity[outcome] > gravity[worst]) worst = outcome;
  }
  return worst;
}
