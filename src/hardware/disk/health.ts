import * as v from "valibot";
import { inventoryLimits } from "../inventory.ts";

/**
 * What a disk says of itself, in one form, whoever asked it and by whatever protocol. Pure. `null`
 * is "it does not tell"; why it does not stands in `unseen`, under the property's name.
 */

export const healthLimits = {
  text: inventoryLimits.text,
  attributes: 64,
  unseen: 32,
} as const;

/** Properties of a disk, by the names that a spec's `required` has for them. */
export const diskProperties = [
  /** The disk's own verdict on itself. */
  "disk.health",
  /** NVMe's bits of warning. */
  "disk.critical-warning",
  /** Errors that its own correction could not mend. */
  "disk.media-errors",
  /** What is left of the spare blocks, and the least that there must be. */
  "disk.spare",
  /** How much of its life is used up. */
  "disk.used",
  "disk.pending",
  "disk.uncorrectable",
  "disk.reallocated",
  "disk.temperature",
  /** The last self-test in its log. */
  "disk.self-test",
  /** What changed in all of these between two looks: the stage Storage. */
  "disk.change",
] as const;
export type DiskProperty = (typeof diskProperties)[number];

export const diskProtocols = ["nvme", "ata", "scsi", "none"] as const;
export type DiskProtocol = (typeof diskProtocols)[number];

/** What a protocol has a place for: of a disk that speaks it, each is seen or is named unseen. */
export const propertiesOf: Readonly<Record<DiskProtocol, readonly DiskProperty[]>> = {
  nvme: [
    "disk.health",
    "disk.critical-warning",
    "disk.media-errors",
    "disk.spare",
    "disk.used",
    "disk.temperature",
    "disk.self-test",
  ],
  ata: [
    "disk.health",
    "disk.media-errors",
    "disk.pending",
    "disk.uncorrectable",
    "disk.reallocated",
    "disk.temperature",
    "disk.self-test",
  ],
  scsi: [
    "disk.health",
    "disk.media-errors",
    "disk.pending",
    "disk.reallocated",
    "disk.temperature",
    "disk.self-test",
  ],
  none: ["disk.health"],
};

const text = v.pipe(v.string(), v.maxLength(healthLimits.text));
const told = v.nullable(text);
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const some = v.nullable(count);

export const selfTestSchema = v.strictObject({
  kind: v.picklist(["short", "extended", "other"]),
  result: v.picklist(["passed", "failed", "aborted", "running"]),
  /** The disk's own word for it. */
  detail: text,
  /** The disk's age when it ended. */
  power_on_hours: some,
});
export type SelfTest = v.InferOutput<typeof selfTestSchema>;

/** An attribute of ATA at or below the threshold of its maker. */
export const attributeSchema = v.strictObject({
  id: count,
  name: text,
  value: count,
  threshold: count,
  /** true: its maker expects the disk to fail. false: it is old. */
  failure_expected: v.boolean(),
});
export type FailingAttribute = v.InferOutput<typeof attributeSchema>;

export const diskHealthSchema = v.strictObject({
  protocol: v.picklist(diskProtocols),
  model: told,
  serial: told,
  firmware: told,
  healthy: v.nullable(v.boolean()),
  critical_warning: some,
  media_errors: some,
  spare_percent: some,
  spare_least_percent: some,
  used_percent: some,
  pending_sectors: some,
  uncorrectable_sectors: some,
  reallocated_sectors: some,
  /** Errors between disk and controller: a cable, a plug. */
  link_errors: some,
  temperature_c: v.nullable(v.pipe(v.number(), v.safeInteger())),
  power_on_hours: some,
  /** Entries that the disk's error log has had in its life. */
  logged_errors: some,
  self_test: v.nullable(selfTestSchema),
  failing_attributes: v.pipe(v.array(attributeSchema), v.maxLength(healthLimits.attributes)),
  unseen: v.pipe(
    v.array(v.strictObject({ property: v.picklist(diskProperties), reason: text })),
    v.maxLength(healthLimits.unseen),
  ),
});
export type DiskHealth = v.InferOutput<typeof diskHealthSchema>;

/** Of a disk that has told nothing yet. */
export function untoldHealth(protocol: DiskProtocol): DiskHealth {
  return {
    protocol,
    model: null,
    serial: null,
    firmware: null,
    healthy: null,
    critical_warning: null,
    media_errors: null,
    spare_percent: null,
    spare_least_percent: null,
    used_percent: null,
    pending_sectors: null,
    uncorrectable_sectors: null,
    reallocated_sectors: null,
    link_errors: null,
    temperature_c: null,
    power_on_hours: null,
    logged_errors: null,
    self_test: null,
    failing_attributes: [],
    unseen: [],
  };
}

/** Whether this disk told it; "disk.change" takes two looks, and is never seen in one. */
export function isSeen(health: DiskHealth, property: DiskProperty): boolean {
  switch (property) {
    case "disk.health":
      return health.healthy !== null;
    case "disk.critical-warning":
      return health.critical_warning !== null;
    case "disk.media-errors":
      return health.media_errors !== null;
    case "disk.spare":
      return health.spare_percent !== null && health.spare_least_percent !== null;
    case "disk.used":
      return health.used_percent !== null;
    case "disk.pending":
      return health.pending_sectors !== null;
    case "disk.uncorrectable":
      return health.uncorrectable_sectors !== null;
    case "disk.reallocated":
      return health.reallocated_sectors !== null;
    case "disk.temperature":
      return health.temperature_c !== null;
    case "disk.self-test":
      return health.self_test !== null;
    case "disk.change":
      return false;
  }
}

/**
 * Names each property of its protocol that it did not tell and that nobody named yet.
 * @param reason why, where nobody knows better
 */
export function withUnseen(health: DiskHealth, reason: string): DiskHealth {
  const named = new Set(health.unseen.map((entry) => entry.property));
  const missing = propertiesOf[health.protocol].filter(
    (property) => !isSeen(health, property) && !named.has(property),
  );
  const unseen = [...health.unseen, ...missing.map((property) => ({ property, reason }))]
    .filter((entry) => !isSeen(health, entry.property))
    .map(({ property, reason: why }) => ({ property, reason: why.slice(0, healthLimits.text) }));
  return { ...health, unseen };
}
