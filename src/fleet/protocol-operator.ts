import * as v from "valibot";
import { nameSchema } from "../identity/protocol.ts";
import {
  digestSchema,
  endingCauses,
  fleetLimits,
  heartbeatSchema,
  markerSchema,
  releaseVersionSchema,
  statusSchema,
} from "./protocol.ts";

/** What an operator of a fleet can be asked, by people and programs. Pure. */

export const operatorLimits = {
  /** Rollouts that are kept; over it the oldest that ended goes, or the new one is refused. */
  rollouts: 200,
  /** Names of devices of one rollout, when they are named. */
  namedDevices: 10_000,
  waves: 32,
  windows: 32,
  /** Markers of one rollout that one device has taken up, before it counts as failed. */
  attempts: 10,
  /** Times that a resume may have failed devices tried again. */
  retries: 20,
  /** Milliseconds of soaking between two waves, at most. */
  soak: 7 * 86_400_000,
  /** Events that are kept for those who come late. */
  events: 10_000,
  /** Devices that one list tells; the next is asked for by the last name. */
  page: 1_000,
  /** Devices that are named as a reason. */
  named: 10,
  /** Devices of a rollout that others have taken since, and that it remembers by name. */
  past: 500,
  /** Hosts that could not take a version by themselves, before a rollout asks for somebody. */
  hindered: 3,
  /** Changes of a rollout that its history tells: the first, and the last ones. */
  changes: 50,
  /** Characters of what it remembers of one. */
  pastReason: 160,
  /** Characters of a rollout as it is asked for: with all that is remembered, one stored value. */
  specCharacters: 300 * 1024,
  /** Rollouts that have numbers of their own in /metrics. */
  measured: 100,
  /** Bytes of a request. */
  requestBytes: 2 * 1024 * 1024,
} as const;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const positive = v.pipe(count, v.minValue(1));
const label = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][\w./-]*$/, "a label of letters, digits, . _ / and -"),
  v.maxLength(fleetLimits.labelLength),
);
export const labelsSchema = v.pipe(
  v.record(label, v.pipe(v.string(), v.maxLength(fleetLimits.labelLength))),
  v.check(
    (labels) => Object.keys(labels).length <= fleetLimits.labels,
    `at most ${fleetLimits.labels} labels`,
  ),
);
export type Labels = Readonly<v.InferOutput<typeof labelsSchema>>;

/** So many of a rollout's devices, or such a part of them, rounded up. */
export const amountSchema = v.variant("by", [
  v.strictObject({ by: v.literal("count"), count: positive }),
  v.strictObject({
    by: v.literal("percent"),
    percent: v.pipe(v.number(), v.gtValue(0), v.maxValue(100)),
  }),
]);
export type Amount = v.InferOutput<typeof amountSchema>;

/**
 * Waves say how many devices in all, so they rise; a number and a part are not compared.
 * @returns the one that does not, beside the one before it, for people
 */
export function fallingWave(waves: readonly Amount[]): string | undefined {
  const last: { count?: number; percent?: number } = {};
  for (const wave of waves) {
    const size = wave.by === "count" ? wave.count : wave.percent;
    const before = last[wave.by];
    const sign = wave.by === "percent" ? "%" : "";
    if (before !== undefined && size <= before) return `${size}${sign} after ${before}${sign}`;
    last[wave.by] = size;
  }
  return undefined;
}

const minuteOfDay = v.pipe(count, v.maxValue(1_440));

/** When upgrades may begin and be committed, by the operator's clock, in UTC. */
export const windowSchema = v.strictObject({
  /** 0 is Sunday; of the day on which the window opens. */
  days: v.pipe(v.array(v.pipe(count, v.maxValue(6))), v.minLength(1), v.maxLength(7)),
  /** Minutes since midnight. `to` not above `from`: it closes on the next day. */
  from: minuteOfDay,
  to: minuteOfDay,
});
export type MaintenanceWindow = v.InferOutput<typeof windowSchema>;

export const rolloutBuildSchema = v.strictObject({
  architecture: v.picklist(["x64", "arm64"]),
  libc: v.picklist(["glibc", "musl"]),
  digest: digestSchema,
});

