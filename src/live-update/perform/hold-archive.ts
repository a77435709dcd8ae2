import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  writeSync,
} from "node:fs";
import { basename, join } from "node:path";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { addToSum, type HeldEntry, type HeldFile, holdLimits, sumText } from "../hold/manifest.ts";
import type { Pauses } from "./turns.ts";

/** What a restoration that was killed may have left; it is nobody's. */
export const TEMPORARY_PREFIX = ".hostler-restore-";

/** What was found below the paths. */
export interface Scan {
  readonly entries: readonly FoundEntry[];
  readonly bytes: number;
  /** What cannot be carried, each in words. */
  readonly others: readonly string[];
}

export type FoundEntry = Extract<HeldEntry, { kind: "folder" }> | Omit<HeldFile, "offset" | "sum">;

function aboutOf(path: string, stats: BigIntStats) {
  return {
    path,
    mode: Number(stats.mode & 0o7777n),
    user: Number(stats.uid),
    group: Number(stats.gid),
    modified: String(stats.mtimeNs),
    accessed: String(stats.atimeNs),
  };
}

function kindOf(stats: BigIntStats): string {
  if (stats.isSymbolicLink()) return "a symbolic link";
  if (stats.isSocket()) return "a socket";
  if (stats.isFIFO()) return "a FIFO";
  return "a device";
}

/**
 * Looks for all that is to be carried; a folder stands before what is in it.
 * @param most so many files and folders
 */
export async function scan(
  paths: readonly string[],
  turns: Pauses,
  most: number = holdLimits.entries,
): Promise<Scan> {
  const entries = new Map<string, FoundEntry>();
  const others: string[] = [];
  let bytes = 0;
  const waiting = paths.toReversed();
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    await turns.next();
    if (entries.has(path) || basename(path).startsWith(TEMPORARY_PREFIX)) continue;
    if (entries.size >= most) {
      others.push(`more than ${most} files and folders: the rest of them`);
      break;
    }
    try {
      const stats = lstatSync(path, { bigint: true });
      if (stats.isDirectory()) {
        entries.set(path, { kind: "folder", ...aboutOf(path, stats) });
        waiting.push(...namesIn(path).toReversed());
      } else if (stats.isFile()) {
        const size = Number(stats.size);
        entries.set(path, { kind: "file", ...aboutOf(path, stats), bytes: size });
        bytes += size;
      } else others.push(`${path}: ${kindOf(stats)}`);
    } catch (error) {
      others.push(`${path}: ${reasonOf(error)}`);
    }
  }
  return { entries: [...entries.values()], bytes, others };
}

const namesIn = (path: string) =>
  readdirSync(path)
    .toSorted()
    .map((name) => join(path, name));

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const buffer = new Uint8Array(holdLimits.pieceBytes);

/** Where a file is copied to: into the archive, from this place on. */
interface Place {
  readonly archive: OwnedDescriptor;
  readonly offset: number;
}

/**
 * Copies a file into the archive, with what it is at that moment.
 * @param goesOn false when nobody wants it any more: the copy then ends early
 * @throws Error when it cannot be read, or changes every time it is copied
 */
export async function copyIn(
  path: string,
  { archive, offset }: Place,
  options: { readonly turns: Pauses; readonly goesOn: () => boolean },
): Promise<HeldFile> {
  for (let attempt = 1; ; attempt += 1) {
    const { file, isWhole } = await copyOnce(path, { archive, offset }, options);
    if (isWhole || !options.goesOn()) return file;
    if (attempt >= holdLimits.attempts) {
      throw new Error(`${path} changes while it is copied: whoever writes it has to pause`);
    }
  }
}

async function copyOnce(
  path: string,
  { archive, offset }: Place,
  { turns, goesOn }: { readonly turns: Pauses; readonly goesOn: () => boolean },
): Promise<{ readonly file: HeldFile; readonly isWhole: boolean }> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const source = openSync(path, flags);
  try {
    const before = fstatSync(source, { bigint: true });
    if (!before.isFile()) throw new Error(`${path} was a file, and is ${kindOf(before)}`);
    const size = Number(before.size);
    let [bytes, sum] = [0, 0n];
    while (bytes < size && goesOn()) {
      const length = fill(source, Math.min(buffer.length, size - bytes), bytes);
      if (length === 0) break;
      const piece = buffer.subarray(0, length);
      sum = addToSum(sum, piece);
      writeWhole(archive.number, piece, offset + bytes);
      bytes += length;
      await turns.next();
    }
    const after = fstatSync(source, { bigint: true });
    const isWhole =
      bytes === size && after.size === before.size && after.mtimeNs === before.mtimeNs;
    const about = aboutOf(path, after);
    return { file: { kind: "file", ...about, offset, bytes, sum: sumText(sum) }, isWhole };
  } finally {
    closeSync(source);
  }
}

/** Reads a whole piece, so that pieces begin where they did: the sum depends on it. */
export function fill(file: number, length: number, position: number): number {
  let filled = 0;
  while (filled < length) {
    const count = readSync(file, buffer, filled, length - filled, position + filled);
    if (count === 0) break;
    filled += count;
  }
  return filled;
}

/** What `fill` has read last. */
export const filled = (length: number) => buffer.subarray(0, length);

export function writeWhole(file: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(file, bytes, done, bytes.length - done, position + done);
  }
}
