import {
  chmodSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { lockFile } from "../../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { FileRefused, withFile } from "../../journal/file-refused.ts";
import { readHolder, tellHolder } from "../../journal/lock-holder.ts";
import { type Collection, planCollection } from "../collection.ts";
import {
  folderOf,
  LAYOUT_FORMAT,
  type LayoutState,
  layoutLimits,
  layoutNames,
  linked,
  linkNames,
  parseFolder,
} from "../layout.ts";
import type { Build } from "../protocol.ts";
import { hashFile } from "./hashing.ts";
import { passStep } from "./kill-points.ts";
import {
  checkFormat,
  namesIn,
  programOf,
  readLayout,
  readVerified,
  removeLink,
  setLink,
  syncFolder,
  versionFolder,
  writeRecord,
} from "./layout-files.ts";
import { isRunning, runningVersions } from "./running-programs.ts";

/** Whatever the umask is: other users run the program. */
const FOLDER_MODE = 0o755;
const PROGRAM_MODE = 0o755;

const otherwise = "give another --folder";

/** Whether a stored version is what it was when it was verified. */
export type Wholeness =
  | { readonly kind: "whole"; readonly build: Build }
  | { readonly kind: "damaged"; readonly expected: string; readonly received: string };

/** What a version that cannot be used is refused with: nothing was changed. */
export class VersionRefused extends FileRefused {}

/**
 * An installation that is locked for changing: versions are stored, links are changed and versions
 * are removed through it alone. Each step leaves what a reader, a restart or a power cut can use.
 * Disposing of it gives the lock back, which the kernel does for one that was killed.
 */
export class Installation implements Disposable {
  readonly folder: string;
  readonly #lock: OwnedDescriptor;

  private constructor(folder: string, lock: OwnedDescriptor) {
    this.folder = folder;
    this.#lock = lock;
  }

  /**
   * Takes the lock; with `make` the folder is made where it is not there.
   * @throws FileRefused when another process has it, for a later format, or for the kernel's reason
   */
  static open(folder: string, { make }: { readonly make: boolean }): Installation {
    const place = { what: "use the installation", path: folder, otherwise };
    const lock = withFile(place, () => {
      if (make) makeFolder(join(folder, layoutNames.versions));
      return lockFile(join(folder, layoutNames.lock));
    });
    if (lock === "held") {
      const holder = readHolder(join(folder, layoutNames.lock));
      const which = holder === undefined ? "another process" : `process ${holder}`;
      throw new FileRefused(
        `Cannot change the installation ${folder}: expected that nobody else changes it, ` +
          `received a lock that ${which} has. Try again when that one is done.`,
      );
    }
    try {
      tellHolder(lock);
      checkFormat(folder);
      const { format } = readLayout(folder);
      if (format === undefined && !make) {
        throw new FileRefused(
          `Cannot use the installation ${folder}: expected ${layoutNames.format} in it, received ` +
            "none. Make one by hostler fleet install, or give another --folder.",
        );
      }
      if (format === undefined) {
        withFile(place, () =>
          writeRecord(join(folder, layoutNames.format), { format: LAYOUT_FORMAT }),
        );
      }
    } catch (error) {
      lock.close();
      throw error;
    }
    return new Installation(folder, lock);
  }

  read(): LayoutState {
    return readLayout(this.folder);
  }

  /**
   * Has a version of this file, verified: copied beside its place, synced, renamed, read back, and
   * only then said to be verified. What is there and whole stays; what a killed one left is redone.
   * @param source a file, such as /proc/self/exe
   * @returns its name, and whether anything was done
   * @throws FileRefused
   */
  store(source: string, version: string): { readonly name: string; readonly isNew: boolean } {
    const place = { what: "store the program in", path: this.folder, otherwise };
    return withFile(place, () => {
      checkSize(source);
      const { digest } = hashFile(source);
      const name = folderOf({ version, digest });
      if (this.check(name).kind === "whole") return { name, isNew: false };
      this.#removeLeftovers();
      passStep("begun");
      this.#place(source, name);
      passStep("placed");
      this.#verifyStored(name, { version, digest });
      passStep("stored");
      return { name, isNew: true };
    });
  }

  /** Reads a version's program through and compares it with what was verified. */
  check(name: string): Wholeness {
    return checkVersion(this.folder, name);
  }

  /** It has answered for every role of this host. @throws VersionRefused, FileRefused */
  prove(name: string): void {
    const { build } = this.#whole(name, "call proven");
    const path = join(versionFolder(this.folder, name), layoutNames.proven);
    withFile({ what: "write", path, otherwise }, () => {
      writeRecord(path, { format: 1, digest: build.digest });
    });
  }

  /** What is tried beside the current one. @throws VersionRefused, FileRefused */
  setCandidate(name: string): void {
    this.#whole(name, "try");
    setLink(this.folder, "candidate", name);
  }

  /** Takes the candidate's link away; the version stays until it is collected. */
  dropCandidate(): void {
    removeLink(this.folder, "candidate");
  }

  /**
   * Has `current` lead to a new version, and `previous` to the one that was current. After a kill
   * between any two steps `current` leads to one of the two, and the same call goes on.
   * @throws VersionRefused when the new one is not whole, or `current` leads to neither; nothing is
   *   done then
   */
  swap({ current, previous }: { readonly current: string; readonly previous: string }): void {
    passStep("begun");
    this.#whole(current, "swap to");
    const found = linked(this.read(), "current");
    if (found !== previous && found !== current) {
      throw new VersionRefused(
        `Cannot swap to ${current}: expected that current leads to ${previous}, received ` +
          `${found ?? "something else"}. Look at ${this.folder}.`,
      );
    }
    setLink(this.folder, "previous", previous);
    passStep("previous");
    setLink(this.folder, "current", current);
    passStep("current");
    this.dropCandidate();
    passStep("swapped");
  }

  /**
   * Has `current` lead to a former version again, if it is still what was verified, and `previous`
   * to what it led to before; null: nowhere.
   * @throws VersionRefused when it is not whole: nothing was done
   */
  swapBack(links: { readonly current: string; readonly previous: string | null }): void {
    const { current, previous } = links;
    this.#whole(current, "go back to");
    passStep("reverting");
    setLink(this.folder, "current", current);
    passStep("back");
    if (previous === null) removeLink(this.folder, "previous");
    else setLink(this.folder, "previous", previous);
    this.dropCandidate();
    passStep("reverted");
  }

  /**
   * Removes versions that nobody needs: never one that a link names, that somebody runs, or that is
   * in `spare`, and never what it does not understand.
   * @throws FileRefused
   */
  collect(wish: { readonly keep: number; readonly spare?: ReadonlySet<string> }): Collection {
    const place = { what: "remove versions from", path: this.folder, otherwise };
    return withFile(place, () => {
      this.#removeLeftovers();
      const state = this.read();
      const names = state.versions.map(({ name }) => name);
      const running = runningVersions(this.folder, names);
      const plan = planCollection(state, { ...wish, running });
      const removed = plan.remove.filter((name) => this.#remove(name));
      const late = plan.remove.filter((name) => !removed.includes(name));
      return {
        remove: removed,
        keep: [...plan.keep, ...late.map((name) => ({ name, reason: "it runs" }))],
      };
    });
  }

  /** Whatever stands in its place is no version, or damaged: who runs it has it until it ends. */
  #place(source: string, name: string): void {
    const versions = join(this.folder, layoutNames.versions);
    const target = versionFolder(this.folder, name);
    const partial = join(versions, `.${name}.${process.pid}.partial`);
    mkdirSync(partial);
    try {
      chmodSync(partial, FOLDER_MODE);
      copyDurably(source, join(partial, layoutNames.program));
      syncFolder(partial);
      passStep("copied");
      if (existsSync(target)) {
        const aside = join(versions, `.${name}.${process.pid}.removed`);
        renameSync(target, aside);
        rmSync(aside, { recursive: true, force: true });
      }
      renameSync(partial, target);
    } catch (error) {
      rmSync(partial, { recursive: true, force: true });
      throw error;
    }
    syncFolder(versions);
  }

  /** Set aside by name first, so that nobody starts it any more, then looked at once more. */
  #remove(name: string): boolean {
    const versions = join(this.folder, layoutNames.versions);
    const aside = join(versions, `.${name}.${process.pid}.removed`);
    renameSync(versionFolder(this.folder, name), aside);
    passStep("set-aside");
    if (isRunning(join(aside, layoutNames.program))) {
      renameSync(aside, versionFolder(this.folder, name));
      return false;
    }
    syncFolder(versions);
    rmSync(aside, { recursive: true, force: true });
    passStep("removed");
    return true;
  }

  /**
   * What a killed process left. A version that was set aside, and that somebody runs or a link
   * names, goes back to its place. We have the lock, so whoever wrote them is gone.
   */
  #removeLeftovers(): void {
    const versions = join(this.folder, layoutNames.versions);
    const state = this.read();
    const named = linkNames.map((link) => linked(state, link));
    for (const found of namesIn(versions)) {
      const [, name = "", kind] = /^\.(.+)\.\d+\.(partial|removed)$/.exec(found) ?? [];
      if (kind === undefined || parseFolder(name) === undefined) continue;
      const path = join(versions, found);
      const isFree = !existsSync(versionFolder(this.folder, name));
      const isWanted = named.includes(name) || isRunning(join(path, layoutNames.program));
      if (kind === "removed" && isFree && isWanted) {
        renameSync(path, versionFolder(this.folder, name));
      } else {
        rmSync(path, { recursive: true, force: true });
      }
    }
    for (const found of namesIn(this.folder)) {
      if (/^\.(current|previous|candidate)\.\d+\.new$/.test(found)) {
        rmSync(join(this.folder, found), { force: true });
      }
    }
  }

  /** What the disk gives back decides, not what was meant to be written. */
  #verifyStored(name: string, wanted: Build): void {
    const found = hashFile(programOf(this.folder, name));
    if (found.digest !== wanted.digest) {
      throw new VersionRefused(
        `Cannot store ${name}: expected to read back SHA-256 ${wanted.digest}, received ` +
          `${found.digest}. Look at the disk: what was written is not what is read.`,
      );
    }
    const { version, digest } = wanted;
    const path = join(versionFolder(this.folder, name), layoutNames.verified);
    writeRecord(path, { format: 1, version, digest });
  }

  #whole(name: string, what: string): Extract<Wholeness, { readonly kind: "whole" }> {
    const found = this.check(name);
    if (found.kind === "whole") return found;
    throw new VersionRefused(
      `Cannot ${what} ${name}: expected ${found.expected}, received ${found.received}. ` +
        "Fetch it again.",
    );
  }

  [Symbol.dispose](): void {
    this.#lock.close();
  }
}