export const rolloutSpecSchema = v.strictObject({
  version: releaseVersionSchema,
  /** Of the manifest, whose signature the devices check. */
  builds: v.pipe(v.array(rolloutBuildSchema), v.minLength(1), v.maxLength(4)),
  manifest: markerSchema.entries.manifest,
  sources: markerSchema.entries.sources,
  rate: markerSchema.entries.rate,
  limits: markerSchema.entries.limits,
  /** Those that are named and have all labels; nothing said: all. */
  select: v.strictObject({
    devices: v.nullable(
      v.pipe(v.array(nameSchema), v.minLength(1), v.maxLength(operatorLimits.namedDevices)),
    ),
    labels: labelsSchema,
  }),
  /** How many devices in all may have been begun with each wave; after the last all may. */
  waves: v.pipe(v.array(amountSchema), v.maxLength(operatorLimits.waves)),
  /** Milliseconds between the end of a wave and the next one. */
  soak_ms: v.pipe(count, v.maxValue(operatorLimits.soak)),
  /** Devices that are being upgraded at once. */
  max_unavailable: amountSchema,
  /** Percent of a wave that may fail, rounded down; with one more the rollout pauses. */
  failures_percent: v.pipe(v.number(), v.minValue(0), v.maxValue(100)),
  /** Empty: at any time. */
  windows: v.pipe(v.array(windowSchema), v.maxLength(operatorLimits.windows)),
});
export type RolloutSpec = v.InferOutput<typeof rolloutSpecSchema>;

export const rolloutCountsSchema = v.strictObject({
  members: count,
  done: count,
  /** The version failed there. */
  failed: count,
  /** The host could not take it, which says nothing of the version: no room, no way to a source. */
  hindered: count,
  flight: count,
  waiting: count,
  away: count,
  unfit: count,
});

/** superseded: another rollout took them before they were done. */
export const shownCountsSchema = v.strictObject({
  ...rolloutCountsSchema.entries,
  superseded: count,
});

export const memberStandings = [
  "done",
  "failed",
  /** Its host could not, by itself. */
  "hindered",
  /** Being upgraded. */
  "flight",
  /** Taken back, and not ended. */
  "returning",
  "waiting",
  /** It is not heard. */
  "away",
  /** It can not have it. */
  "unfit",
  /** Another rollout has it now. */
  "superseded",
] as const;

/** A device of a rollout, and what became of it there. */
export const rolloutMemberSchema = v.strictObject({
  device: nameSchema,
  standing: v.picklist(memberStandings),
  reason: v.nullable(v.string()),
  /** The rollout that has it now. */
  superseded_by: v.nullable(nameSchema),
});
export type RolloutMember = v.InferOutput<typeof rolloutMemberSchema>;

/** What became of a rollout, when, and by whom. */
export const rolloutChangeSchema = v.strictObject({
  /** Milliseconds since 1970 by the operator's clock: for people. */
  time: v.number(),
  what: v.picklist(["begun", "paused", "resumed", "aborted", "wave", "complete"]),
  /** "operator ada", "local uid 0"; null: the operator's own decision. */
  by: v.nullable(v.string()),
  reason: v.nullable(v.string()),
});
export type RolloutChange = v.InferOutput<typeof rolloutChangeSchema>;

export const rolloutViewSchema = v.strictObject({
  name: nameSchema,
  number: positive,
  /** superseded: later rollouts took all its devices, and none of them got it. */
  phase: v.picklist(["running", "paused", "complete", "aborted", "superseded"]),
  reason: v.nullable(v.string()),
  version: releaseVersionSchema,
  /** From 1, and how many there are. */
  wave: positive,
  waves: positive,
  /** Devices that the open wave may have begun. */
  wave_devices: count,
  max_unavailable: count,
  /** Why nothing of it is begun just now. */
  waits_for: v.nullable(v.string()),
  counts: shownCountsSchema,
  /** The first, then the last ones; none of one that an operator of before has begun. */
  changes: v.array(rolloutChangeSchema),
  /** Some of those that failed, are silent in the middle of it, or can not have it, and why. */
  named: v.array(v.strictObject({ device: nameSchema, standing: v.string(), reason: v.string() })),
});
export type RolloutView = v.InferOutput<typeof rolloutViewSchema>;

/** silent: not heard lately. lost: not for long. unheard: never by this operator's process. */
export const deviceStandings = ["alive", "silent", "lost", "unheard"] as const;

/**
 * Where a device's upgrade is, by what the operator has written and the device has told. Derived,
 * never kept: what the device says is right, whatever the store has forgotten.
 */
