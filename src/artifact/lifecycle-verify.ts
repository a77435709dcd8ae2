import * as v from "valibot";
import {
  type Architecture,
  type ArtifactBuild,
  artifactLimits,
  type Envelope,
  envelopeSchema,
  type Libc,
  type Manifest,
  type Metadata,
  manifestSchema,
  metadataSchema,
  type Root,
  rootSchema,
} from "./protocol.ts";
import { compareVersions } from "./protocol-version.ts";

/**
 * What a device believes of what is signed. Pure: signatures are checked by a function that is
 * given, times are arguments.
 */

/** Why something is not believed. */
export const verifyRefusals = [
  "root-malformed",
  "root-gap",
  "root-rolled-back",
  "root-below-old-threshold",
  "root-below-own-threshold",
  "metadata-malformed",
  "metadata-below-threshold",
  "metadata-replayed",
  "metadata-forked",
  "metadata-missing",
  "manifest-malformed",
  "manifest-unsigned",
  "manifest-unknown-key",
  "manifest-revoked-key",
  "manifest-bad-signature",
  "manifest-not-as-ordered",
  "below-floor",
  "revoked-digest",
  "wrong-channel",
  "no-build",
] as const;
export type VerifyRefusal = (typeof verifyRefusals)[number];

export interface NotBelieved {
  readonly kind: "refused";
  readonly refusal: VerifyRefusal;
  readonly expected: string;
  readonly received: string;
  readonly mend: string;
}
export type Believed<T> = { readonly kind: "ok"; readonly value: T } | NotBelieved;

/** Whether an Ed25519 key has signed a text. */
export type CheckSignature = (signed: {
  readonly text: string;
  readonly signature: string;
  readonly spki: string;
}) => boolean;

export type SignedKind = "root" | "metadata" | "manifest";

/** What is signed begins with what it is: no signature of one kind counts for another. */
export const signedText = (kind: SignedKind, text: string): string =>
  `hostler artifact ${kind} 1\n${text}`;

/** What a device trusts. */
export interface Trust {
  readonly root: Root;
  /** null: none that the root's keys have signed was seen. */
  readonly metadata: Metadata | null;
}

/**
 * A root set as it is pinned: whoever pins it has it from hands that are trusted; what is checked
 * is that it is whole, and that its own keys have signed it.
 */
export function readRoot(text: string, check: CheckSignature): Believed<Root> {
  const read = readSigned(text, rootKind);
  if (read.kind === "refused") return read;
  const { envelope, value: root } = read.value;
  const count = countSigners(envelope, { kind: "root", keys: root.keys, check });
  if (count >= root.threshold) return { kind: "ok", value: root };
  return refuse("root-below-own-threshold", {
    expected: `${signatures(root.threshold)} by its own ${keys(root.keys.length)}`,
    received: `${count}`,
    mend: "Sign it: hostler fleet root sign FILE --key KEY",
  });
}

/**
 * The root set after the present one. The old threshold says that it follows, its own that somebody
 * holds its keys.
 */
export function followRoot(current: Root, text: string, check: CheckSignature): Believed<Root> {
  const read = readSigned(text, rootKind);
  if (read.kind === "refused") return read;
  const { envelope, value: root } = read.value;
  const wanted = current.version + 1;
  if (root.version !== wanted) {
    return refuse(root.version < wanted ? "root-rolled-back" : "root-gap", {
      expected: `root set ${wanted}, after ${current.version}`,
      received: `${root.version}`,
      mend: "Publish every root set under its own name: hostler fleet artifact push does",
    });
  }
  const old = countSigners(envelope, { kind: "root", keys: current.keys, check });
  if (old < current.threshold) {
    return refuse("root-below-old-threshold", {
      expected: `${signatures(current.threshold)} by keys of root set ${current.version}`,
      received: `${old}`,
      mend: "Sign it with the old keys too: hostler fleet root sign FILE --key KEY",
    });
  }
  return readRoot(text, check);
}

export interface MetadataSeen {
  /** The highest that the device has journaled; 0 for none. */
  readonly version: number;
  /** SHA-256 of its text, where that was journaled. */
  readonly digest: string | null;
}