/** `Installation.check` for whoever changes nothing. @throws FileRefused */
export function checkVersion(folder: string, name: string): Wholeness {
  const damaged = (expected: string, received: string) =>
    ({ kind: "damaged", expected, received }) as const;
  const verified = readVerified(folder, name);
  if (verified === undefined) return damaged("a version that was verified", "none of that name");
  const path = programOf(folder, name);
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats?.isFile() !== true) return damaged("its program", "no file");
  const found = withFile({ what: "read", path, otherwise }, () => hashFile(path));
  if (!found.isExecutable) return damaged("a file that its owner may execute", "one that may not");
  if (found.digest !== verified.digest) {
    return damaged(`SHA-256 ${verified.digest}`, found.digest);
  }
  const { version, digest } = verified;
  return { kind: "whole", build: { version, digest } };
}

function makeFolder(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) return;
  makeFolder(join(path, ".."));
  mkdirSync(path);
  chmodSync(path, FOLDER_MODE);
}

function checkSize(path: string): void {
  const { size } = statSync(path);
  if (size <= layoutLimits.programBytes) return;
  throw new VersionRefused(
    `Cannot store ${path}: expected at most ${layoutLimits.programBytes} bytes, ` +
      `received ${size}. Name the program.`,
  );
}

function copyDurably(source: string, target: string): void {
  // Where the file system can, the copy shares its blocks until one is written to.
  copyFileSync(source, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  chmodSync(target, PROGRAM_MODE);
  const file = openSync(target, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
