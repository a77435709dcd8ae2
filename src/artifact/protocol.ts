import * as v from "valibot";
import { artifactVersionSchema, compareVersions } from "./protocol-version.ts";

/**
 * What is signed of a release, and by whom:
 *
 *     a root set      its keys sign the next root set, and the metadata
 *     the metadata    which keys sign manifests, until when it is fresh, what is revoked
 *     a manifest      one version: its files by their digests
 *     a block map     one file in blocks, each with the place of its compressed frame
 *
 * The first three are texts of JSON in an envelope; a signature is over the very bytes of the text.
 */

/** Going over one of these is a refusal that a test shows. */
export const artifactLimits = {
  /** Bytes of a signed manifest: as it travels in a marker. */
  manifestBytes: 32 * 1024,
  rootBytes: 16 * 1024,
  metadataBytes: 256 * 1024,
  blockMapBytes: 8 * 1024 * 1024,
  /** Bytes of the file that a device runs. */
  artifactBytes: 1024 ** 3,
  leastBlockBytes: 4 * 1024,
  mostBlockBytes: 4 * 1024 * 1024,
  /** Files of a manifest: one for each architecture and libc. */
  builds: 8,
  labels: 32,
  labelLength: 63,
  noteLength: 200,
  rootKeys: 8,
  signingKeys: 16,
  signatures: 16,
  revokedKeys: 64,
  revokedDigests: 512,
  /** Root sets that a device follows at once: as many rotations was it away for at most. */
  rootChain: 64,
} as const;

/** SHA-256 in hexadecimal. */
export const digestSchema = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "64 hexadecimal digits"));

/**
 * An Ed25519 key as the DER of its SPKI in base64 (RFC 8410). One key has one text: the letter
 * before the "=" says four bits, and its other two are 0.
 */
export const publicKeySchema = v.pipe(
  v.string(),
  v.regex(
    /^MCowBQYDK2VwAyEA[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/,
    "an Ed25519 key in base64: what hostler fleet key generate writes into FILE.pub",
  ),
);

/** RFC 3339 in UTC, whole seconds: as text, an earlier one comes first. */
export const timeSchema = v.pipe(
  v.string(),
  v.regex(/^\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\dZ$/, "a time such as 2027-01-31T12:00:00Z"),
);

const note = v.pipe(v.string(), v.maxLength(artifactLimits.noteLength));
const label = v.pipe(
  v.string(),
  v.maxLength(artifactLimits.labelLength),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, "letters, digits, dots, dashes and underscores"),
);
const version = v.pipe(v.number(), v.safeInteger(), v.minValue(1));

export const envelopeSchema = v.strictObject({
  format: v.literal(1),
  /** The text that is signed. */
  signed: v.string(),
  signatures: v.pipe(
    v.array(
      v.strictObject({
        key: publicKeySchema,
        /** 64 bytes in base64url. */
        signature: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{86}$/, "64 bytes in base64url")),
      }),
    ),
    v.maxLength(artifactLimits.signatures),
  ),
});
export type Envelope = v.InferOutput<typeof envelopeSchema>;

const unique = <T>(of: (entry: T) => string) =>
  v.check<T[], string>(
    (entries) => new Set(entries.map(of)).size === entries.length,
    "each of them once",
  );

export const rootSchema = v.pipe(
  v.strictObject({
    format: v.literal(1),
    /** Rises by 1. */
    version,
    issued: timeSchema,
    /** So many of the keys have to sign. */
    threshold: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
    keys: v.pipe(
      v.array(publicKeySchema),
      v.minLength(1),
      v.maxLength(artifactLimits.rootKeys),
      unique((key) => key),
    ),
  }),
  v.check(({ threshold, keys }) => threshold <= keys.length, "a threshold that its keys can reach"),
);
export type Root = v.InferOutput<typeof rootSchema>;

export const metadataSchema = v.strictObject({
  format: v.literal(1),
  /** Rises: a device takes none below the one that it has seen. */
  version,
  issued: timeSchema,
  /** From then on it is stale, and no more than that: who serves it may have been stopped. */
  expires: timeSchema,
  /** What manifests are signed by. */
  keys: v.pipe(
    v.array(v.strictObject({ key: publicKeySchema, note })),
    v.maxLength(artifactLimits.signingKeys),
    unique(({ key }) => key),
  ),
  revoked_keys: v.pipe(
    v.array(v.strictObject({ key: publicKeySchema, reason: note })),
    v.maxLength(artifactLimits.revokedKeys),
  ),
  /** Files that no device takes, whoever signed them. */
  revoked: v.pipe(
    v.array(v.strictObject({ digest: digestSchema, reason: note })),
    v.maxLength(artifactLimits.revokedDigests),
  ),
});
export type Metadata = v.InferOutput<typeof metadataSchema>;

export const architectureSchema = v.picklist(["x64", "arm64"]);
export const libcSchema = v.picklist(["glibc", "musl"]);
export type Architecture = v.InferOutput<typeof architectureSchema>;
export type Libc = v.InferOutput<typeof libcSchema>;

const bytes = v.pipe(v.number(), v.safeInteger(), v.minValue(1));

export const artifactBuildSchema = v.strictObject({
  architecture: architectureSchema,
  libc: libcSchema,
  /** Of the file that runs. */
  digest: digestSchema,
  size: v.pipe(bytes, v.maxValue(artifactLimits.artifactBytes)),
  /** Of its block map's file. */
  blocks: v.strictObject({
    digest: digestSchema,
    size: v.pipe(bytes, v.maxValue(artifactLimits.blockMapBytes)),
  }),
});
export type ArtifactBuild = v.InferOutput<typeof artifactBuildSchema>;

export const manifestSchema = v.pipe(
  v.strictObject({
    format: v.literal(1),
    product: v.literal("hostler"),
    version: artifactVersionSchema,
    /** A device that has finished this upgrade never goes below that version. */
    floor: artifactVersionSchema,
    channel: label,
    labels: v.pipe(
      v.record(label, v.pipe(v.string(), v.maxLength(artifactLimits.labelLength))),
      v.check(
        (labels) => Object.keys(labels).length <= artifactLimits.labels,
        `at most ${artifactLimits.labels} labels`,
      ),
    ),
    issued: timeSchema,
    builds: v.pipe(
      v.array(artifactBuildSchema),
      v.minLength(1),
      v.maxLength(artifactLimits.builds),
      unique(({ architecture, libc }) => `${architecture}-${libc}`),
    ),
  }),
  v.check(
    (manifest) => compareVersions(manifest.floor, manifest.version) <= 0,
    "a floor that its own version is not below",
  ),
);
export type Manifest = v.InferOutput<typeof manifestSchema>;

/** What files are called in a folder that devices fetch from. */
export const publishedNames = {
  metadata: "metadata.json",
  root: (rootVersion: number): string => `root-${rootVersion}.json`,
  manifest: (release: string): string => `hostler-${release}.manifest.json`,
  /** By the digest of the file that runs: whatever has that name has those bytes. */
  blocks: (digest: string): string => `${digest}.blocks`,
  frames: (digest: string): string => `${digest}.zst`,
} as const;
