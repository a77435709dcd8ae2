import {
  closeSync,
  constants,
  fchmodSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { withFile } from "../journal/file-refused.ts";

/** A file that gets its name when it is whole; otherwise nothing of it is left. */
export class NewFile implements Disposable {
  readonly #path: string;
  #descriptor: number | undefined;

  /** @param path that it has meanwhile: what is there of another one is removed */
  constructor(path: string) {
    this.#path = path;
    this.#descriptor = this.#try(() => {
      rmSync(path, { force: true });
      const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
      return openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    });
  }

  /** @throws FileRefused */
  append(bytes: Uint8Array): void {
    const descriptor = this.#descriptor;
    if (descriptor === undefined) throw new Error("Bug: the file has its name already");
    this.#try(() => {
      for (let done = 0; done < bytes.length; ) done += writeSync(descriptor, bytes, done);
    });
  }

  /** Gives it its name, 0644: durable when it returns. @throws FileRefused */
  place(path: string): void {
    const descriptor = this.#descriptor;
    if (descriptor === undefined) throw new Error("Bug: the file has its name already");
    this.#try(() => {
      fchmodSync(descriptor, 0o644);
      fsyncSync(descriptor);
      renameSync(this.#path, path);
      closeSync(descriptor);
      this.#descriptor = undefined;
      const folder = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
      try {
        fsyncSync(folder);
      } finally {
        closeSync(folder);
      }
    });
  }

  #try<T>(act: () => T): T {
    return withFile({ what: "write", path: this.#path, otherwise: "name another folder" }, act);
  }

  [Symbol.dispose](): void {
    if (this.#descriptor === undefined) return;
    closeSync(this.#descriptor);
    this.#descriptor = undefined;
    rmSync(this.#path, { force: true });
  }
}
