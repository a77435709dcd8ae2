import * as v from "valibot";
import { firstFinding } from "../../messaging/describe-issues.ts";
import { defineCollection, metaBucket } from "../../store/collection.ts";
import type { BucketDefinition } from "../../store/store.ts";
import { ExitCode } from "../../units/exit-code.ts";
import {
  type DeviceStatus,
  fleetBuckets,
  type Heartbeat,
  heartbeatSchema,
  type Marker,
  markerSchema,
  statusSchema,
} from "../protocol.ts";
import {
  labelsSchema,
  operatorLimits,
  rolloutChangeSchema,
  rolloutCountsSchema,
  rolloutSpecSchema,
} from "../protocol-operator.ts";
import { type RolloutCounts, type RolloutRecord, rolloutPhases } from "./lifecycle-state.ts";

/** What an operator remembers, and where; and what devices tell it there. */

const MEBIBYTE = 1024 * 1024;
const facts = { age: "forever", expendable: false, volatile: false } as const;

/** For 50,000 devices, whose manifests take some 4 KB. */
export const fleetStoreBuckets: readonly BucketDefinition[] = [
  { name: fleetBuckets.markers, size: 512 * MEBIBYTE, ...facts },
  { name: fleetBuckets.statuses, size: 512 * MEBIBYTE, ...facts },
  // Two of each device: gone with the process, because nothing is decided by an old one.
  {
    ...{ name: fleetBuckets.heartbeats, size: 256 * MEBIBYTE, age: 24 * 3_600_000 },
    ...{ expendable: true, volatile: true },
  },
  { name: fleetBuckets.rollouts, size: 64 * MEBIBYTE, ...facts },
  { name: fleetBuckets.labels, size: 128 * MEBIBYTE, ...facts },
  // Some 10,000, of which each has a message of up to half a kilobyte.
  {
    ...{ name: fleetBuckets.events, size: 16 * MEBIBYTE, age: 90 * 86_400_000 },
    ...{ expendable: true, volatile: false },
  },
  { name: fleetBuckets.operator, size: MEBIBYTE, ...facts },
  metaBucket,
];

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const positive = v.pipe(count, v.minValue(1));

const rolloutEntries = {
  name: v.string(),
  number: positive,
  phase: v.picklist(rolloutPhases),
  reason: v.nullable(v.string()),
  spec: rolloutSpecSchema,
  wave: count,
  forgiven: count,
  round: positive,
};

const pastEntries = { device: v.string(), reason: v.string(), by: v.nullable(v.string()) };
const formerStanding = v.picklist(["done", "failed", "superseded"]);
const named = <Schema extends v.GenericSchema>(member: Schema) =>
  v.pipe(v.array(member), v.maxLength(operatorLimits.past));
const formerUnnamed = { done: count, failed: count, superseded: count };

/** Before a host's own fault was told apart from the version's, and who did what, and when. */
const formerRolloutSchema = v.strictObject({
  ...rolloutEntries,
  result: v.nullable(v.omit(rolloutCountsSchema, ["hindered"])),
  past: v.strictObject({
    named: named(v.strictObject({ ...pastEntries, standing: formerStanding })),
    unnamed: v.strictObject(formerUnnamed),
  }),
});
type FormerRollout = v.InferOutput<typeof formerRolloutSchema>;

const rolloutRecordSchema: v.GenericSchema<unknown, RolloutRecord> = v.strictObject({
  ...rolloutEntries,
  result: v.nullable(rolloutCountsSchema),
  forgivenHosts: count,
  past: v.strictObject({
    named: named(
      v.strictObject({
        ...pastEntries,
        standing: v.picklist(["done", "failed", "hindered", "superseded"]),
      }),
    ),
    unnamed: v.strictObject({ ...formerUnnamed, hindered: count }),
  }),
  changes: v.pipe(v.array(rolloutChangeSchema), v.maxLength(operatorLimits.changes)),
});

