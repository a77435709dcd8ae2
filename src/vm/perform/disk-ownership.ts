import {
  existsSync,
  fstatSync,
  lstatSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";
import * as v from "valibot";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { lockWhole } from "../../../ffi/record-lock.ts";
import type { Disk } from "../../hypervisor/driver.ts";
import { writeDurably } from "../../journal/append-journal.ts";
import { refusalCode } from "../../journal/file-refused.ts";
import { passStep } from "./kill-points.ts";

/**
 * Whose a machine's disks are. Beside each disk that is written to stands a file with a lock, which
 * its VMM inherits: it is held exactly as long as the VMM lives, whatever becomes of the worker,
 * and by whatever path or host somebody else comes to the folder. It is a file of its own, because
 * QEMU locks single bytes of a disk (100 and 200 and up: block/file-posix.c) and cloud-hypervisor
 * all of it (block/src/fcntl.rs). In the folder stands besides, under which owner generation the
 * disks were used last: a master gives none twice, so that a lower one is somebody's whose time is
 * over.
 */

/** What keeps a machine from its disks. */
export class DisksRefused extends Error {
  override readonly name = "DisksRefused";
  /** in-use: that passes. owner: somebody else has them for good. */
  readonly kind: "in-use" | "owner" | "link" | "damaged";

  constructor(kind: DisksRefused["kind"], message: string) {
    super(message);
    this.kind = kind;
  }

  get lasts(): boolean {
    return this.kind !== "in-use";
  }
}

const ownerFile = "owner.json";
/** Bytes of an owner's file; a longer one is none of ours. */
const mostOwnerBytes = 4096;

const ownerSchema = v.strictObject({
  format: v.literal(1),
  owner_generation: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
});

/**
 * Under which owner generation the disks of this folder were used last; 0 where no master gave one.
 * @throws DisksRefused for a file that is not understood; Error (EIO …)
 */
export function ownerGenerationIn(folder: string): number {
  const path = join(folder, ownerFile);
  let text: string;
  try {
    if (lstatSync(path).size > mostOwnerBytes) throw damaged(path, "a longer file");
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (refusalCode(error) === "ENOENT") return 0;
    throw error;
  }
  const parsed = v.safeParse(ownerSchema, parseJson(text));
  if (!parsed.success) throw damaged(path, parsed.issues[0].message);
  return parsed.output.owner_generation;
}

/** undefined for what is none. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const damaged = (path: string, received: string) =>
  new DisksRefused(
    "damaged",
    `${path}: expected {"format":1,"owner_generation":N}, received ${received}. ` +
      "Find out who had the disks last, and write it down anew.",
  );

/** The locks of a machine's disks; disposing closes these descriptors, not those of its VMM. */
export class DiskLocks implements Disposable {
  readonly descriptors: readonly OwnedDescriptor[];

  constructor(descriptors: readonly OwnedDescriptor[]) {
    this.descriptors = descriptors;
  }

  [Symbol.dispose](): void {
    for (const descriptor of this.descriptors) descriptor.close();
  }
}

/**
 * Takes the disks of a machine for the VMM that is about to be started: all of them, or none. With
 * the locks held, compares the owner generation beside them, and writes ours there where it is
 * higher.
 * @param options.generation ours; 0 for a machine that no master gave
 * @param options.former a duplicate of what stands at the place of that lock in the VMM that has
 *   the machine until this one takes it over: one lock for both, so that it is never free between
 * @throws DisksRefused; SystemCallError (ENOLCK …); Error (ENOSPC …). No lock is left then.
 */
export function takeDisks(
  disks: readonly Disk[],
  options: {
    readonly generation: number;
    readonly former?: ((index: number) => OwnedDescriptor | undefined) | undefined;
  },
): DiskLocks {
  const writable = disks.filter(({ readOnly }) => !readOnly).map(({ path }) => path);
  const locks = lockAll(writable, options.former);
  try {
    passStep("disks:locked");
    const folders = new Set(writable.map((path) => dirname(path)));
    for (const folder of folders) claim(folder, options.generation);
    passStep("disks:claimed");
    return locks;
  } catch (error) {
    locks[Symbol.dispose]();
    throw error;
  }
}

/**
 * Takes what there is of a machine's disks, before they are made or replaced: somebody else may
 * have the folder. @throws as takeDisks
 */
export function claimDisks(
  folder: string,
  paths: readonly string[],
  generation: number,
): DiskLocks {
  const locks = lockAll(paths.filter((path) => existsSync(path)));
  try {
    if (paths.length > 0) claim(folder, generation);
    return locks;
  } catch (error) {
    locks[Symbol.dispose]();
    throw error;
  }
}

function lockAll(
  paths: readonly string[],
  former: (index: number) => OwnedDescriptor | undefined = () => undefined,
): DiskLocks {
  const taken: OwnedDescriptor[] = [];
  try {
    for (const [index, path] of paths.entries()) {
      taken.push(sharedLock(path, former(index)) ?? lockOne(path));
    }
    return new DiskLocks(taken);
  } catch (error) {
    for (const descriptor of taken) descriptor.close();
    throw error;
  }
}

const lockOf = (disk: string) => `${disk}.lock`;

/** undefined where it is not the lock of this disk: a VMM of an older worker has none. */
function sharedLock(path: string, found: OwnedDescriptor | undefined) {
  if (found === undefined) return undefined;
  const lock = statSync(lockOf(path), { throwIfNoEntry: false });
  const { dev, ino } = fstatSync(found.number);
  if (lock?.dev === dev && lock.ino === ino) return found;
  found.close();
  return undefined;
}

function lockOne(path: string): OwnedDescriptor {
  const status = lstatSync(path);
  // Under another name it would have another lock beside it.
  if (!status.isFile() || status.nlink !== 1) {
    const received = status.isFile() ? `one with ${status.nlink}` : "something else";
    throw new DisksRefused(
      "link",
      `${path}: expected a file with this name alone, received ${received}. Copy it to here.`,
    );
  }
  const lock = lockWhole(lockOf(path));
  if (lock !== "held") return lock;
  throw new DisksRefused(
    "in-use",
    `${path}: expected a disk to which nobody else writes, received one that a VMM has locked, ` +
      "of this worker or of another. It is tried again by itself.",
  );
}

function claim(folder: string, generation: number): void {
  const owner = ownerGenerationIn(folder);
  if (owner > generation) throw new DisksRefused("owner", describeOwner(folder, owner, generation));
  if (owner === generation) return;
  const text = JSON.stringify({ format: 1, owner_generation: generation });
  writeDurably(join(folder, ownerFile), `${text}\n`);
}

function describeOwner(folder: string, owner: number, generation: number): string {
  const ours = generation === 0 ? "none" : `${generation}`;
  return (
    `${folder}: expected owner generation ${ours} or a lower one beside the disks, received ` +
    `${owner}: a master has given them to another worker since. Nothing is started here.`
  );
}

/**
 * Removes a machine's disks with the machine: not those of a later owner, and not while somebody
 * writes to them. The owner's file goes after them, so that a folder that has one is never half of
 * a machine's.
 * @returns false where a later owner has them, and they stay
 * @throws DisksRefused "in-use", or for an owner's file that is not understood; Error (EIO …)
 */
export function removeDisks(folder: string, generation: number): boolean {
  if (!existsSync(folder)) return true;
  if (ownerGenerationIn(folder) > generation) return false;
  const names = new Set(readdirSync(folder));
  const disks = [...names].filter((name) => names.has(lockOf(name)));
  using _locks = lockAll(disks.map((name) => join(folder, name)));
  const last = [...disks.map(lockOf), ownerFile];
  for (const name of [...names].filter((found) => !last.includes(found))) {
    rmSync(join(folder, name), { recursive: true, force: true });
  }
  passStep("disks:removed");
  for (const name of last) rmSync(join(folder, name), { force: true });
  return true;
}

/** Somebody has or had these disks of a master: without a record they are not ours to remove. */
export const haveOwner = (folder: string): boolean => existsSync(join(folder, ownerFile));
