import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import * as v from "valibot";
import { writeDurably } from "../journal/append-journal.ts";
import { FileRefused } from "../journal/file-refused.ts";
import type { Bytes } from "../units/units.ts";
import { isNoRoom } from "./database.ts";
import { passStep } from "./kill-points.ts";
import { isBucket, isKey, type Revision, refused, StoreError, storeLimits } from "./store.ts";

/** Something that may be done once: a token used, an address given, a commit made. */
export interface Spending {
  /** What it is: "token", "address", "commit". Such a word as a bucket's name. */
  readonly kind: string;
  /** Which one: such a text as a key. Never a secret, but its hash. */
  readonly id: string;
  /** `EmbeddedStore.revision` when it was issued, kept with it. */
  readonly issued: Revision;
}

export const ledgerLimits = {
  /** Things that are remembered. A kind that is issued for ever needs `settle`. */
  entries: 500_000,
  /** Spendings that wait for the disk. */
  waiting: 4_096,
  /** Bytes that nothing needs, above as many that are needed: with more it is written anew. */
  waste: 1024 ** 2,
  /** Bytes of a file that is read at all. */
  fileBytes: 256 * 1024 ** 2,
} as const;

const revision = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const kindSchema = v.pipe(v.string(), v.check(isBucket));
const lineSchema = v.union([
  v.strictTuple([v.literal("ledger"), v.literal(1)]),
  v.strictTuple([v.literal("spend"), kindSchema, v.pipe(v.string(), v.check(isKey)), revision]),
  v.strictTuple([v.literal("settle"), kindSchema, revision]),
]);
type Line = v.InferOutput<typeof lineSchema>;

interface Waiting {
  readonly line: Line;
  readonly landed: () => void;
  readonly failed: (error: StoreError) => void;
}

/**
 * What was spent once, in a file outside of the database: a restored older backup does not know
 * it, and this does. Each line carries its hash, and is on the disk before `spend` returns.
 *
 * Whoever issues something keeps `EmbeddedStore.revision` with it. Below the fence everything
 * counts as spent: a restore raises it on a machine that cannot know what was spent meanwhile.
 */
export class Ledger implements Disposable {
  readonly #path: string;
  readonly #fence: Revision;
  readonly #spent = new Map<string, Map<string, Revision>>();
  readonly #settled = new Map<string, Revision>();
  #entries = 0;
  #file: number;
  #size = 0;
  #needed = 0;
  #waiting: Waiting[] = [];
  #isClosed = false;
  #isBroken = false;

