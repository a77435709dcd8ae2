/** A small file system of its own, which can be filled, and made read-only. */
import { spawnSync } from "node:child_process";
import { appendFileSync, mkdirSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";

export class SmallDisk implements Disposable {
  readonly path: string;

  /** Mounts a tmpfs at the path, which is made. @param size as mount has it, such as "16m" */
  constructor(path: string, size: string) {
    this.path = path;
    mkdirSync(path, { recursive: true, mode: 0o700 });
    mount(["-t", "tmpfs", "-o", `size=${size},mode=0700`, "none", path]);
  }

  get free(): number {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  /** Until nothing is free; what others take meanwhile is theirs. */
  fill(): void {
    try {
      while (this.free > 0) appendFileSync(join(this.path, "filler"), new Uint8Array(this.free));
    } catch (error) {
      // As much of it as there was room for was written.
      if ((error as { code?: string }).code !== "ENOSPC") throw error;
    }
  }

  clear(): void {
    rmSync(join(this.path, "filler"), { force: true });
  }

  /** @param mode "ro" or "rw"; for "ro" nobody may have anything open for writing there */
  remount(mode: "ro" | "rw"): void {
    mount(["-o", `remount,${mode}`, this.path]);
  }

  [Symbol.dispose](): void {
    spawnSync("umount", ["-l", this.path]);
  }
}

function mount(words: readonly string[]): void {
  const { status, stderr } = spawnSync("mount", [...words], { encoding: "utf8" });
  if (status !== 0) throw new Error(`mount ${words.join(" ")}: ${stderr}`);
}
