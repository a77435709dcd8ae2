import * as v from "valibot";
import { type Build, digestSchema, releaseVersionSchema } from "./protocol.ts";

/**
 * The installation of a host that is upgraded, as it lies on the disk:
 *
 *     layout.json                           {"format":1}
 *     versions/<version>-<digest12>/hostler the program
 *     versions/<…>/manifest.json            as it was signed, where it came by an upgrade
 *     versions/<…>/verified                 written last: what was read back and hashed
 *     versions/<…>/proven                   it has answered for every role of this host
 *     current, previous, candidate          links to folders of versions/
 *     journal.json                          the agent's
 *     journal.json.damaged                  one that could not be read, when it was set aside
 *     roles.json                            the roles that its host is expected to have
 *     trust/                                the root set that was pinned, and what it has signed
 *     lock                                  who changes links or removes versions holds it
 */
export const layoutNames = {
  format: "layout.json",
  versions: "versions",
  program: "hostler",
  manifest: "manifest.json",
  verified: "verified",
  proven: "proven",
  journal: "journal.json",
  /** A journal that could not be read, set aside by an installation. */
  damagedJournal: "journal.json.damaged",
  roles: "roles.json",
  trust: "trust",
  lock: "lock",
} as const;

/** Where an installation lies when nobody says otherwise: /var may be mounted with noexec. */
export const defaultFleetFolder = "/opt/hostler";

/** What is written here is understood by this one; a higher one is left as it is. */
export const LAYOUT_FORMAT = 1;

export const linkNames = ["current", "previous", "candidate"] as const;
export type LinkName = (typeof linkNames)[number];

export const layoutLimits = {
  /** Folders in versions/; more are not looked at, and nothing is removed then. */
  versions: 256,
  /** Characters of a small file: verified, layout.json. */
  recordLength: 4_096,
  /** Bytes of a program. */
  programBytes: 2 ** 30,
  /** Versions that are kept beside those that are linked or run, when nobody says otherwise. */
  keep: 2,
  mostKept: 100,
} as const;

/** The digits of its digest that stand in the name of a version's folder. */
const SHORT_DIGEST = 12;

export const layoutSchema = v.looseObject({ format: v.pipe(v.number(), v.safeInteger()) });

/** Loose, because whoever fetched it may say more, and a later version as well. */
export const verifiedSchema = v.looseObject({
  format: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  version: releaseVersionSchema,
  digest: digestSchema,
});
export type VerifiedRecord = v.InferOutput<typeof verifiedSchema>;

/** @returns "1.4.0-0123456789ab" */
export function folderOf({ version, digest }: Build): string {
  return `${version}-${digest.slice(0, SHORT_DIGEST)}`;
}

/** What a folder's name says; undefined for a name of somebody else's. */
export function parseFolder(
  name: string,
): { readonly version: string; readonly shortDigest: string } | undefined {
  const [, version = "", shortDigest = ""] = /^(.+)-([0-9a-f]{12})$/.exec(name) ?? [];
  if (!v.is(releaseVersionSchema, version)) return undefined;
  return { version, shortDigest };
}

/** What a link says when it leads to a version. */
export const targetOf = (name: string): string => `${layoutNames.versions}/${name}`;

/** The version that a link leads to; undefined when it leads anywhere else. */
export function versionOfTarget(target: string): string | undefined {
  const name = /^(?:\.\/)?versions\/([^/]+)\/?$/.exec(target)?.[1];
  return name === undefined || parseFolder(name) === undefined ? undefined : name;
}

/** A version's folder, as far as a look without hashing can say. */
export interface StoredVersion {
  readonly name: string;
  /** damaged: it was verified, and its program is not there. Only hashing says that it is right. */
  readonly state: "verified" | "unverified" | "damaged";
  /** As `verified` says; undefined before it is written, and where it says nothing. */
  readonly build: Build | undefined;
  readonly isProven: boolean;
  /** When it was verified, in milliseconds since 1970 by a clock that may be wrong; 0: never. */
  readonly storedAt: number;
}

/** A link that is there and leads to no version leads "astray". */
export type LinkState =
  | { readonly kind: "absent" }
  | { readonly kind: "version"; readonly name: string }
  | { readonly kind: "astray"; readonly target: string };

export interface LayoutState {
  /** undefined: no installation was made here. */
  readonly format: number | undefined;
  readonly links: Readonly<Record<LinkName, LinkState>>;
  readonly versions: readonly StoredVersion[];
  /** More versions than are looked at. */
  readonly isOverfull: boolean;
}

/** The version that a link leads to, whether it is there or not. */
export function linked(state: LayoutState, link: LinkName): string | undefined {
  const found = state.links[link];
  return found.kind === "version" ? found.name : undefined;
}