export const devicePhases = [
  /** Nothing of ours is at it. */
  "free",
  /** It follows a transaction that this operator knows no marker of. */
  "foreign",
  /** A marker is written, the device has not taken it up. */
  "told",
  "preparing",
  /** Its candidate runs, and was not heard here. */
  "ready",
  "observed",
  "held",
  /** The commit is written, the device has not taken it up. */
  "committed",
  "swapping",
  /** Taken back, and the device has not ended it yet. */
  "withdrawn",
  /** It ended without a word against the version. */
  "returned",
  "failed",
  "done",
] as const;
export type DevicePhase = (typeof devicePhases)[number];

export const deviceViewSchema = v.strictObject({
  name: nameSchema,
  standing: v.picklist(deviceStandings),
  /** Milliseconds since its last heartbeat; null where none was heard. */
  heard_ms: v.nullable(count),
  labels: labelsSchema,
  current_version: v.nullable(releaseVersionSchema),
  current_digest: v.nullable(digestSchema),
  /** What it is to become, or was to become last. */
  target_version: v.nullable(releaseVersionSchema),
  rollout: v.nullable(nameSchema),
  upgrade: v.picklist(devicePhases),
  reason: v.nullable(v.string()),
  /** Where the reason of one that failed or returned lies: `host` says nothing of the version. */
  cause: v.nullable(v.picklist(endingCauses)),
  progress_percent: v.nullable(v.number()),
  healthy: v.nullable(v.boolean()),
  /** Its metadata is stale since then, RFC 3339: revocations may be kept from it. */
  stale_since: v.nullable(v.string()),
  architecture: v.nullable(v.string()),
  executor: v.nullable(v.string()),
});
export type DeviceView = v.InferOutput<typeof deviceViewSchema>;

export const happeningSchema = v.strictObject({
  what: v.string(),
  device: v.nullable(v.string()),
  rollout: v.nullable(v.string()),
  message: v.string(),
  /** Milliseconds since 1970 by the operator's clock: for people. */
  time: v.number(),
});
export type ToldHappening = v.InferOutput<typeof happeningSchema>;

/** A number as Prometheus knows it; those of one name follow each other. */
export const fleetSampleSchema = v.strictObject({
  name: v.string(),
  help: v.string(),
  type: v.picklist(["gauge", "counter"]),
  labels: v.record(v.string(), v.string()),
  value: v.number(),
});
export type FleetSampleView = v.InferOutput<typeof fleetSampleSchema>;

const named = v.strictObject({ rollout: nameSchema });
const nothing = v.object({});

/** Names, paths and schemas; what is done, operator/routes.ts says. */
/** Until something is begun or committed again; null where no older store was put back. */
const settlesSchema = v.nullable(positive);

