import { chmodSync, constants, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { lockFile, tryLock } from "../../../ffi/flock.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { FileRefused, withFile } from "../../journal/file-refused.ts";
import { readHolder, tellHolder } from "../../journal/lock-holder.ts";
import { outwaitPredecessor } from "../../messaging/predecessor.ts";

interface WorkerPlaces {
  /** Of the artifacts. */
  readonly folder: string;
  readonly runFolder: string;
  readonly controlSocket: string;
}

/**
 * One worker has an artifacts folder and a run folder; the kernel takes the locks back from one
 * that was killed.
 */
export class WorkerLock implements Disposable {
  readonly #file: OwnedDescriptor;
  readonly #runFolder: OwnedDescriptor;

  private constructor(file: OwnedDescriptor, runFolder: OwnedDescriptor) {
    this.#file = file;
    this.#runFolder = runFolder;
  }

  /**
   * Makes the folders where they are not there, and waits for a worker that was killed and is not
   * gone.
   * @throws FileRefused when another worker has one of them: none is taken then
   */
  static async take(
    loop: EventLoop,
    { folder, runFolder, controlSocket }: WorkerPlaces,
  ): Promise<WorkerLock> {
    const path = join(folder, "lock");
    const place = { what: "keep machines in", path: folder, otherwise: "give another folder" };
    withFile(place, () => {
      mkdirSync(folder, { recursive: true });
      // A VMM under a user of its own goes through, and lists nothing.
      chmodSync(folder, 0o711);
    });
    await outwaitPredecessor(loop, controlSocket, readHolder(path));
    const file = withFile(place, () => lockFile(path));
    if (file !== "held") {
      using taken = new DisposableStack();
      taken.use(file);
      const lock = new WorkerLock(file, lockRunFolder(runFolder));
      taken.move();
      tellHolder(file);
      return lock;
    }
    const holder = readHolder(path);
    const which = holder === undefined ? "another" : `another (process ${holder})`;
    throw new FileRefused(
      `Cannot keep machines in ${folder}: expected a folder that no other worker uses, received ` +
        `one that ${which} has locked. Stop that one, or give another folder.`,
    );
  }

  [Symbol.dispose](): void {
    this.#file.close();
    this.#runFolder.close();
  }
}

/**
 * By the folder itself: of what is in it nothing outlasts its machines. Below it each VMM's folder
 * has the number of its user, so that a machine of another worker would be taken for one's own.
 * @throws FileRefused
 */
function lockRunFolder(path: string): OwnedDescriptor {
  const place = { what: "keep sockets of machines in", path, otherwise: "name another by run_dir" };
  const folder = withFile(place, () => {
    mkdirSync(path, { recursive: true, mode: 0o711 });
    return new OwnedDescriptor(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY));
  });
  if (tryLock(folder)) return folder;
  folder.close();
  throw new FileRefused(
    `Cannot keep sockets of machines in ${path}: expected a run_dir that no other worker uses, ` +
      "received one that another worker, with another vm_artifacts_dir, has locked. Stop that " +
      "one, or name another folder by run_dir.",
  );
}
