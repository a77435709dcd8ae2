import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsync,
  ftruncateSync,
  mkdirSync,
  openSync,
} from "node:fs";
import { cloneFile } from "../../ffi/file-clone.ts";
import type { Bytes } from "../units/units.ts";
import { passStep } from "./kill-points.ts";
import { readPieces, writeSparsely } from "./pieces.ts";
import type { OpenedFile } from "./tree.ts";

/**
 * Copies a file into a new one, and shows each byte of the copy on its way: what `onPiece` saw is
 * what is there. Where the file system can, the copy shares the source's bytes, and it is the copy
 * that is read; else holes and blocks of zeros are holes in it. Nobody may write to it afterwards.
 * @returns what is kept when it is on the disk
 * @throws the kernel's refusals; what `source.changed` gives; the signal's reason
 */
export async function copyFile(
  source: OpenedFile,
  target: string,
  options: {
    readonly onPiece: (piece: Uint8Array) => void;
    readonly signal: AbortSignal | undefined;
  },
): Promise<{ readonly onDisk: Promise<void> }> {
  const { size, changed, isExecutable } = source;
  const { onPiece, signal } = options;
  const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const descriptor = openSync(target, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  passStep("file-begun");
  try {
    const reading = { size, signal, changed };
    if (size > 0 && cloneFile(descriptor, source.descriptor)) {
      const cloned: Bytes = fstatSync(descriptor).size;
      if (cloned !== size) throw changed(`${cloned} bytes`);
      await readPieces(descriptor, reading, onPiece);
    } else {
      ftruncateSync(descriptor, size);
      await readPieces(source.descriptor, reading, (piece, position) => {
        const writing = writeSparsely(descriptor, piece, position);
        onPiece(piece);
        return writing;
      });
    }
    fchmodSync(descriptor, isExecutable ? 0o555 : 0o444);
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
  passStep("file-copied");
  return { onDisk: synchronise(descriptor).finally(() => closeSync(descriptor)) };
}

/** Files that go to the disk while others are copied. */
export class Synchronising {
  readonly #waiting = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;

  /** Waits when there are many. */
  async add(onDisk: Promise<void>): Promise<void> {
    const settled: Promise<void> = onDisk.then(
      () => void this.#waiting.delete(settled),
      (error: unknown) => {
        this.#waiting.delete(settled);
        this.#failure ??= { error };
      },
    );
    this.#waiting.add(settled);
    if (this.#waiting.size >= mostWaiting) await Promise.race(this.#waiting);
  }

  /** @throws what the first of them was refused with */
  async all(): Promise<void> {
    await Promise.all(this.#waiting);
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}

/** Each has a descriptor open. */
const mostWaiting = 8;

/** fsync(2), on another thread. */
function synchronise(descriptor: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fsync(descriptor, (error) => {
      if (error === null || error === undefined) resolve();
      else reject(error);
    });
  });
}

/** Makes what was made or renamed in a folder last: fsync(2) of the folder. */
export async function synchroniseFolder(path: string): Promise<void> {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await synchronise(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * A folder that a VMM with a uid of its own goes through, and in which nobody but its owner sees
 * names.
 */
export function makeFolder(path: string): void {
  mkdirSync(path);
  // Whatever the umask is.
  chmodSync(path, 0o711);
}
