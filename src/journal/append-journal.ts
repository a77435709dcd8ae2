import {
  closeSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";

/**
 * Replaces a file as a whole: write, fsync, rename, fsync of the folder. After a power cut either
 * the old or the new content is there.
 * @throws Error (ENOSPC, EACCES …); the old file is then untouched.
 */
export function writeDurably(path: string, bytes: Uint8Array | string, mode = 0o600): void {
  const temporary = `${path}.${process.pid}.new`;
  // Of one that was killed while it wrote, and had our number: in a container that is always so.
  rmSync(temporary, { force: true });
  const file = openSync(temporary, "wx", mode);
  try {
    writeAll(file, typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes);
    fsyncSync(file);
    renameSync(temporary, path);
  } catch (error) {
    unlinkSync(temporary);
    throw error;
  } finally {
    closeSync(file);
  }
  const folder = openSync(dirname(path), "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(file, bytes, offset);
}

/** What a journal file says. */
export interface JournalLines {
  readonly entries: readonly unknown[];
  /** How many lines are no JSON. */
  readonly broken: number;
}

/**
 * Lines of JSON that survive the death of this process, not a power cut: appended without fsync,
 * because what they speak of does not survive a power cut either. A last line that was cut short
 * is left out when it is read.
 */
export class AppendJournal {
  readonly #path: string;
  readonly #limit: number;
  #file: number;
  #size: number;

  /** `limit` is the size in bytes above which the owner is asked to `compact`. */
  constructor(path: string, limit: number) {
    this.#path = path;
    this.#limit = limit;
    this.#file = openSync(path, "a", 0o600);
    this.#size = statSync(path).size;
  }

  /** The whole lines of a journal file; undefined when there is no file. */
  static read(path: string): JournalLines | undefined {
    let text: string;
    try {
      text = readFileSync(path, "utf8");
    } catch (error) {
      if ((error as { code?: string }).code === "ENOENT") return undefined;
      throw error;
    }
    const entries: unknown[] = [];
    const lines = text.split("\n").slice(0, -1);
    // One line that was cut short is usual; a file of nothing else is none of ours.
    let broken = lines.length === 0 && text !== "" ? 1 : 0;
    for (const line of lines) {
      try {
        entries.push(JSON.parse(line));
      } catch {
        // A line that two writers or a full disk broke says nothing; the others still do.
        broken += 1;
      }
    }
    return { entries, broken };
  }

  /** False when somebody removed the file, put another in its place, or wrote into it. */
  get isIntact(): boolean {
    const there = statSync(this.#path, { bigint: true, throwIfNoEntry: false });
    const own = fstatSync(this.#file, { bigint: true });
    const isSame = there?.ino === own.ino && there.dev === own.dev;
    return isSame && Number(own.size) === this.#size;
  }

  get wantsCompaction(): boolean {
    return this.#size > this.#limit;
  }

  /** @throws Error (ENOSPC …) */
  append(line: string): void {
    this.#size += writeSync(this.#file, `${line}\n`);
  }

  /** Goes on with these entries alone. */
  compact(entries: readonly unknown[]): void {
    const lines = entries.map((entry) => `${JSON.stringify(entry)}\n`).join("");
    writeDurably(this.#path, lines);
    closeSync(this.#file);
    this.#file = openSync(this.#path, "a", 0o600);
    this.#size = statSync(this.#path).size;
  }

  close(): void {
    closeSync(this.#file);
  }
}
