import * as v from "valibot";
import { engineChoiceSchema } from "../protocol-spec.ts";
import { passSchema, plannedDiskSchema, taskEngineSchema, text, transferSettings } from "./disk.ts";

/** What the task `verify` is told and reports: one disk, written over and read back. */

export const VERIFY_TASK = "verify";

/** Of the time that there is, what the writing may take; it is the slower one. */
export const WRITING_PART = 0.55;

/** What keeps a disk from being written, each looked at in the child before its first write. */
export const interlocks = [
  /** The disk under this name is another one, or tells no serial. */
  "serial",
  /** More than one disk of the host has this serial. */
  "ambiguous",
  "size",
  "read-only",
  /** It, a partition or what is built on it is mounted, or swapped to. */
  "mounted",
  /** Something is built on it: device mapper, md, bcache. */
  "holders",
  /** The kernel gives it to nobody else: open(2) with O_EXCL said EBUSY. */
  "claimed",
  /** Something stands on it. An operator's wipe of this serial, and nothing else, overrides it. */
  "signature",
  /** This host was booted from it. */
  "boot-disk",
  /** It could not be looked at, which is no permission. */
  "unknown",
] as const;
export type Interlock = (typeof interlocks)[number];

export const verifyInputSchema = v.strictObject({
  disk: v.strictObject({
    ...plannedDiskSchema.entries,
    serial: v.pipe(v.string(), v.minLength(1), v.maxLength(256)),
  }),
  ...transferSettings,
  /** Seconds after which it ends by itself, and tells what it came to. */
  most_s: v.pipe(v.number(), v.finite(), v.minValue(0)),
  /** "wipe": an operator gave up what stands on the disk with this serial, for this attempt. */
  allowed: v.picklist(["expected", "wipe"]),
  engine: v.optional(engineChoiceSchema, "default"),
});
export type VerifyInput = v.InferInput<typeof verifyInputSchema>;

export const closedInterlockSchema = v.strictObject({
  interlock: v.picklist(interlocks),
  reason: text,
});
export type ClosedInterlock = v.InferOutput<typeof closedInterlockSchema>;

export const verifyReportSchema = v.variant("kind", [
  /** Nothing was written. */
  v.strictObject({
    kind: v.literal("refused"),
    closed: v.pipe(v.array(closedInterlockSchema), v.minLength(1), v.maxLength(64)),
  }),
  v.strictObject({
    kind: v.literal("verified"),
    engine: taskEngineSchema,
    /** What is written over, by its name: "GPT", "ext4"; of a wipe alone. */
    overwritten: v.pipe(v.array(text), v.maxLength(64)),
    written: passSchema,
    /** A range whose bytes are others than were written is failed, as one that cannot be read. */
    read: passSchema,
    /** Failed ranges of it that were read, and were wrong. */
    miscompared: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  }),
]);
export type VerifyReport = v.InferOutput<typeof verifyReportSchema>;
