import { isAbsolute, normalize } from "node:path";
import * as v from "valibot";
import { decode } from "../run/manifest.ts";

/**
 * What `hold` carries: one file with all contents behind each other under token 1, and this
 * manifest under token 0, which says what is where. One archive, because Linux 6.19 takes 128 files
 * of a session, and every file of its own would fill its last page.
 */

/** A manifest of another version is not understood, and its session is left alone. */
export const HOLD_MANIFEST_VERSION = 1;
export const CONTENT_TOKEN = 1n;

export const holdLimits = {
  /** Files and folders. */
  entries: 100_000,
  manifestBytes: 64 * 1024 * 1024,
  /** Bytes that are read and written at once. */
  pieceBytes: 1024 * 1024,
  /** Milliseconds of copying in one turn: what luod says is heard in between. */
  turnTime: 20,
  /** How often a file that changes while it is copied is copied. */
  attempts: 3,
  /** Bytes of a path: PATH_MAX. */
  pathBytes: 4096,
} as const;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
/** Nothing in it leads elsewhere than it says. */
const path = v.pipe(
  v.string(),
  v.maxLength(holdLimits.pathBytes),
  v.check((value) => isAbsolute(value) && normalize(value) === value && !value.includes("\0")),
);
const nanoseconds = v.pipe(v.string(), v.regex(/^-?\d{1,20}$/));
const about = {
  path,
  /** The permission bits, with those for set-user-id and their like. */
  mode: v.pipe(count, v.maxValue(0o7777)),
  user: count,
  group: count,
  /** Nanoseconds since 1970, as decimal digits: a number holds no such many. */
  modified: nanoseconds,
  accessed: nanoseconds,
};

export const heldEntrySchema = v.variant("kind", [
  v.object({ kind: v.literal("folder"), ...about }),
  v.object({
    kind: v.literal("file"),
    ...about,
    /** Where it begins in the archive. */
    offset: count,
    bytes: count,
    /** Of its bytes: it finds accidents, not forgers, who have no way to this memory. */
    sum: v.pipe(v.string(), v.regex(/^[0-9a-f]{16}$/)),
  }),
]);
export type HeldEntry = v.InferOutput<typeof heldEntrySchema>;
export type HeldFile = Extract<HeldEntry, { kind: "file" }>;

export const holdManifestSchema = v.object({
  version: v.literal(HOLD_MANIFEST_VERSION),
  kind: v.literal("hold"),
  /** Of the archive; 0 when there is none. */
  bytes: count,
  /** A folder stands before what is in it. */
  entries: v.pipe(v.array(heldEntrySchema), v.maxLength(holdLimits.entries)),
});
export type HoldManifest = v.InferOutput<typeof holdManifestSchema>;

/** @throws RangeError above the limit of its size */
export function encodeHoldManifest(manifest: HoldManifest): Uint8Array {
  const bytes = new TextEncoder().encode(JSON.stringify(manifest));
  if (bytes.length <= holdLimits.manifestBytes) return bytes;
  throw new RangeError(
    `Expected a manifest of at most ${holdLimits.manifestBytes} bytes, received ${bytes.length}`,
  );
}

/** The manifest in these bytes, or why there is none. */
export function decodeHoldManifest(bytes: Uint8Array): HoldManifest | { readonly problem: string } {
  const manifest = decode(holdManifestSchema, bytes);
  if ("problem" in manifest) return manifest;
  const outside = manifest.entries.find(
    (entry) => entry.kind === "file" && entry.offset + entry.bytes > manifest.bytes,
  );
  if (outside === undefined) return manifest;
  return { problem: `${outside.path} ends behind the archive's ${manifest.bytes} bytes` };
}

/** Entries that none of these paths names or holds: they are not written to. */
export function entriesOutside(
  entries: readonly HeldEntry[],
  paths: readonly string[],
): readonly HeldEntry[] {
  const isBelow = (entry: string, one: string) =>
    entry === one || entry.startsWith(one.endsWith("/") ? one : `${one}/`);
  return entries.filter((entry) => !paths.some((one) => isBelow(entry.path, one)));
}

/** The sum of bytes that come in pieces of `pieceBytes`, the last one shorter. */
export function addToSum(sum: bigint, piece: Uint8Array): bigint {
  return Bun.hash.xxHash64(piece, sum);
}

export const sumText = (sum: bigint) => sum.toString(16).padStart(16, "0");
