import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { writeDurably } from "../../journal/append-journal.ts";
import { refusalCode } from "../../journal/file-refused.ts";

/** Bytes that are kept for it: a longer record waits until there is room. */
export const reserveBytes = 256 * 1024;

const reservedSchema = v.strictObject({
  /** The file, below the reserve's folder. */
  path: v.string(),
  bytes: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(reserveBytes)),
  sha256: v.string(),
});

const noRoom = new Set(["ENOSPC", "EDQUOT"]);
const free = `${" ".repeat(7)}\n`;

/**
 * Room for what has to be noted where none is left: machines fill the disk that their records are
 * on, and without a note none of them is ended or removed. A record is then written twice, and
 * takes no block that it does not have: first into a file that was made while there was room, and
 * then over the record itself. Whichever of the two a power cut breaks, the other one is whole.
 */
export class RecordReserve {
  readonly #folder: string;
  readonly #path: string;

  /** Goes on with what a worker that was killed had begun. @throws Error (EIO …) */
  constructor(folder: string) {
    this.#folder = folder;
    this.#path = join(folder, "reserve");
    this.#finish();
    this.#make();
  }

  /**
   * As `writeDurably`, also where there is no room for what is as long as before.
   * @param path below the reserve's folder
   * @throws Error (ENOSPC, EROFS …): the former content stands
   */
  write(path: string, text: string): void {
    try {
      writeDurably(join(this.#folder, path), text);
    } catch (error) {
      if (!noRoom.has(refusalCode(error) ?? "")) throw error;
      if (!this.#overwrite(path, new TextEncoder().encode(text))) throw error;
      return;
    }
    if (!existsSync(this.#path)) this.#make();
  }

  /** @returns false where it is longer than what there is room for already */
  #overwrite(path: string, bytes: Uint8Array): boolean {
    const full = join(this.#folder, path);
    if (!existsSync(full) || !existsSync(this.#path)) return false;
    if (bytes.length > allocated(full)) return false;
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const header = `${JSON.stringify({ path, bytes: bytes.length, sha256 })}\n`;
    const copy = Buffer.concat([Buffer.from(header), bytes]);
    if (copy.length > reserveBytes) return false;
    writeOver(this.#path, copy);
    writeOver(full, bytes, { cut: true });
    writeOver(this.#path, Buffer.from(free));
    return true;
  }

  #finish(): void {
    const reserved = this.#read();
    if (reserved === undefined) return;
    const full = join(this.#folder, reserved.path);
    // A machine that was removed since has nothing to be noted.
    if (existsSync(full)) writeOver(full, reserved.bytes, { cut: true });
    writeOver(this.#path, Buffer.from(free));
  }

  /** @returns undefined where nothing was begun, or not all of it came into the reserve */
  #read(): { readonly path: string; readonly bytes: Uint8Array } | undefined {
    if (!existsSync(this.#path)) return undefined;
    const all = readFileSync(this.#path);
    const end = all.indexOf(10);
    try {
      const parsed = v.safeParse(reservedSchema, JSON.parse(all.toString("utf8", 0, end)));
      if (!parsed.success) return undefined;
      const { path, bytes: length, sha256 } = parsed.output;
      const bytes = all.subarray(end + 1, end + 1 + length);
      const isWhole = createHash("sha256").update(bytes).digest("hex") === sha256;
      return isWhole ? { path, bytes } : undefined;
    } catch {
      return undefined;
    }
  }

  /** Where there is no room for it now, it is made after a later record that finds some. */
  #make(): void {
    if (existsSync(this.#path) && allocated(this.#path) >= reserveBytes) return;
    const bytes = new Uint8Array(reserveBytes);
    bytes.set(new TextEncoder().encode(free));
    try {
      writeDurably(this.#path, bytes);
    } catch (error) {
      if (!noRoom.has(refusalCode(error) ?? "")) throw error;
      rmSync(this.#path, { force: true });
    }
  }
}

/** Bytes of the blocks that a file has: stat(2) counts them in 512. */
function allocated(path: string): number {
  const file = openSync(path, "r");
  try {
    return fstatSync(file).blocks * 512;
  } finally {
    closeSync(file);
  }
}

function writeOver(path: string, bytes: Uint8Array, { cut = false } = {}): void {
  const file = openSync(path, "r+");
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at, bytes.length - at, at);
    if (cut) ftruncateSync(file, bytes.length);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
