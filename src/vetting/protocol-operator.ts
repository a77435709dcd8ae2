import * as v from "valibot";
import { hardwareIdentitySchema, inventorySchema, macSchema } from "../hardware/inventory.ts";
import { activitySchema, count, logLineSchema, positive, runStateSchema } from "./protocol.ts";
import { outcomeSchema, resultLimits, stageReportSchema, stageSchema } from "./protocol-result.ts";
import { ruleFindingSchema, specNameSchema, specSchema } from "./protocol-spec.ts";

/**
 * What people and programs ask an orchestrator: `/v1/vetting/…` over HTTPS with an operator's token
 * or cookie, and its control socket. Times are RFC 3339 in UTC, by the orchestrator's clock.
 */

const text = v.pipe(v.string(), v.maxLength(resultLimits.text));
const time = v.pipe(v.string(), v.isoTimestamp());
/** SHA-256 in hexadecimal. */
const hash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));

/** Of a run that has ended, or of a host's last one that did. */
export const verdicts = ["passed", "warned", "failed", "cancelled", "aborted", "lost"] as const;
export const verdictSchema = v.picklist(verdicts);
export type Verdict = v.InferOutput<typeof verdictSchema>;

/** A machine that is known: by the card that it boots from. */
export const hostViewSchema = v.strictObject({
  mac: macSchema,
  /** For people. */
  name: v.pipe(v.string(), v.maxLength(63)),
  /** As its first claim told it. */
  identity: v.nullable(hardwareIdentitySchema),
  /** false: it asked for a boot script, and nobody has taken it in. */
  enrolled: v.boolean(),
  /** Until when it may boot into its open run; null: it may not. */
  window_until: v.nullable(time),
  spec: v.nullable(specNameSchema),
  /** The last run that ended; it stays while the next one goes on. */
  verdict: v.nullable(
    v.strictObject({ verdict: verdictSchema, run: positive, at: time, reason: text }),
  ),
  /** The run that is open. */
  run: v.nullable(positive),
  last_seen: v.nullable(time),
});
export type HostView = v.InferOutput<typeof hostViewSchema>;

export const stageViewSchema = v.strictObject({
  stage: stageSchema,
  /** Of its last result; null: none yet. */
  outcome: v.nullable(outcomeSchema),
  summary: text,
  attempts: count,
  started: v.nullable(time),
  ended: v.nullable(time),
});

export const runViewSchema = v.strictObject({
  run: positive,
  mac: macSchema,
  host: v.pipe(v.string(), v.maxLength(63)),
  spec: specNameSchema,
  /** The revision of the spec that this run is held to: a run never changes its spec. */
  spec_revision: positive,
  state: runStateSchema,
  /** Null until it has ended. */
  verdict: v.nullable(verdictSchema),
  /** Why it holds, or why it ended. */
  reason: text,
  created: time,
  changed: time,
  ended: v.nullable(time),
  /** Milliseconds since its last word; null: never. */
  silent_ms: v.nullable(count),
  address: v.nullable(v.string()),
  agent_version: v.nullable(v.string()),
  activity: v.nullable(activitySchema),
  stages: v.array(stageViewSchema),
  /** What an operator accepted though it failed: stages, "SpecValidate", "identity". */
  overrides: v.optional(v.array(v.string()), []),
  hold: v.nullable(
    v.strictObject({
      since: time,
      /** Until when the key is good; null: there is none. */
      key_until: v.nullable(time),
      host_key: v.nullable(v.string()),
    }),
  ),
  /** Directives that wait for their acknowledgement. */
  directives: v.array(v.strictObject({ kind: v.string(), since: time })),
  dropped: count,
});
export type RunView = v.InferOutput<typeof runViewSchema>;

/**
 * Where a run is, for people: the state says where a host stands, also after its run has ended,
 * and one that was released would seem to hold a run that is open.
 */
export function stateWord({ state, ended, verdict }: RunView): string {
  return ended !== null && state === "FailedHolding" ? `Ended, ${verdict ?? "failed"}` : state;
}