  /**
   * @param fence of the incarnation
   * @throws FileRefused for a file that is missing, or says what nobody wrote
   */
  constructor(path: string, fence: Revision) {
    this.#path = path;
    this.#fence = fence;
    const { lines, bytes } = readLedger(path);
    for (const line of lines) this.#take(line);
    this.#file = openSync(path, "r+");
    // The end of a write that was never acknowledged.
    ftruncateSync(this.#file, bytes);
    this.#size = bytes;
  }

  /** Makes an empty ledger, durably. */
  static create(path: string): void {
    writeDurably(path, encodeLine(["ledger", 1]));
  }

  get entries(): number {
    return this.#entries;
  }

  /** Whatever of the kind was issued before this revision counts as spent. */
  fence(kind: string): Revision {
    return Math.max(this.#fence, this.#settled.get(kind) ?? 0);
  }

  /** @throws StoreError refused */
  isSpent(spending: Spending): boolean {
    const { kind, id, issued } = checkSpending(spending);
    return issued < this.fence(kind) || this.#spent.get(kind)?.has(id) === true;
  }

  /**
   * Spends it, durably when this returns; do what it is good for afterwards.
   * @returns false when it was spent before, here or in what a restore took back
   * @throws StoreError refused; full, unavailable: it is not spent; ambiguous: it counts as spent
   */
  async spend(spending: Spending): Promise<boolean> {
    if (this.isSpent(spending)) return false;
    if (this.#entries >= ledgerLimits.entries) {
      const message =
        `The ledger ${this.#path} has its ${ledgerLimits.entries} entries. Settle a kind whose ` +
        "old ones are no longer good for anything.";
      throw new StoreError(message, { kind: "full" });
    }
    const { kind, id, issued } = spending;
    await this.#append(["spend", kind, id, issued]);
    return true;
  }

  /**
   * What of the kind was issued before this revision is no longer good for anything (its time is
   * over, say): it counts as spent, and is no longer remembered one by one.
   * @throws StoreError as `spend`
   */
  async settle(kind: string, before: Revision): Promise<void> {
    if (!isBucket(kind)) throw refused("a word as the kind", JSON.stringify(kind.slice(0, 64)));
    if (before <= this.fence(kind)) return;
    await this.#append(["settle", kind, before]);
  }

  /**
   * Takes over what a backup knows, durably when it returns; before anything else is spent here.
   * @throws Error (ENOSPC …): it is not taken over, or not all of it
   */
  add(spendings: readonly Spending[]): void {
    const news = spendings.filter((spending) => !this.isSpent(spending));
    const lines = news.map(({ kind, id, issued }): Line => ["spend", kind, id, issued]);
    if (lines.length === 0) return;
    const bytes = Buffer.from(lines.map(encodeLine).join(""));
    writeAt(this.#file, bytes, this.#size);
    fsyncSync(this.#file);
    this.#size += bytes.length;
    for (const line of lines) this.#take(line);
  }

  /** All that a backup takes along. */
  *all(): Generator<Spending, void> {
    for (const [kind, ids] of this.#spent) {
      for (const [id, issued] of ids) yield { kind, id, issued };
    }
  }

  [Symbol.dispose](): void {
    if (this.#isClosed) return;
    this.#flush();
    this.#isClosed = true;
    closeSync(this.#file);
  }

  async #append(line: Line): Promise<void> {
    const isOver = this.#waiting.length >= ledgerLimits.waiting;
    if (this.#isClosed || this.#isBroken || isOver) {
      throw new StoreError("The ledger takes no more at present.", { kind: "unavailable" });
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // At once: a second one that comes before the disk has it is too late already.
    this.#take(line);
    if (this.#waiting.length === 0) setImmediate(() => this.#flush());
    this.#waiting.push({ line, landed: resolve, failed: reject });
    return promise;
  }

  #flush(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    if (waiting.length === 0) return;
    const bytes = Buffer.from(waiting.map(({ line }) => encodeLine(line)).join(""));
    try {
      writeAt(this.#file, bytes, this.#size);
    } catch (error) {
      this.#takeBack(waiting, error);
      return;
    }
    passStep("spend:written");
    try {
      fsyncSync(this.#file);
    } catch (error) {
      const message = `Cannot write the ledger ${this.#path} through; it counts as written.`;
      const problem = new StoreError(message, { kind: "ambiguous" }, { cause: error });
      // What the kernel could not write, it may have dropped: nothing behind it would be read.
      this.#isBroken = true;
      for (const { failed } of waiting) failed(problem);
      return;
    }
    passStep("spend:synced");
    this.#size += bytes.length;
    for (const { landed } of waiting) landed();
    this.#compact();
  }

  /** Nothing of it stays: neither in the file nor here. */
  #takeBack(waiting: readonly Waiting[], error: unknown): void {
    ftruncateSync(this.#file, this.#size);
    const kind = isNoRoom(error) ? "full" : "unavailable";
    const message = `Cannot write the ledger ${this.#path}.`;
    for (const { line, failed } of waiting) {
      if (line[0] === "spend") {
        this.#spent.get(line[1])?.delete(line[2]);
        this.#entries -= 1;
        this.#needed -= encodeLine(line).length;
      }
      failed(new StoreError(message, { kind }, { cause: error }));
    }
  }

  #take(line: Line): void {
    if (line[0] === "spend") {
      const [, kind, id, issued] = line;
      if (issued < this.fence(kind)) return;
      const ids = this.#spent.get(kind) ?? new Map<string, Revision>();
      this.#spent.set(kind, ids);
      if (!ids.has(id)) this.#entries += 1;
      ids.set(id, issued);
      this.#needed += encodeLine(line).length;
    } else if (line[0] === "settle") {
      this.#settle(line[1], line[2]);
    }
  }

  #settle(kind: string, before: Revision): void {
    this.#settled.set(kind, Math.max(before, this.#settled.get(kind) ?? 0));
    const ids = this.#spent.get(kind);
    for (const [id, issued] of ids ?? []) {
      if (issued >= this.fence(kind)) continue;
      ids?.delete(id);
      this.#entries -= 1;
      this.#needed -= encodeLine(["spend", kind, id, issued]).length;
    }
  }

  /** Writes the file anew when most of it is needed no more. */
  #compact(): void {
    if (this.#size - this.#needed < this.#needed + ledgerLimits.waste) return;
    const lines: Line[] = [["ledger", 1]];
    for (const [kind, before] of this.#settled) lines.push(["settle", kind, before]);
    for (const { kind, id, issued } of this.all()) lines.push(["spend", kind, id, issued]);
    try {
      writeDurably(this.#path, lines.map(encodeLine).join(""));
    } catch (error) {
      // The old file is untouched, and says the same in more words.
      if (isNoRoom(error)) return;
      throw error;
    }
    passStep("compact:written");
    closeSync(this.#file);
    this.#file = openSync(this.#path, "r+");
    this.#size = fstatSync(this.#file).size;
  }
}

/** @throws FileRefused */
function readLedger(path: string): { lines: Line[]; bytes: Bytes } {
  if (!existsSync(path)) throw ledgerRefused(path, "received none");
  const content = readFileSync(path);
  if (content.length > ledgerLimits.fileBytes) {
    throw ledgerRefused(path, `received ${content.length} bytes`);
  }
  const lines: Line[] = [];
  let start = 0;
  for (let number = 1; start < content.length; number += 1) {
    const end = content.indexOf(0x0a, start);
    const line = end < 0 ? undefined : decodeLine(content.subarray(start, end).toString("utf8"));
    if (line === undefined) {
      // A power cut leaves an end that is cut short, or blocks that were never written (NUL):
      // nobody was told that this is spent. Anything else was there, and is not any more.
      if (number > 1 && (end < 0 || content.includes(0, start))) break;
      throw ledgerRefused(path, `received another line ${number}`);
    }
    lines.push(line);
    start = end + 1;
  }
  if (lines[0]?.[0] !== "ledger") throw ledgerRefused(path, "received another first line");
  return { lines, bytes: start };
}

function ledgerRefused(path: string, received: string): FileRefused {
  return new FileRefused(
    `Cannot read the ledger ${path}: expected what the store wrote there, ${received}. It says ` +
      "which tokens and addresses were used: restore a backup by " +
      "`hostler store restore FILE --without-ledger`, after which all that was issued before " +
      "counts as used.",
  );
}

function checkSpending(spending: Spending): Spending {
  const { kind, id, issued } = spending;
  if (!isBucket(kind)) throw refused("a word as the kind", JSON.stringify(kind.slice(0, 64)));
  if (!isKey(id)) {
    throw refused(
      `an id of at most ${storeLimits.keyBytes} bytes`,
      JSON.stringify(id.slice(0, 64)),
    );
  }
  if (!(Number.isSafeInteger(issued) && issued >= 0)) throw refused("a revision", `${issued}`);
  return spending;
}

function encodeLine(line: Line): string {
  const text = JSON.stringify(line);
  return `${hashOf(text)} ${text}\n`;
}

function decodeLine(text: string): Line | undefined {
  const json = text.slice(17);
  if (text.slice(0, 17) !== `${hashOf(json)} `) return undefined;
  try {
    const result = v.safeParse(lineSchema, JSON.parse(json));
    return result.success ? result.output : undefined;
  } catch {
    return undefined;
  }
}

/** 64 bits of SHA-256: enough for a bit that fell over. */
function hashOf(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex").slice(0, 16);
}

function writeAt(file: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(file, bytes, done, bytes.length - done, position + done);
  }
}
