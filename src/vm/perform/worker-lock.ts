import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { lockFile } from "../../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { FileRefused, withFile } from "../../journal/file-refused.ts";

/** One worker has an artifacts folder; the kernel takes the lock back from one that was killed. */
export class WorkerLock implements Disposable {
  readonly #file: OwnedDescriptor;

  private constructor(file: OwnedDescriptor) {
    this.#file = file;
  }

  /** Makes the folder where it is not there. @throws FileRefused when another worker has it */
  static take(folder: string): WorkerLock {
    const place = { what: "keep machines in", path: folder, otherwise: "give another folder" };
    return withFile(place, () => {
      mkdirSync(folder, { recursive: true });
      // A VMM under a user of its own goes through, and lists nothing.
      chmodSync(folder, 0o711);
      const file = lockFile(join(folder, "lock"));
      if (file !== "held") return new WorkerLock(file);
      throw new FileRefused(
        `Cannot keep machines in ${folder}: expected a folder that no other worker uses, ` +
          "received one that another has locked. Stop that one, or give another folder.",
      );
    });
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}
