import { KernelLog } from "../../ffi/kernel-log.ts";
import { SystemCallError } from "../../ffi/system-call-error.ts";
import { parseKernelRecord } from "./kernel-log.ts";
import type { KernelLine } from "./samples.ts";

/** What is read in one turn, so that a kernel that never stops talking does not stop everything. */
export const MOST_LINES_A_TURN = 512;

export interface KernelLines {
  readonly lines: readonly KernelLine[];
  /** Records that the kernel wrote over before they were read, or whose number was passed over. */
  readonly lost: number;
  /** There may be more at once. */
  readonly more: boolean;
}

/** Where records come from: /dev/kmsg, or a test. */
export interface RecordSource {
  read(): ReturnType<KernelLog["read"]>;
}

/** Lines in the kernel's order, each once, from the record after `after` on. */
export class KernelLogReader {
  readonly #source: RecordSource;
  #last: number | null;

  /** @param after the last record that was told before; null: from the oldest that there is */
  constructor(source: RecordSource, after: number | null) {
    this.#source = source;
    this.#last = after;
  }

  /** @throws SystemCallError */
  read(): KernelLines {
    const lines: KernelLine[] = [];
    let lost = 0;
    // Also a flood of records that are told already, or are none, has its end.
    for (let turn = 0; turn < MOST_LINES_A_TURN; turn += 1) {
      const read = this.#source.read();
      if (read.kind === "none") return { lines, lost, more: false };
      // How many they were is told by the next record's number.
      if (read.kind === "lost") continue;
      const line = parseKernelRecord(read.text);
      if (line === undefined) continue;
      if (this.#last !== null && line.sequence <= this.#last) continue;
      if (this.#last !== null) lost += line.sequence - this.#last - 1;
      this.#last = line.sequence;
      lines.push(line);
    }
    return { lines, lost, more: true };
  }
}

/** The host's own log, or why it cannot be read. */
export function openKernelLog(): KernelLog | { readonly refusal: string } {
  try {
    return new KernelLog();
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return { refusal: error.message };
  }
}
