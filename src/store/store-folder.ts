import { existsSync, mkdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { lockFile } from "../../ffi/flock.ts";
import { FileRefused, withFile } from "../journal/file-refused.ts";

/** Where the embedded store keeps what: one folder, 0700, files 0600. */
export interface StorePaths {
  readonly folder: string;
  readonly database: string;
  /** What SQLite keeps beside it: committed writes that are not in the database yet. */
  readonly writeAheadLog: string;
  /** Who this store is, and which revisions it has promised: outside of what a restore replaces. */
  readonly incarnation: string;
  /** What was spent once. */
  readonly ledger: string;
  readonly lock: string;
  /** Room that is given up when the disk is full, so that old entries can be removed. */
  readonly reserve: string;
  /** A database that a restore has made, and not yet put in its place. */
  readonly restoring: string;
  /** A ledger that a restore begins, because there is none that can be read. */
  readonly restoringLedger: string;
  /** The database that a restore replaced; of the second one `-2`, and so on. */
  readonly beforeRestore: string;
  /** A ledger that could not be read. */
  readonly damagedLedger: string;
}

export function pathsOf(folder: string): StorePaths {
  const database = join(folder, "store.db");
  return {
    folder,
    database,
    writeAheadLog: `${database}-wal`,
    incarnation: join(folder, "incarnation.json"),
    ledger: join(folder, "spent.log"),
    lock: join(folder, "lock"),
    reserve: join(folder, "reserve"),
    restoring: `${database}.restoring`,
    restoringLedger: join(folder, "spent.log.restoring"),
    beforeRestore: `${database}.before-restore`,
    damagedLedger: join(folder, "spent.log.damaged"),
  };
}

/**
 * Takes a store's folder, making it when it is not there, until the lock is disposed of or this
 * process ends.
 * @throws FileRefused when another process has it, or the folder cannot be used
 */
export function lockFolder(folder: string): Disposable {
  const file = { what: "use the store", path: folder, otherwise: "give another folder" };
  withFile(file, () => mkdirSync(folder, { recursive: true, mode: 0o700 }));
  const { mode } = statSync(folder);
  if ((mode & 0o022) !== 0) {
    throw new FileRefused(
      `Cannot use the store ${folder}: expected a folder that its owner alone may write, ` +
        `received mode 0${(mode & 0o777).toString(8)}. Say chmod 700 ${folder}.`,
    );
  }
  checkFiles(folder);
  const lock = withFile(file, () => lockFile(pathsOf(folder).lock));
  if (lock === "held") {
    throw new FileRefused(
      `Cannot use the store ${folder}: another process has it. Stop that one (fuser ` +
        `${pathsOf(folder).lock} names it), or ask it.`,
    );
  }
  return { [Symbol.dispose]: () => lock.close() };
}

/** @throws FileRefused for a file that others may write: who could, lets in whom they like */
function checkFiles(folder: string): void {
  const { database, writeAheadLog, incarnation, ledger, lock } = pathsOf(folder);
  for (const path of [database, writeAheadLog, incarnation, ledger, lock]) {
    const mode = statSync(path, { throwIfNoEntry: false })?.mode ?? 0;
    if ((mode & 0o022) === 0) continue;
    throw new FileRefused(
      `Cannot use the store ${folder}: expected files that their owner alone may write, received ` +
        `${path} with mode 0${(mode & 0o777).toString(8)}. See who has written there; then say ` +
        `chmod 600 ${path}.`,
    );
  }
}

/** Databases that restores have replaced, and that are kept in a folder. */
export const MOST_KEPT = 8;

/**
 * Where the database goes that a restore replaces: nothing that was kept before is lost by it. It
 * is the same until that database is there.
 * @throws FileRefused when as many are kept as may be
 */
export function placeBeforeRestore({
  folder,
  beforeRestore,
}: Pick<StorePaths, "folder" | "beforeRestore">): string {
  for (let number = 1; number <= MOST_KEPT; number += 1) {
    const path = number === 1 ? beforeRestore : `${beforeRestore}-${number}`;
    if (!existsSync(path)) return path;
  }
  throw new FileRefused(
    `Cannot restore in ${folder}: expected at most ${MOST_KEPT - 1} databases there that earlier ` +
      `restores have replaced, received ${MOST_KEPT}. Move away those of ${beforeRestore}* that ` +
      "nobody needs.",
  );
}

/** Removes a database's file and what SQLite keeps beside it. */
export function removeDatabase(path: string): void {
  for (const suffix of ["", "-wal", "-shm", "-journal"]) rmSync(path + suffix, { force: true });
}