/** A result as it was taken, and where it stands in the run's chain. */
export const keptResultSchema = v.strictObject({
  stage: stageSchema,
  attempt: positive,
  /** "agent", or "orchestrator" where that wrote it itself: a host that died N times. */
  source: v.picklist(["agent", "orchestrator"]),
  cancelled: v.boolean(),
  started: time,
  ended: time,
  duration_ms: count,
  report: stageReportSchema,
  /** Of this record with the hash of the one before it: the chain of the run. */
  hash,
});
export type KeptResult = v.InferOutput<typeof keptResultSchema>;

/** An override, a retry, a hold, a lost host: what changed a run beside its results. */
export const runEventSchema = v.strictObject({
  sequence: positive,
  at: time,
  /** "agent", "orchestrator", "operator alice", "local uid 0". */
  who: v.string(),
  what: v.picklist([
    "created",
    "booted",
    "claimed",
    "resumed",
    "attempt",
    "result",
    "state",
    "directive",
    "acknowledged",
    "hold",
    "release",
    "override",
    "lost",
    "identity-changed",
    "ended",
  ]),
  state: runStateSchema,
  message: text,
});
export type RunEvent = v.InferOutput<typeof runEventSchema>;

export const sensorSeriesSchema = v.strictObject({
  /** Of a sensor; "errors" of a counter's sum since the agent began. */
  kind: v.string(),
  key: v.string(),
  unit: v.string(),
  critical: v.nullable(v.number()),
  /** Milliseconds since 1970, and the value; thinned to at most 2,000 points. */
  points: v.array(v.tuple([v.number(), v.number()])),
});
export type SensorSeries = v.InferOutput<typeof sensorSeriesSchema>;

/** All of a run: what its reports are made of, and its page. */
export const dossierSchema = v.strictObject({
  view: runViewSchema,
  spec: specSchema,
  inventory: v.nullable(inventorySchema),
  rules: v.array(ruleFindingSchema),
  results: v.array(keptResultSchema),
  events: v.array(runEventSchema),
  sensors: v.array(sensorSeriesSchema),
  /** The last lines alone, 5,000 at most; all of them come by /logs. */
  log: v.array(logLineSchema),
  orchestrator: v.strictObject({ version: v.string(), name: v.string() }),
});
export type Dossier = v.InferOutput<typeof dossierSchema>;

/** What of a host is far from all others that are held to the same spec: spec/outliers.ts. */
export const outlierSchema = v.variant("kind", [
  v.strictObject({
    kind: v.literal("measurement"),
    name: v.string(),
    component: v.string(),
    value: v.number(),
    unit: v.string(),
    median: v.number(),
    /** How far, in deviations; below 0: less than the others. */
    deviations: v.number(),
    hosts: count,
  }),
  v.strictObject({
    kind: v.literal("fact"),
    path: v.string(),
    found: v.string(),
    usual: v.string(),
    /** Of the others: that have the usual one, and that tell any. */
    agreeing: count,
    hosts: count,
  }),
]);
export type Outlier = v.InferOutput<typeof outlierSchema>;

/** A host beside its spec, one part of it. */
export const diffPartSchema = v.strictObject({
  part: v.string(),
  /** The broken ones first. */
  rows: v.array(ruleFindingSchema),
  broken: count,
  /** Facts of the host that no rule holds it to. */
  free: v.array(v.strictObject({ path: v.string(), found: v.string() })),
});
export type DiffPart = v.InferOutput<typeof diffPartSchema>;

/** Events of `/v1/vetting/events` and `/v1/vetting/runs/:run/events`. */
export const liveEventSchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("run"), view: runViewSchema }),
  v.strictObject({ kind: v.literal("host"), view: hostViewSchema }),
  v.strictObject({ kind: v.literal("log"), run: positive, lines: v.array(logLineSchema) }),
  v.strictObject({
    kind: v.literal("sensors"),
    run: positive,
    at: v.number(),
    sensors: v.array(v.tuple([v.string(), v.string(), v.number()])),
    errors: v.record(v.string(), count),
  }),
  v.strictObject({ kind: v.literal("result"), run: positive, result: keptResultSchema }),
  v.strictObject({ kind: v.literal("event"), run: positive, event: runEventSchema }),
]);
export type LiveEvent = v.InferOutput<typeof liveEventSchema>;
