import { linkSync, lstatSync, renameSync, unlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import * as v from "valibot";
import { FileRefused, refusalCode } from "../journal/file-refused.ts";
import type { Milliseconds } from "../units/units.ts";
import { Database, type StoredEntry } from "./database.ts";
import { nextTurn, syncFile, syncFolder, withDatabase } from "./files.ts";
import { passStep } from "./kill-points.ts";
import type { Spending } from "./ledger.ts";
import type { Revision } from "./store.ts";
import { removeDatabase } from "./store-folder.ts";

const copyLimits = {
  /** Entries that are copied in one turn. */
  entriesAtOnce: 256,
} as const;

const revision = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const manifestSchema = v.strictObject({
  format: v.literal(1),
  /** The wall clock when it was made. */
  made: v.number(),
  incarnation: v.string(),
  fence: revision,
  /** The last revision that had been given. */
  last: revision,
  entries: revision,
  /** SHA-256 of all entries, floors and spent things. */
  sha256: v.pipe(v.string(), v.regex(/^[\da-f]{64}$/)),
});

/** What a backup says of itself, in its table `meta`. */
export type Manifest = v.InferOutput<typeof manifestSchema>;

/** What a store knows of itself outside of its database. */
export interface StoreFacts {
  readonly incarnation: string;
  readonly fence: Revision;
  readonly made: Milliseconds;
  readonly last: Revision;
  readonly spent: readonly Spending[];
}

export interface BackupReport extends Manifest {
  readonly file: string;
}

/**
 * Copies a database, of which a transaction shows one moment, into a backup. The file appears
 * when it is whole, and on the disk.
 * @param checkUsable throws when the store is gone
 * @throws FileRefused; whatever `checkUsable` throws
 */
export async function copyInTurns(
  source: Database,
  file: string,
  facts: StoreFacts,
  checkUsable: () => void,
): Promise<BackupReport> {
  const place = { what: "write the backup", path: file, otherwise: "give another file" };
  const partial = partialOf(file);
  withDatabase(place, () => {
    // existsSync would take a name that is too long for one that is free.
    if (lstatSync(file, { throwIfNoEntry: false }) !== undefined) throw somethingIsThere(file);
    removeDatabase(partial);
  });
  try {
    const copy = withDatabase(place, () => new DatabaseCopy(source, partial, facts.spent));
    try {
      while (withDatabase(place, () => copy.someMore(copyLimits.entriesAtOnce))) {
        await nextTurn();
        checkUsable();
      }
      const manifest = withDatabase(place, () => copy.finishBackup(facts));
      passStep("backup:copied");
      withDatabase(place, () => publish(partial, file));
      return { file, ...manifest };
    } finally {
      copy[Symbol.dispose]();
    }
  } finally {
    removeLeftover(partial);
  }
}

/** Beside the file, under a name of its own: the longest name has no room for more letters. */
function partialOf(file: string): string {
  const hash = new Bun.CryptoHasher("sha256").update(file).digest("hex").slice(0, 16);
  return join(dirname(file), `.backup-${hash}.${process.pid}.partial`);
}

/** What refused the backup is to be told, and not that its beginning cannot be removed either. */
function removeLeftover(partial: string): void {
  try {
    removeDatabase(partial);
  } catch (error) {
    if (refusalCode(error) === undefined) throw error;
  }
}

/** Gives a whole file its name, unless something has it. */
function publish(partial: string, file: string): void {
  passStep("backup:synced");
  try {
    linkSync(partial, file);
    unlinkSync(partial);
  } catch (error) {
    const code = refusalCode(error);
    if (code === "EEXIST") throw somethingIsThere(file);
    // A file system without links.
    if (code !== "EPERM" && code !== "ENOTSUP" && code !== "EOPNOTSUPP") throw error;
    renameSync(partial, file);
  }
  syncFolder(dirname(file));
  passStep("backup:linked");
}

function somethingIsThere(file: string): FileRefused {
  return new FileRefused(
    `Cannot write the backup ${file}: expected nothing there, received a file. A backup ` +
      "overwrites nothing: give another name.",
  );
}

/** A database that is written from another one, piece by piece. */
export class DatabaseCopy implements Disposable {
  readonly #source: Database;
  readonly #target: Database;
  readonly #path: string;
  readonly #entries: Generator<StoredEntry, void>;
  readonly #hash = new Bun.CryptoHasher("sha256");
  readonly #spent: readonly Spending[];
  #count = 0;

  /** Entries that were copied. */
  get count(): number {
    return this.#count;
  }

  constructor(source: Database, path: string, spent: readonly Spending[]) {
    this.#source = source;
    this.#path = path;
    this.#spent = spent;
    this.#target = Database.create(path, source.format, "scratch");
    this.#entries = source.entries();
  }

  /** @returns whether there is more to copy */
  someMore(limit: number): boolean {
    this.#target.begin();
    let isMore = true;
    for (let count = 0; count < limit && isMore; count += 1) {
      const { value, done } = this.#entries.next();
      if (done === true) isMore = false;
      else {
        this.#target.write(value as StoredEntry);
        this.#hash.update(lineOf(value as StoredEntry));
        this.#count += 1;
      }
    }
    this.#target.commit();
    return isMore;
  }

  /** `finish`, with the manifest of a backup. */
  finishBackup({ incarnation, fence, made, last }: StoreFacts): Manifest {
    const target = this.#target;
    for (const { kind, id, issued } of this.#spent) target.addSpent(kind, id, issued);
    this.#copyFloors();
    this.#hash.update(restOf(target));
    const sha256 = this.#hash.digest("hex");
    const entries = this.#count;
    const manifest: Manifest = { format: 1, made, incarnation, fence, last, entries, sha256 };
    target.setMeta("backup", JSON.stringify(manifest));
    this.finish(incarnation);
    return manifest;
  }

  /** Copies what is beside the entries, and writes the whole through. */
  finish(incarnation: string): void {
    this.#copyFloors();
    this.#target.setMeta("clock", this.#source.meta("clock") ?? "0");
    this.#target.setMeta("incarnation", incarnation);
    this.#target[Symbol.dispose]();
    syncFile(this.#path);
  }

  #copyFloors(): void {
    for (const [bucket, floor] of this.#source.floors()) this.#target.setFloor(bucket, floor);
  }

  [Symbol.dispose](): void {
    this.#target[Symbol.dispose]();
  }
}

/**
 * @returns the manifest of a database that is the backup which it says it is; undefined for a
 *   database that is no backup
 * @throws FileRefused for one that is another than was written
 */
export function checkManifest(database: Database): Manifest | undefined {
  const text = database.meta("backup");
  if (text === undefined) return undefined;
  const parsed = v.safeParse(manifestSchema, parseJson(text));
  if (!parsed.success) throw notAsWritten(database.path, "received another manifest");
  const manifest = parsed.output;
  const hash = new Bun.CryptoHasher("sha256");
  let count = 0;
  for (const entry of database.entries()) {
    hash.update(lineOf(entry));
    count += 1;
  }
  hash.update(restOf(database));
  if (count !== manifest.entries) throw notAsWritten(database.path, `received ${count} entries`);
  if (hash.digest("hex") !== manifest.sha256) {
    throw notAsWritten(database.path, "received another SHA-256 of what it holds");
  }
  return manifest;
}

function notAsWritten(path: string, received: string): FileRefused {
  return new FileRefused(
    `Cannot use the backup ${path}: expected it as it was written, ${received}. Take another one.`,
  );
}

function lineOf({ revision: number, bucket, key, operation, value, ...rest }: StoredEntry): string {
  const { writeId, time, clock } = rest;
  return `${JSON.stringify([number, bucket, key, operation, value, writeId, time, clock])}\n`;
}

function restOf(database: Database): string {
  const floors = [...database.floors()].toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify({ floors, spent: database.spent() });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