function fromFormer(record: FormerRollout): RolloutRecord {
  const { result, past } = record;
  return {
    ...record,
    result: result && { ...result, hindered: 0 },
    past: { ...past, unnamed: { ...past.unnamed, hindered: 0 } },
    ...{ forgivenHosts: 0, changes: [] },
  };
}

/** Who could not has failed there: so it was counted. */
function toFormer(record: RolloutRecord): FormerRollout {
  const { changes: _changes, forgivenHosts, result, past, ...rest } = record;
  const { hindered, ...unnamed } = past.unnamed;
  return {
    ...rest,
    forgiven: rest.forgiven + forgivenHosts,
    result: result && formerCounts(result),
    past: {
      named: past.named.map((member) => {
        const { standing } = member;
        return { ...member, standing: standing === "hindered" ? "failed" : standing };
      }),
      unnamed: { ...unnamed, failed: unnamed.failed + hindered },
    },
  };
}

function formerCounts({
  hindered,
  ...counts
}: RolloutCounts): NonNullable<FormerRollout["result"]> {
  return { ...counts, failed: counts.failed + hindered };
}

export const rolloutCollection = defineCollection({
  bucket: fleetBuckets.rollouts,
  version: 3,
  schema: rolloutRecordSchema,
  former: {
    schema: formerRolloutSchema as v.GenericSchema<unknown, FormerRollout>,
    up: fromFormer,
    down: toFormer,
  },
});

export const labelsCollection = defineCollection({
  bucket: fleetBuckets.labels,
  version: 1,
  schema: labelsSchema,
});

/** The key of the incarnation that an operator has seen last, in its own bucket. */
export const INCARNATION_KEY = "incarnation";
const incarnationSchema = v.strictObject({ version: v.literal(1), incarnation: v.string() });

export const encodeIncarnation = (incarnation: string): string =>
  JSON.stringify({ version: 1, incarnation });

/** @returns undefined for what is not understood: then it was another store */
export function decodeIncarnation(text: string): string | undefined {
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), incarnationSchema), text);
  return parsed.success ? parsed.output.incarnation : undefined;
}

/** A record is not understood; the message says which, and what to do. */
export class RecordRefused extends Error {
  override readonly name = "RecordRefused";
  readonly exitCode = ExitCode.refused;
}

/** Own words, which a newer operator may have written otherwise. @throws RecordRefused */
export function decodeMarker(device: string, text: string): Marker {
  const read = decode(markerSchema, text);
  if (read.kind === "ok") return read.value;
  throw new RecordRefused(
    `${fleetBuckets.markers}/${device} is a marker of another version, or damaged: ` +
      `${read.reason}. It is left as it is: start the hostler that wrote it, or restore a ` +
      "backup by hostler store restore",
  );
}

export type Decoded<T> =
  | { readonly kind: "ok"; readonly value: T }
  | { readonly kind: "refused"; readonly reason: string };

export const decodeStatus = (text: string): Decoded<DeviceStatus> => decode(statusSchema, text);
export const decodeHeartbeat = (text: string): Decoded<Heartbeat> => decode(heartbeatSchema, text);

/** @returns the value, or what was expected and received instead, for people */
function decode<T>(schema: v.GenericSchema<unknown, T>, text: string): Decoded<T> {
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), text);
  if (parsed.success) return { kind: "ok", value: parsed.output };
  const { expected, received } = firstFinding(parsed.issues);
  return { kind: "refused", reason: `expected ${expected}, received ${received}` };
}

/** "box.candidate" as the device and which of its agents; undefined for other keys. */
export function readHeartbeatKey(
  key: string,
): { readonly device: string; readonly who: "canonical" | "candidate" } | undefined {
  const [, device, who] = /^(.+)\.(canonical|candidate)$/.exec(key) ?? [];
  if (device === undefined || who === undefined) return undefined;
  return { device, who: who as "canonical" | "candidate" };
}
