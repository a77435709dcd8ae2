import { existsSync } from "node:fs";
import { FileRefused } from "../journal/file-refused.ts";
import type { Bytes } from "../units/units.ts";
import { type BackupReport, checkManifest } from "./backup.ts";
import { Database, type DatabaseFormat } from "./database.ts";
import { EmbeddedStore, type EmbeddedStoreOptions, type StoreUsage } from "./embedded-store.ts";
import { openFolder, refusalOf } from "./opening.ts";
import { lockFolder, pathsOf } from "./store-folder.ts";

/** What a check of a store found in order. */
export interface StoreReport {
  readonly incarnation: string;
  readonly format: DatabaseFormat;
  readonly bytes: Bytes;
  readonly entries: number;
  readonly ledgerEntries: number;
}

/**
 * Checks all of a store that does not run: its database entry by entry, and its ledger.
 * @throws FileRefused: it runs, or is damaged, with the way to restore
 */
export function verifyStore(folder: string): StoreReport {
  const paths = pathsOf(folder);
  if (!existsSync(paths.incarnation) && !existsSync(paths.database)) {
    throw new FileRefused(`Cannot verify ${folder}: expected a store there, received none.`);
  }
  using _lock = lockFolder(folder);
  const { database, incarnation, ledger } = openFolder(paths);
  try {
    let entries = 0;
    for (const { entries: count } of database.counts().values()) entries += count;
    const { format, size: bytes } = database;
    const { entries: ledgerEntries } = ledger;
    return { incarnation: incarnation.incarnation, format, bytes, entries, ledgerEntries };
  } finally {
    ledger[Symbol.dispose]();
    database[Symbol.dispose]();
  }
}

/** @throws FileRefused for a file that is no backup, or another than was written */
export function verifyBackup(file: string): BackupReport {
  if (!existsSync(file)) {
    throw new FileRefused(`Cannot verify ${file}: expected a backup there, received nothing.`);
  }
  let database: Database | undefined;
  try {
    database = Database.open(file, "read");
    database.check();
    const manifest = checkManifest(database);
    if (manifest !== undefined) return { file, ...manifest };
  } catch (error) {
    const isOurs = refusalOf(file, error) !== error;
    if (!isOurs) throw error;
    const why = (error as Error).message;
    throw new FileRefused(`The backup ${file} is damaged: ${why}.`, { cause: error });
  } finally {
    database?.[Symbol.dispose]();
  }
  throw new FileRefused(`${file} is a store's database, and no backup: expected a manifest.`);
}

/** What `usage` says, of a store that does not run. @throws FileRefused */
export async function storageOf(options: EmbeddedStoreOptions): Promise<StoreUsage> {
  await using store = EmbeddedStore.open(options);
  return store.usage();
}

/** `backup` of a store that does not run. @throws FileRefused */
export async function backupOf(options: EmbeddedStoreOptions, file: string): Promise<BackupReport> {
  await using store = EmbeddedStore.open(options);
  return await store.backup(file);
}
