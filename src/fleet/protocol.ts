import * as v from "valibot";
import {
  architectureSchema,
  artifactLimits,
  digestSchema,
  libcSchema,
} from "../artifact/protocol.ts";
import { artifactVersionSchema } from "../artifact/protocol-version.ts";
import { nameSchema } from "../identity/protocol.ts";

/**
 * The wire between a fleet's operator and its devices: entries of a store, one writer a key, and
 * what each of them owes the other. A device is a host of the authority; its name is the key.
 *
 * 1. The operator alone writes the marker, the device alone its status. A marker's `transaction` is
 *    new for each upgrade; whatever names another one than the device follows is ignored.
 * 2. `commit` counts only where it names the marker's transaction AND the instance of the candidate
 *    that the device itself has started. The operator writes it only after it saw, of that very
 *    instance, a heartbeat with the marker's transaction, version and digest.
 * 3. A commit is a fact: once written it stays as long as the marker does. Reading it twice, late,
 *    or after a restart does nothing twice.
 * 4. Until the device has swapped, doing nothing is the way back: `current` is the old version.
 *    After it only what the device sees itself reverts, never the operator's silence.
 * 5. What the device's journal says is right where the store has forgotten: it tells its status
 *    again, and the operator takes up what it says.
 */

/** The version of this wire: what a newer one wrote is left alone, and said so. */
export const FLEET_PROTOCOL_VERSION = 1;

export const fleetBuckets = {
  /** DEVICE → marker; written by the operator. */
  markers: "agent-upgrade",
  /** DEVICE → status; written by the device's canonical agent. */
  statuses: "agent-upgrade-status",
  /** DEVICE.canonical, DEVICE.candidate → heartbeat; volatile. */
  heartbeats: "fleet-heartbeats",
  /** ROLLOUT → its record; the operator's alone. */
  rollouts: "fleet-rollouts",
  /** DEVICE → its labels; the operator's alone. */
  labels: "fleet-labels",
  /** The last events, some together; the operator's alone, and the oldest may go. */
  events: "fleet-events",
  /** What an operator knows of the store itself; the operator's alone. */
  operator: "fleet-operator",
} as const;

export const fleetLimits = {
  devices: 50_000,
  /** Bytes of a signed manifest as it travels in a marker. */
  manifestBytes: artifactLimits.manifestBytes,
  /** Addresses that a version is fetched from, tried in order. */
  sources: 8,
  sourceLength: 1_024,
  /** Roles of one host. */
  roles: 16,
  /** Characters of a reason. */
  textLength: 512,
  /** Characters that are kept of what a failed candidate said last. */
  lastWords: 4_096,
  labels: 32,
  labelLength: 63,
} as const;

/** Milliseconds between two heartbeats of one instance. */
export const HEARTBEAT_EVERY = 10_000;
/** Of a device that is being upgraded: what a marker may ask for. */
export const FASTEST_HEARTBEAT = 1_000;
/** Without a heartbeat for so long an instance is silent. */
export const SILENT_AFTER = 35_000;

const version = v.literal(FLEET_PROTOCOL_VERSION);
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const positive = v.pipe(count, v.minValue(1));
const milliseconds = v.pipe(
  v.number(),
  v.safeInteger(),
  v.minValue(1_000),
  v.maxValue(604_800_000),
);
const heartbeatInterval = v.pipe(
  v.number(),
  v.safeInteger(),
  v.minValue(FASTEST_HEARTBEAT),
  v.maxValue(HEARTBEAT_EVERY),
);
const text = v.pipe(v.string(), v.maxLength(fleetLimits.textLength));
const hexadecimal = (digits: number) =>
  v.pipe(v.string(), v.regex(new RegExp(`^[0-9a-f]{${digits}}$`), `${digits} hexadecimal digits`));

/** Of an upgrade: 128 bits of chance. */
export const transactionSchema = hexadecimal(32);
/** Of one process of an agent: 128 bits of chance, new at each start. */
export const instanceSchema = hexadecimal(32);
/** SHA-256 of the file that runs, and its version: as its manifest says them. */
export { digestSchema };
export const releaseVersionSchema: typeof artifactVersionSchema = artifactVersionSchema;
/** /proc/sys/kernel/random/boot_id. */
export const bootIdSchema = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, "a boot id"),
);

/** What runs, or is to run: the version is for people, the digest decides. */
export const buildSchema = v.strictObject({ version: releaseVersionSchema, digest: digestSchema });
export type Build = v.InferOutput<typeof buildSchema>;

export const commitSchema = v.strictObject({
  transaction: transactionSchema,
  instance: instanceSchema,
});
export type Commit = v.InferOutput<typeof commitSchema>;

