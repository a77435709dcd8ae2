import {
  closeSync,
  constants,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { writeDurably } from "../../journal/append-journal.ts";
import { FileRefused, withFile } from "../../journal/file-refused.ts";
import {
  LAYOUT_FORMAT,
  type LayoutState,
  type LinkName,
  type LinkState,
  layoutLimits,
  layoutNames,
  layoutSchema,
  parseFolder,
  type StoredVersion,
  targetOf,
  type VerifiedRecord,
  verifiedSchema,
  versionOfTarget,
} from "../layout.ts";

const otherwise = "give another --folder";

/** What lies in the folder of an installation; nothing is hashed. @throws FileRefused */
export function readLayout(folder: string): LayoutState {
  return withFile({ what: "look at the installation", path: folder, otherwise }, () => {
    const names = namesIn(join(folder, layoutNames.versions)).filter(
      (name) => parseFolder(name) !== undefined,
    );
    return {
      format: readFormat(folder),
      links: {
        current: readLink(folder, "current"),
        previous: readLink(folder, "previous"),
        candidate: readLink(folder, "candidate"),
      },
      versions: names
        .toSorted()
        .slice(0, layoutLimits.versions)
        .map((name) => readVersion(folder, name)),
      isOverfull: names.length > layoutLimits.versions,
    };
  });
}

/**
 * Refuses an installation of a later hostler, whose rules are not known here.
 * @throws FileRefused
 */
export function checkFormat(folder: string): void {
  const format = readFormat(folder);
  if (format === undefined || format <= LAYOUT_FORMAT) return;
  throw new FileRefused(
    `Cannot change the installation ${folder}: expected format ${LAYOUT_FORMAT} at most, ` +
      `received ${format}, of a later hostler. Use its own program: ${folder}/current/hostler.`,
  );
}

/** What a small file of JSON says; undefined when it is not there, too long, or says nothing. */
export function readRecord<Schema extends v.GenericSchema>(
  path: string,
  schema: Schema,
): v.InferOutput<Schema> | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats?.isFile() !== true || stats.size > layoutLimits.recordLength) return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), readFileSync(path, "utf8"));
  return parsed.success ? parsed.output : undefined;
}

export function writeRecord(path: string, record: unknown): void {
  writeDurably(path, `${JSON.stringify(record)}\n`, 0o644);
}

/** What was read back of a version; undefined before, and when it says nothing. */
export function readVerified(folder: string, name: string): VerifiedRecord | undefined {
  const record = readRecord(
    join(versionFolder(folder, name), layoutNames.verified),
    verifiedSchema,
  );
  const parts = parseFolder(name);
  const isOfThis =
    record?.version === parts?.version && record?.digest.startsWith(parts?.shortDigest ?? "-");
  return isOfThis ? record : undefined;
}

export const versionFolder = (folder: string, name: string): string => join(folder, targetOf(name));

export const programOf = (folder: string, name: string): string =>
  join(versionFolder(folder, name), layoutNames.program);

/**
 * Points a link elsewhere, in one step: whoever looks finds the former target or the new one, also
 * after a power cut.
 * @throws FileRefused
 */
export function setLink(folder: string, link: LinkName, name: string): void {
  withFile({ what: "change the link", path: join(folder, link), otherwise }, () => {
    const temporary = join(folder, `.${link}.${process.pid}.new`);
    rmSync(temporary, { force: true });
    symlinkSync(targetOf(name), temporary);
    try {
      renameSync(temporary, join(folder, link));
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
    syncFolder(folder);
  });
}

/** @throws FileRefused */
export function removeLink(folder: string, link: LinkName): void {
  withFile({ what: "remove the link", path: join(folder, link), otherwise }, () => {
    if (lstatSync(join(folder, link), { throwIfNoEntry: false })?.isSymbolicLink() !== true) return;
    rmSync(join(folder, link));
    syncFolder(folder);
  });
}

/** fsync(2): what was made or renamed in the folder lasts. */
export function syncFolder(path: string): void {
  const folder = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as { readonly code?: string }).code === "ENOENT") return [];
    throw error;
  }
}

function readFormat(folder: string): number | undefined {
  return readRecord(join(folder, layoutNames.format), layoutSchema)?.format;
}

function readLink(folder: string, link: LinkName): LinkState {
  const path = join(folder, link);
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return { kind: "absent" };
  if (!stats.isSymbolicLink()) return { kind: "astray", target: "something that is no link" };
  const target = readlinkSync(path);
  const name = versionOfTarget(target);
  return name === undefined ? { kind: "astray", target } : { kind: "version", name };
}

function readVersion(folder: string, name: string): StoredVersion {
  const verified = readVerified(folder, name);
  const program = statSync(programOf(folder, name), { throwIfNoEntry: false });
  const path = versionFolder(folder, name);
  const stamp = statSync(join(path, layoutNames.verified), { throwIfNoEntry: false });
  const isWhole = program?.isFile() === true;
  const said = isWhole ? "verified" : "damaged";
  return {
    name,
    state: verified === undefined ? "unverified" : said,
    build: verified && { version: verified.version, digest: verified.digest },
    isProven: statSync(join(path, layoutNames.proven), { throwIfNoEntry: false }) !== undefined,
    storedAt: stamp?.mtimeMs ?? 0,
  };
}
