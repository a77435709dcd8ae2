import * as v from "valibot";
import {
  bootIdSchema,
  buildSchema,
  endingCauses,
  fleetLimits,
  instanceSchema,
  lastWordsSchema,
  markerSchema,
  releaseVersionSchema,
  transactionSchema,
} from "./protocol.ts";

/**
 * What an agent knows after it was killed, or after a power cut: one line of JSON, replaced as a
 * whole. Both versions of an upgrade read it, one after the other, and neither believes it unseen.
 */

/** The newest form that this version writes. */
export const JOURNAL_FORMAT = 1;

/** Going over one is a refusal, or the end of an upgrade, that a test shows. */
export const journalLimits = {
  /** Bytes of the file: a marker, last words, and what is written around them. */
  bytes: 256 * 1024,
  /** Transactions that are remembered, so that a store which went back begins none anew. */
  seen: 32,
} as const;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
/** On CLOCK_BOOTTIME of the journal's boot, milliseconds. */
const moment = v.pipe(v.number(), v.finite(), v.minValue(0));
const text = v.pipe(v.string(), v.maxLength(fleetLimits.textLength));
const cause = v.picklist(endingCauses);
const words = v.nullable(lastWordsSchema);
const instanceOrNone = v.nullable(instanceSchema);

const followed = {
  marker: markerSchema,
  /** How often it was begun anew, because a reboot or a death of the agent came between. */
  resumes: count,
};
const probation = {
  ...followed,
  /** The candidate's. */
  instance: instanceSchema,
  /** When it was ready: what `commit_ms` is counted from. */
  readyAt: moment,
};
/** From the commit on. */
const committed = {
  marker: markerSchema,
  /** Of the candidate, which serves beside; null when it is gone. */
  instance: instanceOrNone,
  /** What is gone back to. */
  from: buildSchema,
  /** What `previous` led to before the swap, and leads to again after a way back. */
  before: v.nullable(buildSchema),
  until: moment,
  lastWords: words,
};
const proving = {
  ...committed,
  /** Of the new version by the boot guard, since the swap. */
  starts: count,
  /** How often a role answered, and then did not any more. */
  setbacks: count,
  /** Why it does not go on, or could not go back; null when all is well. */
  reason: v.nullable(text),
};
const ended = {
  transaction: transactionSchema,
  /** What was to be. */
  build: buildSchema,
  lastWords: words,
  /** A candidate that is not gone yet; it is told to stop again at `until`. */
  ending: v.nullable(v.strictObject({ instance: instanceSchema, until: moment })),
};

export const lifeSchema = v.variant("phase", [
  v.strictObject({ phase: v.literal("idle") }),
  v.strictObject({
    phase: v.literal("staging"),
    ...followed,
    /** checking: the manifest, the room on the disk. */
    stage: v.picklist(["checking", "fetching"]),
    until: moment,
  }),
  v.strictObject({
    phase: v.literal("verifying"),
    ...followed,
    /** proving: the file is hashed once more, and tests itself. */
    stage: v.picklist(["proving", "starting"]),
    /** Drawn, and on the disk, before the candidate is started. */
    instance: instanceOrNone,
    until: moment,
  }),
  v.strictObject({ phase: v.literal("cutover-ready"), ...probation }),
  v.strictObject({ phase: v.literal("observed"), ...probation }),
  v.strictObject({
    phase: v.literal("held"),
    ...probation,
    cause: v.picklist(["environment", "no-commit"]),
    reason: text,
  }),
  v.strictObject({
    phase: v.literal("commit-seen"),
    ...committed,
    stage: v.picklist(["hashing", "swapping"]),
  }),
  v.strictObject({ phase: v.literal("swapped"), ...proving }),
  v.strictObject({ phase: v.literal("canonical"), ...proving, settledAt: moment }),
  v.strictObject({
    phase: v.literal("reverting"),
    ...committed,
    /**
     * seeking: the former version is hashed, and fetched again where it is damaged. restarting:
     * the links are back, and the new version still runs. proving: the former one does.
     */
    stage: v.picklist(["seeking", "swapping", "restarting", "proving"]),
    reason: text,
    endingCause: cause,
    /** As they were, for when there is no way back after all. */
    starts: count,
    setbacks: count,
  }),
  v.strictObject({ phase: v.literal("done"), ...ended, reason: v.null() }),
  v.strictObject({ phase: v.literal("aborted"), ...ended, reason: text, endingCause: cause }),
  v.strictObject({ phase: v.literal("rolled-back"), ...ended, reason: text, endingCause: cause }),
]);
export type Life = v.InferOutput<typeof lifeSchema>;

export const journalSchema = v.strictObject({
  format: v.literal(JOURNAL_FORMAT),
  /** Rises with each write. */
  step: count,
  /** In which the moments count. */
  boot: bootIdSchema,
  /** Below it no manifest is taken. It rises alone, whatever comes of what raised it. */
  floor: v.nullable(releaseVersionSchema),
  /** Of the root-signed metadata; it rises alone too. */
  metadataVersion: count,
  /** What the links led to. */
  current: buildSchema,
  previous: v.nullable(buildSchema),
  /** Transactions that are over, the newest last. */
  seen: v.pipe(v.array(transactionSchema), v.maxLength(journalLimits.seen)),
  life: lifeSchema,
});
export type Journal = v.InferOutput<typeof journalSchema>;

/**
 * Forms that this version reads: its own, and that of the version before it, which it also writes
 * until an upgrade is done. There is one form so far.
 */
const readers: Readonly<Record<number, v.GenericSchema<unknown, Journal>>> = {
  1: journalSchema,
};

export function encodeJournal(journal: Journal): string {
  return `${JSON.stringify(journal)}\n`;
}

export type DecodedJournal =
  | { readonly kind: "ok"; readonly journal: Journal }
  /** There never was one. */
  | { readonly kind: "absent" }
  | { readonly kind: "refused"; readonly reason: string };

/** Whatever the bytes say: a refusal is a value, and the agent goes on without it. */
export function decodeJournal(bytes: string): DecodedJournal {
  if (bytes.length > journalLimits.bytes) {
    return refused(`at most ${journalLimits.bytes} characters`, `${bytes.length}`);
  }
  let value: unknown;
  try {
    value = JSON.parse(bytes);
  } catch {
    return refused("a line of JSON", "something else");
  }
  const format = formatOf(value);
  const reader = format === undefined ? undefined : readers[format];
  if (reader === undefined) {
    const known = Object.keys(readers).join(" or ");
    return refused(`format ${known}`, format === undefined ? "none" : `format ${format}`);
  }
  const parsed = v.safeParse(reader, value);
  if (parsed.success) return { kind: "ok", journal: parsed.output };
  const [issue] = parsed.issues;
  const place = v.getDotPath(issue);
  return refused(
    `${issue.expected ?? "another value"}${place === null ? "" : ` at ${place}`}`,
    issue.received,
  );
}

/** Which form the bytes say that they have; undefined: none, so that nobody has written them so. */
export function journalFormat(bytes: string): number | undefined {
  try {
    return formatOf(JSON.parse(bytes));
  } catch {
    return undefined;
  }
}

function formatOf(value: unknown): number | undefined {
  const form = v.safeParse(v.looseObject({ format: count }), value);
  return form.success ? form.output.format : undefined;
}

function refused(expected: string, received: string): DecodedJournal {
  return { kind: "refused", reason: `expected ${expected}, received ${received}` };
}
