import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { lockFile } from "../../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { FileRefused, withFile } from "../../journal/file-refused.ts";
import { readHolder, tellHolder } from "../../journal/lock-holder.ts";
import { outwaitPredecessor } from "../../messaging/predecessor.ts";

/** One worker has an artifacts folder; the kernel takes the lock back from one that was killed. */
export class WorkerLock implements Disposable {
  readonly #file: OwnedDescriptor;

  private constructor(file: OwnedDescriptor) {
    this.#file = file;
  }

  /**
   * Makes the folder where it is not there, and waits for a worker that was killed and is not gone.
   * @throws FileRefused when another worker has it
   */
  static async take(
    loop: EventLoop,
    { folder, controlSocket }: { readonly folder: string; readonly controlSocket: string },
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
      tellHolder(file);
      return new WorkerLock(file);
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
  }
}