/** @param options.digest SHA-256 of the signed text */
export function believeMetadata(options: {
  readonly root: Root;
  readonly text: string;
  readonly check: CheckSignature;
  readonly seen: MetadataSeen;
  readonly digestOf: (signed: string) => string;
}): Believed<{ readonly metadata: Metadata; readonly digest: string }> {
  const { root, text, check, seen, digestOf } = options;
  const read = readSigned(text, metadataKind);
  if (read.kind === "refused") return read;
  const { envelope, value: metadata } = read.value;
  const count = countSigners(envelope, { kind: "metadata", keys: root.keys, check });
  if (count < root.threshold) {
    return refuse("metadata-below-threshold", {
      expected: `${signatures(root.threshold)} by keys of root set ${root.version}`,
      received: `${count}`,
      mend: "Sign it with keys of the present root set: hostler fleet root sign FILE --key KEY",
    });
  }
  if (metadata.version < seen.version) {
    return refuse("metadata-replayed", {
      expected: `version ${seen.version} or later, which this device has seen`,
      received: `${metadata.version}`,
      mend: "See who serves what is old; publish the newest one",
    });
  }
  const digest = digestOf(envelope.signed);
  const isFork = metadata.version === seen.version && seen.digest !== null;
  if (isFork && seen.digest !== digest) {
    return refuse("metadata-forked", {
      expected: `version ${seen.version} as this device has seen it`,
      received: "another text with that version",
      mend: "Find out who has signed it; give what is right a higher version",
    });
  }
  return { kind: "ok", value: { metadata, digest } };
}

/** "unknown": nobody has told the device the time. Stale is told, and nothing ends for it. */
export function freshnessOf(metadata: Metadata, now: string | null): "fresh" | "stale" | "unknown" {
  if (now === null) return "unknown";
  return now < metadata.expires ? "fresh" : "stale";
}

/** Why a file is revoked; undefined where it is not. What runs already is not ended for it. */
export function revocationOf(metadata: Metadata, digest: string): string | undefined {
  return metadata.revoked.find((entry) => entry.digest === digest)?.reason;
}

export interface DeviceFacts {
  readonly architecture: Architecture;
  readonly libc: Libc;
  /** Journaled: below it the device never goes. */
  readonly floor: string | null;
  /** Channels that it follows; null: every one. */
  readonly channels: readonly string[] | null;
}

export interface BelievedManifest {
  readonly manifest: Manifest;
  /** What of it is for this device. */
  readonly build: ArtifactBuild;
  /** What its floor is once this version is done. */
  readonly floor: string;
}

/** @param options.ordered what the operator says that it is: the manifest has to say the same */
export function believeManifest(options: {
  readonly trust: Trust;
  readonly text: string;
  readonly check: CheckSignature;
  readonly device: DeviceFacts;
  readonly ordered: { readonly version: string; readonly digest: string } | null;
}): Believed<BelievedManifest> {
  const { trust, text, check, device, ordered } = options;
  if (trust.metadata === null) {
    return refuse("metadata-missing", {
      expected: `metadata that root set ${trust.root.version} has signed`,
      received: "none",
      mend: "Publish it beside the manifest: hostler fleet artifact push does",
    });
  }
  const signed = readManifest({ text, metadata: trust.metadata, check });
  if (signed.kind === "refused") return signed;
  const manifest = signed.value;
  const { architecture, libc } = device;
  const build = manifest.builds.find(
    (found) => found.architecture === architecture && found.libc === libc,
  );
  if (build === undefined) {
    return refuse("no-build", {
      expected: `a file for ${architecture} with ${libc}`,
      received: manifest.builds.map((one) => `${one.architecture} with ${one.libc}`).join(", "),
      mend: "Build the release for it too, and sign its manifest",
    });
  }
  const reason =
    refuseOrder(manifest, build, ordered) ?? refuseDevice(manifest, device) ?? undefined;
  if (reason !== undefined) return reason;
  const revoked = revocationOf(trust.metadata, build.digest);
  if (revoked !== undefined) {
    return refuse("revoked-digest", {
      expected: "a file that is not revoked",
      received: `${build.digest.slice(0, 12)}…, revoked: ${revoked}`,
      mend: "Choose another version",
    });
  }
  return { kind: "ok", value: { manifest, build, floor: higher(manifest.floor, device.floor) } };
}

