import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from "node:fs";
import type { Bytes } from "../../units/units.ts";

/** Of one machine's console that are kept, in two files of half of it. */
export const SCROLLBACK_BYTES: Bytes = 1024 * 1024;
const FILE_BYTES: Bytes = SCROLLBACK_BYTES / 2;

const olderOf = (path: string) => `${path}.1`;

/**
 * What a console said, in a file that outlives the worker: when it is full it becomes the older
 * one, in the place of the one before. So at least half of the limit is there, as soon as so much
 * was said. A disk that takes no more costs what was said meanwhile, and nothing else.
 */
export class Scrollback implements Disposable {
  readonly #path: string;
  readonly #onRefused: (reason: string) => void;
  #file: number | undefined;
  #size = 0;
  #wasTold = false;

  /** @param onRefused told once, until it works again */
  constructor(path: string, onRefused: (reason: string) => void) {
    this.#path = path;
    this.#onRefused = onRefused;
  }

  append(bytes: Uint8Array): void {
    try {
      this.#write(bytes);
      this.#wasTold = false;
    } catch (error) {
      this.#close();
      if (this.#wasTold) return;
      this.#wasTold = true;
      this.#onRefused((error as { code?: string }).code ?? String(error));
    }
  }

  #write(bytes: Uint8Array): void {
    for (let begin = 0; begin < bytes.length; ) {
      const file = this.#open();
      const room = FILE_BYTES - this.#size;
      if (room <= 0) {
        this.#close();
        renameSync(this.#path, olderOf(this.#path));
        continue;
      }
      const length = writeSync(file, bytes, begin, Math.min(room, bytes.length - begin));
      this.#size += length;
      begin += length;
    }
  }

  #open(): number {
    if (this.#file !== undefined) return this.#file;
    const { O_APPEND, O_CREAT, O_NOFOLLOW, O_WRONLY } = constants;
    const file = openSync(this.#path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
    this.#file = file;
    this.#size = fstatSync(file).size;
    return file;
  }

  #close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  /** All that is kept, the oldest first; what cannot be read is left out. */
  read(): Uint8Array {
    return readScrollback(this.#path);
  }

  [Symbol.dispose](): void {
    this.#close();
  }
}

/** What a console said, whether or not anybody keeps it now. */
export function readScrollback(path: string): Uint8Array {
  return Buffer.concat([olderOf(path), path].map(readOrNothing));
}

function readOrNothing(path: string): Uint8Array {
  try {
    const { O_NOFOLLOW, O_RDONLY } = constants;
    return readFileSync(path, { flag: O_RDONLY | O_NOFOLLOW });
  } catch {
    // Nothing was said so far, or it has been taken away.
    return new Uint8Array(0);
  }
}
