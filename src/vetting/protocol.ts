import * as v from "valibot";
import { hardwareIdentitySchema, inventoryLimits, macSchema } from "../hardware/inventory.ts";
import { sampleLimits, sensorSchema } from "../hardware/samples.ts";
import {
  evidenceSchema,
  resultLimits,
  type Stage,
  stageReportSchema,
  stageSchema,
  stages,
} from "./protocol-result.ts";
import { expectedDiskSchema, stageSettingsSchema } from "./protocol-spec.ts";

/**
 * The wire between an agent in a live image and its orchestrator: HTTPS, JSON, snake_case. All
 * calls are POST below `/v1/vetting/runs/RUN/`, with a bearer token: of `hello` and `claim` the
 * run's one-shot token, or the session that an earlier claim gave; of all others the session.
 *
 * 1. A run's token is good for one claim. What that gave, the session, ends with the next token
 *    that is minted for the run, or when the run has ended and its host is silent: until then it
 *    waits to be shut down.
 * 2. Before a stage starts, its attempt is told (`attempt`), and is durable when that is answered:
 *    so a host that dies in the stage is counted, whatever it has kept.
 * 3. A result has an id that the agent drew. The same id gives the same answer, whenever it comes;
 *    a result of an attempt that is not the run's current one changes nothing, and is answered with
 *    the state.
 * 4. A directive is told in each answer to a heartbeat until it is acknowledged or expired. An
 *    agent takes one up once, by its id, which it keeps; only in a state that it is meant for, else
 *    it acknowledges it as `refused`.
 * 5. What the agent alone knows (results, log, readings) is kept on its side until it is answered.
 *
 * Version 2: a claim tells the cards of its host. An agent of version 1 is refused, because nobody
 * could say whether it runs on the run's host.
 */
export const VETTING_PROTOCOL_VERSION = 2;

/** Names on the kernel's command line: "hostler.vetting.run=12". Flags override them. */
export const bootParameters = {
  orchestrator: "hostler.vetting.orchestrator",
  run: "hostler.vetting.run",
  token: "hostler.vetting.token",
  /** Of the card that it was booted from. */
  mac: "hostler.vetting.mac",
  /** SHA-256 of the orchestrator's certificate; several with commas. */
  pin: "hostler.vetting.pin",
} as const;

/** Places of the agent, all of them in memory: none lasts longer than the boot. */
export const agentPlaces = {
  /** 0700: the session, what was done, results that wait. */
  folder: "/run/hostler/vetting",
} as const;

export const vettingLimits = {
  runs: 100_000,
  runsUnderWay: 4_096,
  /** Directives of one run that wait. */
  directives: 16,
  /** Ids of directives that an agent has taken up, and remembers. */
  remembered: 256,
  logLines: 512,
  logText: 2_048,
  /** Bytes kept of what was not answered yet; over it the oldest lines go, counted. */
  spoolBytes: 16 * 1024 ** 2,
  sensorBatch: 4_096,
  /** Pieces of evidence that come with a claim. */
  evidence: 16,
  /** Bytes of any request's body. */
  requestBytes: resultLimits.bytes + 64 * 1024,
  /** Characters of a key of OpenSSH. */
  authorizedKey: 8_192,
} as const;

/** Milliseconds. */
export const HEARTBEAT_EVERY = 10_000;
export const LOG_EVERY = 2_000;
export const SENSORS_EVERY = 5_000;
/** Without a heartbeat for so long, a run's host is Lost. */
export const LOST_AFTER = 60_000;

/** The way of a run, in its order. */
export const path = [
  "InventoryCheck",
  "SpecValidate",
  "SMART",
  "CPUStress",
  "Storage",
  "Network",
  "GPU",
  "PSU",
  "Reporting",
] as const;
export type PathState = (typeof path)[number];

/** Before its way, on it, and beside or after it. */
export const runStates = [
  "Queued",
  "Booting",
  ...path,
  "Completed",
  "FailedHolding",
  "Cancelled",
  "Aborted",
  "Lost",
] as const;
export type RunState = (typeof runStates)[number];
export const runStateSchema = v.picklist(runStates);

/** Inventory is the stage of InventoryCheck; others have their own name. */
export function stateOf(stage: Stage): PathState {
  return stage === "Inventory" ? "InventoryCheck" : stage;
}

