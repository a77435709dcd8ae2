import { existsSync, renameSync, rmSync } from "node:fs";
import { FileRefused } from "../journal/file-refused.ts";
import { Database, DatabaseDamaged, databaseFormats, isNoRoom, UnknownFormat } from "./database.ts";
import { syncFolder, withDatabase } from "./files.ts";
import {
  firstIncarnation,
  type Incarnation,
  readIncarnation,
  writeIncarnation,
} from "./incarnation.ts";
import { passStep } from "./kill-points.ts";
import { Ledger } from "./ledger.ts";
import { placeBeforeRestore, removeDatabase, type StorePaths } from "./store-folder.ts";
import { checkWriteAheadLog } from "./write-ahead-log.ts";

/** What a store's folder holds, whole and checked. */
export interface OpenedFolder {
  readonly database: Database;
  readonly incarnation: Incarnation;
  readonly ledger: Ledger;
}

/**
 * Opens what is in a locked folder, or makes it; a restore that was cut short is finished first.
 * @throws FileRefused with the way to restore
 */
export function openFolder(paths: StorePaths): OpenedFolder {
  const found = readIncarnation(paths.incarnation);
  if (found === undefined) refuseStray(paths);
  const incarnation = readyIncarnation(paths, found);
  const ledger = new Ledger(paths.ledger, incarnation.fence);
  try {
    return { database: openDatabase(paths, incarnation), incarnation, ledger };
  } catch (error) {
    ledger[Symbol.dispose]();
    throw error;
  }
}

/** @throws FileRefused for a database that came here without its incarnation */
function refuseStray(paths: StorePaths): void {
  if (!existsSync(paths.database)) return;
  throw new FileRefused(
    `Cannot open the store ${paths.folder}: expected incarnation.json beside store.db, received ` +
      "none. The database was brought here by other means than a restore: move it away, and say " +
      "`hostler store restore FILE --without-ledger` with it.",
  );
}

function readyIncarnation(paths: StorePaths, found: Incarnation | undefined): Incarnation {
  const file = {
    what: "make the store",
    path: paths.folder,
    otherwise: "give another folder",
  };
  if (found === undefined) return withDatabase(file, () => createStore(paths, firstIncarnation()));
  switch (found.state) {
    case "creating":
      return withDatabase(file, () => createStore(paths, found));
    case "restoring":
      return withDatabase({ ...file, what: "finish restoring" }, () => finishRestore(paths, found));
    case "ready":
      // Of a restore that ended before it had decided anything.
      removeDatabase(paths.restoring);
      rmSync(paths.restoringLedger, { force: true });
      return found;
  }
}

function createStore(paths: StorePaths, incarnation: Incarnation): Incarnation {
  writeIncarnation(paths.incarnation, incarnation);
  passStep("create:intended");
  // Nothing was acknowledged in this state.
  removeDatabase(paths.database);
  Ledger.create(paths.ledger);
  const database = Database.create(paths.database, databaseFormats.newest, "live");
  try {
    database.begin();
    database.setMeta("incarnation", incarnation.incarnation);
    database.commit();
  } finally {
    database[Symbol.dispose]();
  }
  syncFolder(paths.folder);
  passStep("create:made");
  const ready: Incarnation = { ...incarnation, state: "ready" };
  writeIncarnation(paths.incarnation, ready);
  passStep("create:ready");
  return ready;
}

/**
 * What a restore has decided: the present database goes aside, the restored one in its place.
 * Every step may be repeated.
 */
export function finishRestore(paths: StorePaths, incarnation: Incarnation): Incarnation {
  if (existsSync(paths.restoringLedger)) {
    if (existsSync(paths.ledger)) renameSync(paths.ledger, paths.damagedLedger);
    renameSync(paths.restoringLedger, paths.ledger);
    syncFolder(paths.folder);
  }
  passStep("restore:ledger");
  if (existsSync(paths.restoring)) {
    if (existsSync(paths.database)) {
      const kept = placeBeforeRestore(paths);
      // Its log first: it must not be found beside the restored database.
      if (existsSync(paths.writeAheadLog)) {
        renameSync(paths.writeAheadLog, `${kept}-wal`);
      }
      passStep("restore:kept-log");
      renameSync(paths.database, kept);
    }
    rmSync(`${paths.database}-shm`, { force: true });
    syncFolder(paths.folder);
    passStep("restore:kept");
    renameSync(paths.restoring, paths.database);
    syncFolder(paths.folder);
  }
  passStep("restore:placed");
  const ready: Incarnation = { ...incarnation, state: "ready" };
  writeIncarnation(paths.incarnation, ready);
  passStep("restore:ready");
  return ready;
}

function openDatabase(paths: StorePaths, incarnation: Incarnation): Database {
  if (!existsSync(paths.database)) {
    throw new FileRefused(
      `Cannot open the store ${paths.folder}: expected its database store.db, received none. ` +
        `${restoreMend} To begin anew, remove the whole folder.`,
    );
  }
  let database: Database | undefined;
  try {
    // Before SQLite reads it, and leaves out what it takes for the rest of a crash.
    checkWriteAheadLog(paths.writeAheadLog);
    database = Database.open(paths.database);
    database.check();
    checkIncarnation(database, incarnation);
    emptyLog(database);
    return database;
  } catch (error) {
    database?.[Symbol.dispose]();
    throw refusalOf(paths.database, error);
  }
}

/** So that the rest of one crash is gone before the next: two could pass for lost commits. */
function emptyLog(database: Database): void {
  try {
    database.checkpoint();
  } catch (error) {
    // The log has it as well as the database would.
    if (!isNoRoom(error)) throw error;
  }
}

function checkIncarnation(database: Database, incarnation: Incarnation): void {
  if (database.meta("incarnation") === incarnation.incarnation) return;
  throw new FileRefused(
    `Cannot open the store ${database.path}: expected the database of this folder's ` +
      "incarnation.json, received another's. " +
      restoreMend,
  );
}

const restoreMend = "Restore a backup by `hostler store restore FILE`.";

/** What is said of a database that cannot be used, and how it is mended. */
export function refusalOf(path: string, error: unknown): unknown {
  if (error instanceof DatabaseDamaged) {
    return new FileRefused(
      `Cannot open the database ${path}: it is damaged: ${error.message}. ${restoreMend} The ` +
        "damaged one is kept beside it then.",
      { cause: error },
    );
  }
  if (error instanceof UnknownFormat) {
    return new FileRefused(
      `Cannot open the database ${path}: expected format 1 or 2, received ${error.format}. It ` +
        "is a newer hostler's: use that one, or restore a backup of this one.",
    );
  }
  return error;
}