export const markerSchema = v.strictObject({
  protocol: version,
  transaction: transactionSchema,
  /**
   * For the operator alone: of which rollout it is, in which round of it (failed devices are tried
   * again in the next one), and the how manieth that this device has taken up in that round.
   */
  rollout: v.optional(v.strictObject({ name: nameSchema, round: positive, attempt: positive })),
  /** What the device is to become, for its architecture; the manifest must say the same. */
  build: buildSchema,
  /** A signed manifest, as src/artifact writes it. */
  manifest: v.pipe(v.string(), v.maxLength(fleetLimits.manifestBytes)),
  /** https:, http: or file: addresses of folders that have the version; tried in order. */
  sources: v.pipe(
    v.array(v.pipe(v.string(), v.maxLength(fleetLimits.sourceLength))),
    v.minLength(1),
    v.maxLength(fleetLimits.sources),
  ),
  /** Bytes a second; null: as fast as it goes. */
  rate: v.nullable(v.pipe(count, v.minValue(1_024))),
  /** Counted by the device, by a clock that goes on in suspend, from its own steps. */
  limits: v.strictObject({
    /** From the marker's arrival to a candidate that is ready. */
    staging_ms: milliseconds,
    /**
     * From a candidate that is ready to the commit; over it the upgrade is held, and after as long
     * again aborted.
     */
    commit_ms: milliseconds,
    /** From the swap until every role of the host answers from the new version. */
    canonical_ms: milliseconds,
    /**
     * How often this device is heard while its upgrade goes on, where that is more often than
     * usual; whatever is counted in heartbeats follows it, on both sides: `paceOf`.
     */
    heartbeat_ms: v.optional(heartbeatInterval),
  }),
  /** The candidate's instance that the operator has seen; null before. */
  observed: v.nullable(instanceSchema),
  commit: v.nullable(commitSchema),
  /** Taken back: it counts as long as the device has not seen a commit before it saw this. */
  withdrawn: v.nullable(v.strictObject({ reason: text })),
});
export type Marker = v.InferOutput<typeof markerSchema>;

/** As the journal of a device says. */
export const upgradePhases = [
  "idle",
  "staging",
  "verifying",
  "cutover-ready",
  "observed",
  "commit-seen",
  "swapped",
  "canonical",
  /** On its way back to the former version, which has not proven itself again yet. */
  "reverting",
  "done",
  "held",
  "aborted",
  "rolled-back",
] as const;
export type UpgradePhase = (typeof upgradePhases)[number];

/**
 * Where the reason of an `aborted` or a `rolled-back` lies. `withdrawn`, `superseded` and
 * `uncommitted` (no commit came in time) say nothing against the version: it is tried again.
 */
export const endingCauses = [
  "withdrawn",
  "superseded",
  "uncommitted",
  /** What was fetched is refused: signature, digest, floor, architecture. */
  "artifact",
  /** This host cannot: no room, no way to start a candidate. */
  "host",
  "candidate",
  "canonical",
] as const;
export type EndingCause = (typeof endingCauses)[number];

/** What a candidate, or a canonical agent that failed, has left. */
export const lastWordsSchema = v.strictObject({
  /** "exited with 1", "ended by SIGSEGV", "silent for 35 s". */
  ending: text,
  log: v.pipe(v.string(), v.maxLength(fleetLimits.lastWords)),
  processor_seconds: v.nullable(v.number()),
  memory_peak_bytes: v.nullable(count),
});
export type LastWords = v.InferOutput<typeof lastWordsSchema>;

export const statusSchema = v.strictObject({
  protocol: version,
  /** The upgrade that it is about; null where there never was one. */
  transaction: v.nullable(transactionSchema),
  phase: v.picklist(upgradePhases),
  /** Why it is so: of `held`, `aborted`, `reverting` and `rolled-back` always. */
  reason: v.nullable(text),
  /** Of `aborted` and `rolled-back`. */
  cause: v.optional(v.picklist(endingCauses)),
  /** What `current` leads to. */
  current: buildSchema,
  previous: v.nullable(buildSchema),
  candidate: v.nullable(
    v.strictObject({ ...buildSchema.entries, instance: v.nullable(instanceSchema) }),
  ),
  /** Of the download. */
  progress: v.nullable(
    v.strictObject({
      bytes: count,
      of_bytes: count,
      /** That came over the wire, and of these the ones that came more than once. */
      fetched_bytes: count,
      again_bytes: count,
    }),
  ),
  last_words: v.nullable(lastWordsSchema),
  /** Rises with each step of the device's journal: a status with a lower one is of before. */
  step: count,
  boot: bootIdSchema,
  architecture: architectureSchema,
  libc: libcSchema,
  /** Below this version it never goes. */
  floor: v.nullable(releaseVersionSchema),
  /** How it is upgraded: immutable is not. */
  executor: v.picklist(["systemd", "supervise", "immutable"]),
  /** The root-signed metadata that it goes by, where its time is over: RFC 3339. */
  stale_metadata: v.optional(v.strictObject({ version: positive, expires: text })),
});
export type DeviceStatus = v.InferOutput<typeof statusSchema>;

export const roleHealthSchema = v.strictObject({
  role: v.pipe(v.string(), v.maxLength(fleetLimits.labelLength)),
  /** Of the file that answers for it; null where nobody does, or it is no version of the host's. */
  digest: v.nullable(digestSchema),
  healthy: v.boolean(),
  reason: v.nullable(text),
});
export type RoleHealth = v.InferOutput<typeof roleHealthSchema>;

export const heartbeatSchema = v.strictObject({
  protocol: version,
  instance: instanceSchema,
  ...buildSchema.entries,
  /** Of a candidate: the upgrade that it was started for. */
  transaction: v.nullable(transactionSchema),
  boot: bootIdSchema,
  /** Of this instance, from 1. */
  sequence: v.pipe(count, v.minValue(1)),
  roles: v.pipe(v.array(roleHealthSchema), v.maxLength(fleetLimits.roles)),
});
export type Heartbeat = v.InferOutput<typeof heartbeatSchema>;

export const canonicalKey = (device: string): string => `${device}.canonical`;
export const candidateKey = (device: string): string => `${device}.candidate`;

export { nameSchema as deviceNameSchema };
