import { existsSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { FileRefused } from "../../journal/file-refused.ts";
import { judgePersistence, type Persistence } from "../file-system.ts";

/** Whether what is written into this folder lasts; the folder need not be there. */
export function persistenceOf(folder: string): Persistence {
  let present = folder;
  while (!existsSync(present)) present = dirname(present);
  const path = join(realpathSync(present), relative(present, folder));
  const judged = judgePersistence(readFileSync("/proc/self/mountinfo", "utf8"), path);
  if (judged !== undefined) return judged;
  throw new FileRefused(
    `Cannot say what ${folder} lies on: expected its mount in /proc/self/mountinfo, received ` +
      "none. Look whether /proc is that of this mount namespace.",
  );
}

/**
 * Versions are kept only where they are there after the next start.
 * @param acceptVolatile somebody said that this folder lasts, or need not
 * @throws FileRefused
 */
export function requireLasting(folder: string, acceptVolatile: boolean): void {
  const { kind, mount } = persistenceOf(folder);
  if (kind === "lasting" || (kind === "volatile" && acceptVolatile)) return;
  const { type, mountPoint } = mount;
  if (kind === "immutable") {
    throw new FileRefused(
      `Cannot keep versions in ${folder}: expected a file system that can be written, received ` +
        `${type} at ${mountPoint}, which cannot. Update the image: this host is replaced as a ` +
        "whole, and not upgraded.",
    );
  }
  throw new FileRefused(
    `Cannot keep versions in ${folder}: expected a volume that lasts, received ${type} at ` +
      `${mountPoint}, which is gone with the next start. Update the image, or mount a volume ` +
      `there; where it does last, say so by --volatile.`,
  );
}