/** A manifest that a key of the metadata has signed, whatever device it is for. */
export function readManifest(options: {
  readonly text: string;
  readonly metadata: Metadata;
  readonly check: CheckSignature;
}): Believed<Manifest> {
  const { text, metadata, check } = options;
  const read = readSigned(text, manifestKind);
  if (read.kind === "refused") return read;
  const { envelope, value } = read.value;
  const revoked = new Map(metadata.revoked_keys.map(({ key, reason }) => [key, reason]));
  const keys = metadata.keys.map(({ key }) => key).filter((key) => !revoked.has(key));
  if (countSigners(envelope, { kind: "manifest", keys, check }) > 0) return { kind: "ok", value };
  return refuseSigners(envelope, { keys, revoked });
}

function refuseSigners(
  { signatures }: Envelope,
  { keys, revoked }: { readonly keys: readonly string[]; readonly revoked: Map<string, string> },
): NotBelieved {
  const expected = `a signature by one of ${keys.length} keys of the metadata`;
  const [first] = signatures;
  if (first === undefined) {
    const mend = "Sign it: hostler fleet artifact sign FILE --key KEY";
    return refuse("manifest-unsigned", { expected, received: "none", mend });
  }
  if (signatures.some(({ key }) => keys.includes(key))) {
    return refuse("manifest-bad-signature", {
      expected,
      received: "one that does not fit the text",
      mend: "Take the manifest as it was signed; nothing of it may be changed",
    });
  }
  const stolen = signatures.find(({ key }) => revoked.has(key));
  if (stolen !== undefined) {
    return refuse("manifest-revoked-key", {
      expected,
      received: `one by ${stolen.key}, which is revoked: ${revoked.get(stolen.key)}`,
      mend: "Sign it with another key",
    });
  }
  return refuse("manifest-unknown-key", {
    expected,
    received: `one by ${first.key}`,
    mend: "Sign it with a key of the metadata, or have the root keys sign metadata with this one",
  });
}

function refuseOrder(
  manifest: Manifest,
  build: ArtifactBuild,
  ordered: { readonly version: string; readonly digest: string } | null,
): NotBelieved | undefined {
  if (ordered === null) return undefined;
  if (ordered.version === manifest.version && ordered.digest === build.digest) return undefined;
  return refuse("manifest-not-as-ordered", {
    expected: `${ordered.version} of ${ordered.digest.slice(0, 12)}…, as the operator says`,
    received: `${manifest.version} of ${build.digest.slice(0, 12)}…`,
    mend: "Order the upgrade anew, with the manifest of that version",
  });
}

function refuseDevice(manifest: Manifest, device: DeviceFacts): NotBelieved | undefined {
  const { floor, channels } = device;
  if (floor !== null && compareVersions(manifest.version, floor) < 0) {
    return refuse("below-floor", {
      expected: `${floor} or later, which is this device's floor`,
      received: manifest.version,
      mend: "Choose a later version; what an earlier one has to bring back, build as a new one",
    });
  }
  if (channels === null || channels.includes(manifest.channel)) return undefined;
  return refuse("wrong-channel", {
    expected: `one of the channels ${channels.join(", ")}, which this device follows`,
    received: manifest.channel,
    mend: "Choose a version of those",
  });
}

const higher = (floor: string, other: string | null): string =>
  other !== null && compareVersions(other, floor) > 0 ? other : floor;

interface Kind<T> {
  readonly refusal: VerifyRefusal;
  readonly what: string;
  readonly schema: v.GenericSchema<unknown, T>;
  readonly mostBytes: number;
}
const rootKind: Kind<Root> = {
  refusal: "root-malformed",
  what: "a root set",
  schema: rootSchema,
  mostBytes: artifactLimits.rootBytes,
};
const metadataKind: Kind<Metadata> = {
  refusal: "metadata-malformed",
  what: "metadata",
  schema: metadataSchema,
  mostBytes: artifactLimits.metadataBytes,
};
const manifestKind: Kind<Manifest> = {
  refusal: "manifest-malformed",
  what: "a manifest",
  schema: manifestSchema,
  mostBytes: artifactLimits.manifestBytes,
};

