import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { setFileTimes } from "../../../ffi/file-times.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import {
  addToSum,
  type HeldEntry,
  type HeldFile,
  type HoldManifest,
  holdLimits,
  sumText,
} from "../hold/manifest.ts";
import { passStep } from "./carried.ts";
import { fill, filled, TEMPORARY_PREFIX, writeWhole } from "./hold-archive.ts";
import type { Pauses } from "./turns.ts";

/**
 * Writes all that was carried to where it was: each file beside its place, to the disk, and then
 * renamed, so that whoever is killed meanwhile leaves whole files alone. It can be done again.
 * @throws Error with the path that cannot be restored
 */
export async function restore(
  manifest: HoldManifest,
  archive: OwnedDescriptor | undefined,
  options: { readonly id: string; readonly turns: Pauses },
): Promise<void> {
  const suffix = Bun.hash.xxHash64(options.id).toString(16);
  for (const entry of manifest.entries) {
    await options.turns.next();
    try {
      if (entry.kind === "folder") makeFolder(entry.path, 0o700);
      else await restoreFile(entry, archive, { suffix, turns: options.turns });
    } catch (error) {
      throw new Error(`cannot restore ${entry.path}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
  // What is written into a folder changes its times: the innermost are settled first.
  for (const entry of manifest.entries.toReversed()) {
    if (entry.kind === "folder") settleFolder(entry);
  }
}

/** One that is there already stays; a link in its place does not lead us elsewhere. */
function makeFolder(path: string, mode: number): void {
  mkdirSync(dirname(path), { recursive: true });
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if ((error as { code?: string }).code !== "EEXIST") throw error;
    if (!lstatSync(path).isDirectory())
      throw new Error("expected a folder there", { cause: error });
  }
}

async function restoreFile(
  file: HeldFile,
  archive: OwnedDescriptor | undefined,
  { suffix, turns }: { readonly suffix: string; readonly turns: Pauses },
): Promise<void> {
  const folder = dirname(file.path);
  mkdirSync(folder, { recursive: true });
  const temporary = join(folder, `${TEMPORARY_PREFIX}${suffix}`);
  rmSync(temporary, { force: true });
  const target = openSync(temporary, "wx", 0o600);
  try {
    await copyOut(file, archive, { target, turns });
    fchownSync(target, file.user, file.group);
    // After the owner, whose change takes the set-user-id bit away.
    fchmodSync(target, file.mode);
    settleTimes(target, file);
    fsyncSync(target);
    renameSync(temporary, file.path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    closeSync(target);
  }
  syncFolder(folder);
  passStep("hold", "restored");
}

async function copyOut(
  file: HeldFile,
  archive: OwnedDescriptor | undefined,
  { target, turns }: { readonly target: number; readonly turns: Pauses },
): Promise<void> {
  let [bytes, sum] = [0, 0n];
  while (bytes < file.bytes) {
    if (archive === undefined) throw new Error("Bug: content without an archive");
    const wanted = Math.min(holdLimits.pieceBytes, file.bytes - bytes);
    const length = fill(archive.number, wanted, file.offset + bytes);
    if (length === 0) break;
    sum = addToSum(sum, filled(length));
    writeWhole(target, filled(length), bytes);
    bytes += length;
    await turns.next();
  }
  if (bytes === file.bytes && sumText(sum) === file.sum) return;
  const expected = `${file.bytes} bytes with the sum ${file.sum}`;
  const received = `${bytes} with ${sumText(sum)}`;
  throw new Error(
    `expected ${expected}, received ${received}: its memory was damaged; nothing was written`,
  );
}

function settleFolder(entry: HeldEntry): void {
  const folder = openSync(entry.path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    fchownSync(folder, entry.user, entry.group);
    fchmodSync(folder, entry.mode);
    settleTimes(folder, entry);
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function settleTimes(file: number, { accessed, modified }: HeldEntry): void {
  setFileTimes(file, { accessed: BigInt(accessed), modified: BigInt(modified) });
}

function syncFolder(path: string): void {
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
