import { writeSync } from "node:fs";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { KEPT_JOURNAL_BYTES, keptHeader } from "../protocol-kept.ts";
import { bootId } from "./process-table.ts";

/** What /proc shows of the file in memory. */
const JOURNAL_FILE = "hostler-journal";

/** The journal in a file in memory, which has no disk to wait for, and no path to be removed. */
export class KeptJournal implements Disposable {
  readonly generation: number;
  readonly file: OwnedDescriptor;
  #size = 0;

  /** @throws SystemCallError (EMFILE, ENOMEM) */
  constructor(generation: number) {
    this.generation = generation;
    this.file = makeMemoryFile(JOURNAL_FILE);
    this.write(keptHeader(bootId()));
  }

  /** @throws Error (ENOSPC: no memory is left) */
  write(lines: string): void {
    const bytes = new TextEncoder().encode(lines);
    for (let offset = 0; offset < bytes.length; ) {
      offset += writeSync(this.file.number, bytes, offset);
    }
    this.#size += bytes.length;
  }

  /** It is to be written anew, with what is still so. */
  get isFull(): boolean {
    return this.#size > KEPT_JOURNAL_BYTES;
  }

  [Symbol.dispose](): void {
    this.file.close();
  }
}