interface Signed {
  readonly root: Root;
  readonly metadata: Metadata;
  readonly manifest: Manifest;
}
const kinds: { readonly [Name in SignedKind]: Kind<Signed[Name]> } = {
  root: rootKind,
  metadata: metadataKind,
  manifest: manifestKind,
};

/** What is in an envelope, before anybody looks at who has signed it. */
export function readUnverified<Name extends SignedKind>(
  kind: Name,
  text: string,
): Believed<{ readonly envelope: Envelope; readonly value: Signed[Name] }> {
  return readSigned<Signed[Name]>(text, kinds[kind]);
}

function readSigned<T>(
  text: string,
  { refusal, what, schema, mostBytes }: Kind<T>,
): Believed<{ readonly envelope: Envelope; readonly value: T }> {
  const mend = "Take it from where it was signed, whole";
  const malformed = (expected: string, received: string, how = mend) =>
    refuse(refusal, { expected, received, mend: how });
  const { length } = new TextEncoder().encode(text);
  if (length > mostBytes) return malformed(`at most ${mostBytes} bytes`, `${length} bytes`);
  const envelope = v.safeParse(envelopeSchema, parseJson(text));
  if (!envelope.success) {
    const received = foundInstead(text) ?? describe(envelope.issues[0]);
    return malformed(`${what} in its envelope`, received);
  }
  const inner = parseJson(envelope.output.signed);
  const parsed = v.safeParse(schema, inner);
  if (parsed.success) {
    return { kind: "ok", value: { envelope: envelope.output, value: parsed.output } };
  }
  const format = (inner as { format?: unknown } | null | undefined)?.format;
  if (typeof format === "number" && format > 1) {
    return malformed(
      `${what} of format 1`,
      `one of format ${format}, which a newer version reads`,
      "Publish it in format 1 as well, or bring this device to a newer version by hand",
    );
  }
  return malformed(what, foundInstead(text) ?? describe(parsed.issues[0]));
}

const signatures = (count: number): string => (count === 1 ? "1 signature" : `${count} signatures`);
const keys = (count: number): string => (count === 1 ? "key" : `${count} keys`);

/** What a file is that was named in the place of another one. */
function foundInstead(text: string): string | undefined {
  if (text.startsWith("hostler-artifact-public-1 ")) return "a public key";
  if (text.startsWith("-----BEGIN ")) return "a key or a certificate in PEM";
  const parsed = parseJson(text);
  if (parsed === undefined) return "a text that is no JSON";
  const envelope = v.safeParse(envelopeSchema, parsed);
  if (!envelope.success) return undefined;
  const inner = parseJson(envelope.output.signed);
  return Object.values(kinds).find(({ schema }) => v.is(schema, inner))?.what;
}

function describe(issue: v.BaseIssue<unknown>): string {
  const path = (issue.path ?? []).map((part) => String(part.key)).join(".");
  const place = path === "" ? "" : `${path}: `;
  const expected = issue.expected ?? issue.message;
  return `${place}${issue.received.slice(0, 80)}, where ${expected} is expected`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** How many of these keys have signed it: each counts once. */
export function countSigners(
  envelope: Envelope,
  by: {
    readonly kind: SignedKind;
    readonly keys: readonly string[];
    readonly check: CheckSignature;
  },
): number {
  const text = signedText(by.kind, envelope.signed);
  const signers = new Set<string>();
  for (const { key, signature } of envelope.signatures) {
    if (!by.keys.includes(key)) continue;
    if (by.check({ text, signature, spki: key })) signers.add(key);
  }
  return signers.size;
}

function refuse(
  refusal: VerifyRefusal,
  why: { readonly expected: string; readonly received: string; readonly mend: string },
): NotBelieved {
  return { kind: "refused", refusal, ...why };
}
