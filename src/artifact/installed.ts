import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  fsyncSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as v from "valibot";
import { readPieces } from "../image/pieces.ts";
import { writeDurably } from "../journal/append-journal.ts";
import { refusalCode } from "../journal/file-refused.ts";
import { ArtifactRefused } from "./artifact-refused.ts";
import { passStep } from "./kill-points.ts";
import { type ArtifactBuild, artifactLimits, digestSchema } from "./protocol.ts";
import { executableHeadBytes, lookAtExecutable } from "./protocol-executable.ts";
import { artifactVersionSchema } from "./protocol-version.ts";

/** In the folder of a version. */
export const installedNames = {
  file: "hostler",
  manifest: "manifest.json",
  /** Written last: without it nothing here counts. */
  verified: "verified",
  /** What has come so far. */
  partial: "hostler.partial",
} as const;

/** A version that is here whole. */
export interface InstalledVersion {
  readonly folder: string;
  /** What is to be run. */
  readonly file: string;
  readonly version: string;
  readonly digest: string;
}

const verifiedSchema = v.strictObject({
  format: v.literal(1),
  version: artifactVersionSchema,
  digest: digestSchema,
});

/** versions/1.5.0-0123456789ab */
export const versionFolder = (
  versions: string,
  build: { readonly version: string; readonly digest: string },
): string => join(versions, `${build.version}-${build.digest.slice(0, 12)}`);

/** SHA-256 of a file, in hexadecimal. @throws the kernel's refusals; the signal's reason */
export async function digestOfFile(path: string, signal?: AbortSignal): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const { size } = await file.stat();
    const hash = createHash("sha256");
    const changed = (received: string) => new Error(`${path}: expected ${size}, ${received}`);
    await readPieces(file.fd, { size, signal, changed }, (piece) => void hash.update(piece));
    return hash.digest("hex");
  } finally {
    await file.close();
  }
}

/**
 * A version that was verified, hashed once more: before it is run, and before it is gone back to.
 * @throws ArtifactRefused "not-installed" or "not-verified"
 */
export async function checkVersion(folder: string): Promise<InstalledVersion> {
  const refuse = (
    refusal: "not-installed" | "not-verified",
    expected: string,
    received: string,
  ): ArtifactRefused =>
    new ArtifactRefused(`use the version in ${folder}`, {
      ...{ refusal, expected, received },
      mend: "Fetch it again: what is right of it is used",
    });
  const verified = readVerified(folder);
  if (verified === undefined) {
    throw refuse("not-installed", "a version that was verified", "none, or one that is not whole");
  }
  const file = join(folder, installedNames.file);
  const received = await digestOf(file);
  if (received === verified.digest) {
    return { folder, file, version: verified.version, digest: verified.digest };
  }
  throw refuse("not-verified", `SHA-256 ${verified.digest}`, received ?? "no such file");
}

/** @returns undefined where it is not there, or is not what it was any more */
export async function findVersion(
  folder: string,
  digest: string,
): Promise<InstalledVersion | undefined> {
  const verified = readVerified(folder);
  if (verified?.digest !== digest) return undefined;
  const file = join(folder, installedNames.file);
  if ((await digestOf(file)) !== digest) return undefined;
  return { folder, file, version: verified.version, digest };
}

async function digestOf(file: string): Promise<string | undefined> {
  try {
    return await digestOfFile(file);
  } catch (error) {
    if (refusalCode(error) === undefined) throw error;
    return undefined;
  }
}

function readVerified(folder: string): v.InferOutput<typeof verifiedSchema> | undefined {
  const path = join(folder, installedNames.verified);
  const status = statSync(path, { throwIfNoEntry: false });
  if (status === undefined || status.size > artifactLimits.rootBytes) return undefined;
  try {
    const parsed = v.safeParse(verifiedSchema, JSON.parse(readFileSync(path, "utf8")));
    return parsed.success ? parsed.output : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/**
 * Reads back what was written, and makes a version of it.
 * @throws ArtifactRefused: nothing of what was written is kept then
 */
export async function placeVersion(placing: {
  readonly folder: string;
  readonly partial: string;
  readonly build: ArtifactBuild;
  readonly version: string;
  readonly manifest: string;
}): Promise<InstalledVersion> {
  const { folder, partial, build, version, manifest } = placing;
  await checkWritten(partial, placing);
  const file = join(folder, installedNames.file);
  renameSync(partial, file);
  synchroniseFolder(folder);
  passStep("placed");
  writeDurably(join(folder, installedNames.manifest), manifest, 0o644);
  passStep("manifest-written");
  // The folder itself may be new in its own.
  synchroniseFolder(dirname(folder));
  const verified = { format: 1, version, digest: build.digest };
  writeDurably(join(folder, installedNames.verified), `${JSON.stringify(verified)}\n`, 0o644);
  passStep("verified");
  return { folder, file, version, digest: build.digest };
}

async function checkWritten(
  partial: string,
  { build, version }: { readonly build: ArtifactBuild; readonly version: string },
): Promise<void> {
  const digest = await digestOfFile(partial);
  const what = `use version ${version}`;
  if (digest !== build.digest) {
    rmSync(partial, { force: true });
    throw new ArtifactRefused(what, {
      refusal: "digest-after-write",
      expected: `SHA-256 ${build.digest} of what was written`,
      received: digest,
      mend: "Look at the disk; if it is whole, the release was built wrong",
    });
  }
  const found = lookAtExecutable(headOf(partial));
  const { architecture, libc } = build;
  const isRight =
    found.kind === "executable" && found.architecture === architecture && found.libc === libc;
  if (isRight) return;
  rmSync(partial, { force: true });
  throw new ArtifactRefused(what, {
    refusal: "not-executable",
    expected: `an executable for ${architecture} with ${libc}`,
    received:
      found.kind === "other" ? found.received : `one for ${found.architecture} with ${found.libc}`,
    mend: "Build the release anew, and publish it as a new version",
  });
}

/** What this program was built for, which is what this machine can run. */
export function ownTarget(): Pick<ArtifactBuild, "architecture" | "libc"> {
  const found = lookAtExecutable(headOf("/proc/self/exe"));
  if (found.kind !== "executable") throw new Error(`Bug: this program is ${found.received}`);
  const { architecture, libc } = found;
  return { architecture, libc };
}

/** The begin of a file, as `lookAtExecutable` takes it. */
export function headOf(path: string): Uint8Array {
  const descriptor = openSync(path, constants.O_RDONLY);
  try {
    const head = new Uint8Array(executableHeadBytes);
    return head.subarray(0, readSync(descriptor, head, 0, head.length, 0));
  } finally {
    closeSync(descriptor);
  }
}

function synchroniseFolder(path: string): void {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
