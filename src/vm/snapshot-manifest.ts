import * as v from "valibot";
import { cardsSchema, withCards } from "./cards.ts";
import { choiceSchema } from "./machine-record.ts";
import { namePattern, vmSpecSchema } from "./protocol.ts";
import { encryptionSchema } from "./snapshot-key.ts";

/**
 * What a snapshot says of itself, in `snapshots/MACHINE/SNAPSHOT/manifest.json`. It is written
 * last: where it is, all of the snapshot is.
 */

/** Bytes of one manifest; a longer file is none of ours. */
export const mostManifestBytes = 1024 * 1024;
/** Files of one snapshot: state, pieces of memory, disks. */
export const mostSnapshotFiles = 1024;

const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const text = v.pipe(v.string(), v.maxLength(8192));

const fileSchema = v.strictObject({
  /** A plain name below the snapshot's folder. */
  name: v.pipe(v.string(), v.regex(/^[a-z0-9][a-z0-9.-]{0,127}$/)),
  kind: v.picklist(["state", "memory", "disk"]),
  /** Of a disk: how the machine's own folder calls it. */
  disk: v.optional(v.pipe(v.string(), v.regex(/^[a-z0-9][a-z0-9._-]{0,127}$/))),
  /** Bytes with its holes; of one that is encrypted, as it is without that. */
  size,
  /** Of all that is stored. */
  sha256: v.pipe(v.string(), v.regex(/^sha256-[A-Za-z0-9+/]{43}=$/)),
});
export type SnapshotFile = v.InferOutput<typeof fileSchema>;

const manifestSchema = v.strictObject({
  format: v.literal(1),
  machine: v.pipe(v.string(), v.regex(namePattern)),
  snapshot: v.pipe(v.string(), v.regex(namePattern)),
  /** Wall clock, RFC 3339, UTC. */
  time: text,
  /** The version of hostler that made it. */
  hostler: text,
  /** What was wanted of the machine, and is again when it is restored. */
  power: v.picklist(["running", "paused"]),
  spec: vmSpecSchema,
  cards: cardsSchema,
  /** The image's key in the store, which keeps it as long as there is the snapshot. */
  image: v.nullable(text),
  choice: choiceSchema,
  /** Of the VMM that gave the state. */
  vmm_version: text,
  /** Why the same build of the VMM alone can take it; null where another version can as well. */
  same_build_only: v.nullable(text),
  files: v.pipe(v.array(fileSchema), v.maxLength(mostSnapshotFiles)),
  /** Absent where its files are not encrypted. */
  encryption: v.optional(encryptionSchema),
});

export const snapshotManifestSchema = v.pipe(v.unknown(), withCards, manifestSchema);
export type SnapshotManifest = v.InferOutput<typeof snapshotManifestSchema>;
