import { join } from "node:path";
import { lockFile } from "../../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { FileRefused, withFile } from "../../journal/file-refused.ts";
import { readHolder, tellHolder } from "../../journal/lock-holder.ts";

/**
 * One supervisor has an installation; the kernel takes the lock back from one that was killed.
 * @throws FileRefused
 */
export function lockSupervision(folder: string): OwnedDescriptor {
  const path = join(folder, "supervise.lock");
  const place = { what: "supervise", path: folder, otherwise: "give another --folder" };
  const lock = withFile(place, () => lockFile(path));
  if (lock !== "held") {
    tellHolder(lock);
    return lock;
  }
  const holder = readHolder(path);
  throw new FileRefused(
    `Cannot supervise ${folder}: expected that nobody else does, received a lock that ` +
      `${holder === undefined ? "another process" : `process ${holder}`} has. End that one.`,
  );
}