export const fleetApi = {
  devices: {
    name: "fleet.device.list",
    method: "GET",
    path: "/v1/fleet/devices",
    summary: "Devices in the order of their names, a page at a time",
    permission: "view",
    mutates: false,
    input: v.strictObject({ after: v.optional(nameSchema) }),
    output: v.strictObject({
      devices: v.array(deviceViewSchema),
      total: count,
      /** The name to ask on with; null where this was the last page. */
      next: v.nullable(nameSchema),
      settles_ms: settlesSchema,
    }),
  },
  device: {
    name: "fleet.device.show",
    method: "GET",
    path: "/v1/fleet/devices/:device",
    summary: "One device: what it runs, what it is to become, what it said last",
    permission: "view",
    mutates: false,
    input: v.strictObject({ device: nameSchema }),
    output: v.strictObject({
      device: deviceViewSchema,
      status: v.nullable(statusSchema),
      canonical: v.nullable(heartbeatSchema),
      candidate: v.nullable(heartbeatSchema),
      marker: v.nullable(v.omit(markerSchema, ["manifest"])),
    }),
  },
  label: {
    name: "fleet.device.label",
    method: "POST",
    path: "/v1/fleet/devices/:device/labels",
    summary: "Says which labels a device has; these replace the ones before",
    // Labels move a device into rollouts that are in force, which upgrade it.
    permission: "rollout",
    mutates: true,
    input: v.strictObject({ device: nameSchema, labels: labelsSchema }),
    output: nothing,
  },
  forget: {
    name: "fleet.device.forget",
    method: "POST",
    path: "/v1/fleet/devices/:device/forget",
    summary: "Forgets a device that is lost: its rollout waits for it no more",
    permission: "operate",
    mutates: true,
    input: v.strictObject({ device: nameSchema }),
    output: nothing,
  },
  rollouts: {
    name: "fleet.rollout.list",
    method: "GET",
    path: "/v1/fleet/rollouts",
    summary: "All rollouts, the newest first",
    permission: "view",
    mutates: false,
    input: nothing,
    output: v.strictObject({
      rollouts: v.array(rolloutViewSchema),
      settles_ms: settlesSchema,
    }),
  },
  rollout: {
    name: "fleet.rollout.show",
    method: "GET",
    path: "/v1/fleet/rollouts/:rollout",
    summary: "One rollout, how far it is, and what it was told",
    permission: "view",
    mutates: false,
    input: named,
    output: v.strictObject({
      rollout: rolloutViewSchema,
      spec: v.omit(rolloutSpecSchema, ["manifest"]),
      settles_ms: settlesSchema,
    }),
  },
  members: {
    name: "fleet.rollout.members",
    method: "GET",
    path: "/v1/fleet/rollouts/:rollout/members",
    summary: "The devices of a rollout, by name, a page at a time, and what became of each",
    permission: "view",
    mutates: false,
    input: v.strictObject({ rollout: nameSchema, after: v.optional(nameSchema) }),
    output: v.strictObject({
      members: v.array(rolloutMemberSchema),
      total: count,
      /** The name to ask on with; null where this was the last page. */
      next: v.nullable(nameSchema),
    }),
  },
  create: {
    name: "fleet.rollout.create",
    method: "POST",
    path: "/v1/fleet/rollouts",
    summary: "Begins to give a version to devices",
    permission: "rollout",
    mutates: true,
    input: v.strictObject({
      name: nameSchema,
      spec: rolloutSpecSchema,
      /** Devices that it names may be such as were never heard. */
      allow_unknown: v.optional(v.boolean()),
    }),
    output: rolloutViewSchema,
  },
  eventsKept: {
    name: "fleet.events.kept",
    method: "GET",
    path: "/v1/fleet/events/kept",
    summary: "What happened lately, after an id, or all that is kept",
    permission: "view",
    mutates: false,
    input: v.strictObject({ after: v.optional(v.string()) }),
    output: v.strictObject({
      events: v.array(v.strictObject({ id: v.string(), event: happeningSchema })),
      /** The last one that happened: ids begin anew, with another word, in each process. */
      last: v.string(),
      /** All that came after the id is told, also where an operator before gave it. */
      known: v.boolean(),
    }),
  },
  metrics: {
    name: "fleet.metrics",
    method: "GET",
    path: "/v1/fleet/metrics",
    summary: "Numbers of the fleet, which /metrics tells as well",
    permission: "view",
    mutates: false,
    input: nothing,
    output: v.strictObject({ metrics: v.array(fleetSampleSchema) }),
  },
  pause: {
    name: "fleet.rollout.pause",
    method: "POST",
    path: "/v1/fleet/rollouts/:rollout/pause",
    summary: "Begins and commits nothing more of a rollout",
    permission: "rollout",
    mutates: true,
    input: v.strictObject({
      rollout: nameSchema,
      reason: v.optional(v.pipe(v.string(), v.maxLength(fleetLimits.textLength))),
    }),
    output: rolloutViewSchema,
  },
  resume: {
    name: "fleet.rollout.resume",
    method: "POST",
    path: "/v1/fleet/rollouts/:rollout/resume",
    summary: "Goes on with a rollout; what failed until now is accepted, or tried again",
    permission: "rollout",
    mutates: true,
    input: v.strictObject({ rollout: nameSchema, retry: v.optional(v.boolean()) }),
    output: rolloutViewSchema,
  },
  abort: {
    name: "fleet.rollout.abort",
    method: "POST",
    path: "/v1/fleet/rollouts/:rollout/abort",
    summary: "Ends a rollout for good, and takes back all that is not committed",
    permission: "rollout",
    mutates: true,
    input: v.strictObject({
      rollout: nameSchema,
      reason: v.optional(v.pipe(v.string(), v.maxLength(fleetLimits.textLength))),
    }),
    output: rolloutViewSchema,
  },
} as const;

export const fleetStreams = {
  events: {
    name: "fleet.events",
    method: "GET",
    path: "/v1/fleet/events",
    summary: "What happens to devices and rollouts, as it happens",
    permission: "view",
    mutates: false,
    input: nothing,
    output: happeningSchema,
  },
} as const;
