import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  rmSync,
  statfsSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { faultHooks, killPoint } from "../../ffi/fault-hooks.ts";
import { lockFile } from "../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { FileRefused, refusalCode, withFile } from "../journal/file-refused.ts";
import type { Bytes } from "../units/units.ts";
import { AuditError } from "./audit-error.ts";
import { lockName } from "./segments.ts";
import type { AuditStep } from "./steps.ts";

/**
 * The folder of a log as its one writer has it: what is decided elsewhere is carried out here,
 * each step between two kill points.
 */
export class AuditFolder implements Disposable {
  readonly path: string;
  readonly #lock: OwnedDescriptor;

  private constructor(path: string, lock: OwnedDescriptor) {
    this.path = path;
    this.#lock = lock;
  }

  /**
   * Makes the folder where it is missing, and takes its lock, which lasts as long as this process.
   * @throws AuditError locked; FileRefused when the folder cannot be used
   */
  static open(path: string): AuditFolder {
    const file = { what: "use the folder of the audit log", path, otherwise: "choose another" };
    return withFile(file, () => {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      checkFolder(path);
      const lock = lockFile(join(path, lockName));
      if (lock !== "held") return new AuditFolder(path, lock);
      const message = `Cannot write the audit log ${path}: another process does. Stop it first.`;
      throw new AuditError(message, { problem: "locked" });
    });
  }

  /** Room that is left for whoever writes here; root's reserve of ext4 is not counted. */
  get freeBytes(): Bytes {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  /** Removes a segment; durable with the next `sync`. Nothing when it is gone already. */
  remove(name: string): void {
    rmSync(join(this.path, name), { force: true });
    passStep("segment-removed");
  }

  /** Makes names that were added and removed durable. */
  sync(): void {
    const folder = openSync(this.path, "r");
    try {
      fsyncSync(folder);
    } finally {
      closeSync(folder);
    }
  }

  [Symbol.dispose](): void {
    this.#lock.close();
  }
}

/** @throws FileRefused for a folder in which others could put files in the place of ours */
function checkFolder(path: string): void {
  const status = lstatSync(path);
  const user = process.geteuid?.() ?? 0;
  const mode = status.mode & 0o7777;
  if (!status.isDirectory() || status.uid !== user) {
    const received = status.isDirectory() ? `one of user ${status.uid}` : "something else";
    throw new FileRefused(
      `Cannot use the folder of the audit log ${path}: expected a folder of user ${user}, ` +
        `received ${received}. Choose another, or give it to that user.`,
    );
  }
  if ((mode & 0o022) !== 0) {
    throw new FileRefused(
      `Cannot use the folder of the audit log ${path}: expected one that its user alone can ` +
        `write, received mode 0${mode.toString(8)}. See who has written there; then chmod 0700 it.`,
    );
  }
  if (mode !== 0o700) chmodSync(path, 0o700);
}

/** A segment that is open for writing. `using` closes it. */
export class SegmentWriter implements Disposable {
  readonly name: string;
  readonly #path: string;
  readonly #file: number;
  #size: number;

  /**
   * @param options isNew: made now, and it must not be there
   * @throws Error (ENOSPC, EEXIST …)
   */
  constructor(folder: AuditFolder, name: string, options: { readonly isNew: boolean }) {
    const { O_WRONLY, O_APPEND, O_NOFOLLOW, O_CREAT, O_EXCL } = constants;
    const flags = O_WRONLY | O_APPEND | O_NOFOLLOW | (options.isNew ? O_CREAT | O_EXCL : 0);
    this.name = name;
    this.#path = join(folder.path, name);
    this.#file = openSync(this.#path, flags, 0o600);
    this.#size = fstatSync(this.#file).size;
    if (options.isNew) passStep("segment-made");
  }

  get size(): Bytes {
    return this.#size;
  }

  /**
   * Appends whole lines: durable when it returns, not there when it throws `full` or `refused`.
   * @throws AuditError full, refused, failed, broken
   */
  append(text: string): void {
    this.#checkForeign();
    const bytes = new TextEncoder().encode(text);
    try {
      this.#write(bytes);
    } catch (error) {
      this.#takeBack(error);
    }
    passStep("written");
    try {
      fsyncSync(this.#file);
    } catch (error) {
      // The kernel has told once, and holds the pages for clean now: fsync(2), Linux since 4.13.
      throw new AuditError(`Cannot sync the audit log ${this.#path}`, {
        problem: "failed",
        cause: error,
      });
    }
    this.#size += bytes.length;
    passStep("synced");
  }

  /** Takes off what a power cut left of a line. @throws Error */
  truncate(size: Bytes): void {
    passStep("before-cut");
    ftruncateSync(this.#file, size);
    this.#size = size;
    passStep("cut");
  }

  #write(bytes: Uint8Array): void {
    let offset = 0;
    if (faultHooks) {
      offset = writeSync(this.#file, bytes, 0, bytes.length >> 1);
      passStep("half-written");
    }
    while (offset < bytes.length) offset += writeSync(this.#file, bytes, offset);
  }

  /** The lines before stay; of these ones nothing does. */
  #takeBack(cause: unknown): never {
    try {
      ftruncateSync(this.#file, this.#size);
    } catch (error) {
      const why = refusalCode(cause) ?? String(cause);
      const message = `Cannot take a half-written record back from ${this.#path}, after ${why}`;
      throw new AuditError(message, { problem: "failed", cause: error });
    }
    throw writeError(this.#path, cause);
  }

  /** One who writes beside us has no lock: what he wrote is none of ours, and ends the chain. */
  #checkForeign(): void {
    const { size, nlink } = fstatSync(this.#file);
    if (size === this.#size && nlink > 0) return;
    const received = nlink === 0 ? "a file that was removed" : `${size} bytes`;
    const message =
      `Cannot go on with the audit log ${this.#path}: expected ${this.#size} bytes that we ` +
      `wrote, received ${received}. Run hostler audit verify, and see who writes there.`;
    throw new AuditError(message, { problem: "broken" });
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}

/** In the build for fault tests this ends the process when a test named the step. */
function passStep(step: AuditStep): void {
  killPoint(`audit-${step}`);
}

/** What the kernel's refusal to take bytes means for the log. */
export function writeError(path: string, cause: unknown): AuditError {
  const code = refusalCode(cause);
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new AuditError(fullMessage(path, code), { problem: "full", cause });
  }
  return new AuditError(`Cannot write the audit log ${path}`, { problem: "refused", cause });
}

export function fullMessage(path: string, received: string): string {
  return (
    `Cannot write the audit log ${path}: expected room on its file system, received ${received}. ` +
    "Nothing is changed before there is: make room there (df and df -i say how much there is)."
  );
}
