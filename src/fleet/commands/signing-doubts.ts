import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { readUnverified, type SignedKind } from "../../artifact/lifecycle-verify.ts";
import type { Manifest, Metadata, Root } from "../../artifact/protocol.ts";
import { artifactLimits, publishedNames } from "../../artifact/protocol.ts";
import { NamedFileRefused } from "../../journal/file-refused.ts";
import { readNamed } from "./artifact-words.ts";

/** What is to be signed, and by which key. */
export interface Signing {
  readonly file: string;
  readonly kind: SignedKind;
  readonly value: Root | Metadata | Manifest;
  /** The secret key's file, and its public half. */
  readonly path: string;
  readonly key: string;
}

/**
 * Whether a signature by this key is going to count, by the root sets and the metadata that lie
 * beside what is signed.
 * @returns why it does not count with those; undefined when it does, or nothing is known. It may be
 *   right all the same: metadata that names a new key can come after what that key signs
 * @throws NamedFileRefused for a root set of which it is no key, and can be none
 */
export function doubtAbout(signing: Signing): string | undefined {
  const { file, kind, value, path, key } = signing;
  const folder = dirname(file);
  if (kind === "root") return doubtOfRoot(signing, value as Root);
  if (kind === "metadata") {
    const root = newestRoot(folder);
    if (root === undefined || root.keys.includes(key)) return undefined;
    return `${path} is no key of root set ${root.version}: its signature does not count there`;
  }
  const metadata = readBeside("metadata", join(folder, "metadata.json"));
  const revoked = metadata?.revoked_keys.find((one) => one.key === key);
  if (revoked !== undefined) {
    return `${path} is revoked (${revoked.reason}): no device takes what it has signed`;
  }
  if (metadata === undefined || metadata.keys.some((one) => one.key === key)) return undefined;
  return (
    `metadata ${metadata.version} does not name ${path}: no device takes what it has signed ` +
    "until hostler fleet root metadata --signer names it"
  );
}

function doubtOfRoot({ file, path, key }: Signing, root: Root): string | undefined {
  if (root.keys.includes(key)) return undefined;
  const before = root.version - 1;
  const previous =
    before === 0 ? undefined : readBeside("root", join(dirname(file), publishedNames.root(before)));
  if (previous?.keys.includes(key) === true) return undefined;
  if (before > 0 && previous === undefined) {
    return `${path} counts only if it is a key of root set ${before}, which is not beside ${file}`;
  }
  const sets = before === 0 ? "root set 1" : `root set ${root.version} or of ${before}`;
  throw new NamedFileRefused(
    `Cannot sign ${file} with ${path}: expected a key of ${sets}, received another. ` +
      "Name one of its keys.",
  );
}

function newestRoot(folder: string): Root | undefined {
  const versions = readdirSync(folder).map((name) =>
    Number(/^root-(\d{1,9})\.json$/.exec(name)?.[1]),
  );
  const newest = Math.max(0, ...versions.filter(Number.isFinite));
  return newest === 0 ? undefined : readBeside("root", join(folder, publishedNames.root(newest)));
}

/** What is there and can be read: of anything else nothing is known. */
function readBeside<Kind extends "root" | "metadata">(kind: Kind, path: string) {
  if (!existsSync(path)) return undefined;
  const text = readNamed(path, "read", artifactLimits.metadataBytes);
  const read = readUnverified(kind, text);
  return read.kind === "ok" ? read.value.value : undefined;
}