/** @returns undefined for a state in which no stage runs */
export function stageOf(state: RunState): Stage | undefined {
  return stages.find((stage) => stateOf(stage) === state);
}

export const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
export const positive = v.pipe(count, v.minValue(1));
const text = v.pipe(v.string(), v.maxLength(resultLimits.text));
/** 128 bits of chance. */
export const drawnSchema = v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/, "32 hexadecimal digits"));
/** Times of an agent are for people: its clock may say anything. */
const time = v.pipe(v.string(), v.isoTimestamp());
const runParameter = v.union([
  positive,
  v.pipe(v.string(), v.regex(/^[1-9]\d{0,14}$/, "the number of a run"), v.transform(Number)),
]);
export const runSchema = runParameter;

/** Calls whose answer says no more than that they came. */
export const emptySchema = v.strictObject({});

export const helloSchema = v.strictObject({
  run: runSchema,
  protocol: positive,
  version: v.pipe(v.string(), v.maxLength(64)),
  boot_id: v.pipe(v.string(), v.maxLength(64)),
  mac: v.nullable(macSchema),
});

const diedSchema = v.strictObject({
  ...evidenceSchema.entries,
  text: v.pipe(v.string(), v.maxLength(resultLimits.evidence)),
});

export const claimSchema = v.strictObject({
  run: runSchema,
  protocol: positive,
  version: v.pipe(v.string(), v.maxLength(64)),
  /** Of this process of the agent, new at each start. */
  instance: drawnSchema,
  boot_id: v.pipe(v.string(), v.maxLength(64)),
  mac: v.nullable(macSchema),
  /** The address that it speaks from. */
  address: v.nullable(v.pipe(v.string(), v.maxLength(64))),
  /** Read without opening a disk. */
  identity: hardwareIdentitySchema,
  /**
   * Of the cards that are hardware, as their makers gave them: one of them has to be the run's.
   * Who leaves them out (version 1) is refused by its version, with the mend.
   */
  macs: v.optional(v.pipe(v.array(macSchema), v.maxLength(inventoryLimits.networkCards)), []),
  /** What kernels before this one wrote as they died: of the attempt that they died in. */
  evidence: v.optional(v.pipe(v.array(diedSchema), v.maxLength(vettingLimits.evidence)), []),
});

export const claimAnswerSchema = v.strictObject({
  /** Of this run from now on; the token that was claimed with is spent. */
  session: v.pipe(v.string(), v.maxLength(256)),
  current_state: runStateSchema,
  stages: v.array(stageSchema),
  settings: stageSettingsSchema,
  non_destructive: v.boolean(),
  expected_disks: v.array(expectedDiskSchema),
  /** Of the throughput test; null: there is none. */
  network_test: v.nullable(
    v.strictObject({
      host: v.pipe(v.string(), v.maxLength(255)),
      port: positive,
      run: positive,
      key: drawnSchema,
    }),
  ),
  heartbeat_ms: positive,
  log_ms: positive,
  sensor_ms: positive,
});
export type ClaimAnswer = v.InferOutput<typeof claimAnswerSchema>;

export const attemptSchema = v.strictObject({
  run: runSchema,
  /** Drawn by the agent: asked twice, it is counted once. */
  attempt: drawnSchema,
  instance: drawnSchema,
  stage: stageSchema,
});
export const attemptAnswerSchema = v.variant("decision", [
  /** `number` from 1. */
  v.strictObject({
    decision: v.literal("start"),
    number: positive,
    /** Serials of disks whose contents an operator gave up, for this attempt alone. */
    wipe: v.array(v.pipe(v.string(), v.maxLength(256))),
  }),
  /** The run is not at this stage, or too many attempts died: this is where it is. */
  v.strictObject({ decision: v.literal("go"), next_state: runStateSchema }),
]);
export type AttemptAnswer = v.InferOutput<typeof attemptAnswerSchema>;

export const resultSchema = v.strictObject({
  run: runSchema,
  /** Its idempotency key. */
  result: drawnSchema,
  attempt: drawnSchema,
  stage: stageSchema,
  cancelled: v.boolean(),
  duration_ms: count,
  report: stageReportSchema,
});
export type ResultBody = v.InferOutput<typeof resultSchema>;
export const resultAnswerSchema = v.strictObject({ next_state: runStateSchema });

export const directiveKinds = [
  /** Ends the stage that runs; its result is `cancelled`; then power-off. */
  "cancel",
  /** Ends all that the agent does, and holds without a key. */
  "abort",
  "shutdown",
  "reboot",
  /** While it holds alone: the state says what is next. */
  "retry",
  /** The hold's key is removed, and whoever came by it is thrown out. */
  "revoke-hold",
] as const;

export const directiveSchema = v.strictObject({
  id: drawnSchema,
  kind: v.picklist(directiveKinds),
  stage: v.nullable(stageSchema),
  /** Milliseconds that it is good for, from the answer that tells it. */
  expires_in_ms: positive,
});
export type Directive = v.InferOutput<typeof directiveSchema>;

export const acknowledgementSchema = v.strictObject({
  id: drawnSchema,
  result: v.picklist(["done", "refused", "expired"]),
  reason: v.nullable(text),
});
export type Acknowledgement = v.InferOutput<typeof acknowledgementSchema>;

export const activitySchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("idle") }),
  v.strictObject({
    kind: v.literal("stage"),
    stage: stageSchema,
    /** In parts of all that it does; null: it cannot say. */
    progress: v.nullable(v.pipe(v.number(), v.minValue(0), v.maxValue(1))),
  }),
  v.strictObject({ kind: v.literal("holding"), key: v.boolean() }),
]);
export type Activity = v.InferOutput<typeof activitySchema>;

export const heartbeatSchema = v.strictObject({
  run: runSchema,
  instance: drawnSchema,
  boot_id: v.pipe(v.string(), v.maxLength(64)),
  activity: activitySchema,
  acknowledged: v.pipe(v.array(acknowledgementSchema), v.maxLength(vettingLimits.directives)),
  /** What it could not keep: lines and readings that are lost. */
  dropped: count,
});
export const heartbeatAnswerSchema = v.strictObject({
  state: runStateSchema,
  directives: v.pipe(v.array(directiveSchema), v.maxLength(vettingLimits.directives)),
});

export const logLineSchema = v.strictObject({
  /** Rises by one for each line of an instance: what comes twice is kept once. */
  sequence: count,
  time,
  level: v.picklist(["info", "warn", "error", "kernel"]),
  stage: v.nullable(stageSchema),
  text: v.pipe(v.string(), v.maxLength(vettingLimits.logText)),
});
export type LogLine = v.InferOutput<typeof logLineSchema>;
export const logSchema = v.strictObject({
  run: runSchema,
  instance: drawnSchema,
  lines: v.pipe(v.array(logLineSchema), v.maxLength(vettingLimits.logLines)),
});

export const sensorsSchema = v.strictObject({
  run: runSchema,
  instance: drawnSchema,
  readings: v.pipe(
    v.array(
      v.strictObject({
        sequence: count,
        time,
        stage: v.nullable(stageSchema),
        sensors: v.pipe(v.array(sensorSchema), v.maxLength(sampleLimits.sensors)),
        /** Sums of counters by source since the agent began. */
        errors: v.record(v.string(), count),
        missing: v.pipe(v.array(v.string()), v.maxLength(sampleLimits.counters)),
      }),
    ),
    v.maxLength(64),
  ),
});

export const holdSchema = v.strictObject({
  run: runSchema,
  instance: drawnSchema,
  address: v.nullable(v.pipe(v.string(), v.maxLength(64))),
  /** Of the SSH host key, as `ssh-keygen -l` prints it; null: nobody listens. */
  host_key: v.nullable(v.pipe(v.string(), v.maxLength(128))),
});
export const holdAnswerSchema = v.strictObject({
  /** One line of authorized_keys; null: the operator gave none. */
  authorized_key: v.nullable(v.pipe(v.string(), v.maxLength(vettingLimits.authorizedKey))),
  /** Monotonic, from this answer; then the key goes, and its sessions end. */
  expires_in_ms: v.nullable(positive),
});

/** Paths of the agent's calls; `:run` is the run's number. */
export const agentPath = (call: string): string => `/v1/vetting/runs/:run/${call}`;
