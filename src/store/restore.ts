import { existsSync, rmSync } from "node:fs";
import { FileRefused, NamedFileRefused } from "../journal/file-refused.ts";
import { ExitCode } from "../units/exit-code.ts";
import { checkManifest, DatabaseCopy, type Manifest } from "./backup.ts";
import { Database } from "./database.ts";
import { syncFolder, withDatabase } from "./files.ts";
import {
  firstIncarnation,
  type Incarnation,
  incarnationLimits,
  jumpBeyond,
  newIncarnationId,
  readIncarnation,
  writeIncarnation,
} from "./incarnation.ts";
import { passStep } from "./kill-points.ts";
import { Ledger, type Spending } from "./ledger.ts";
import { finishRestore, refusalOf } from "./opening.ts";
import type { Revision } from "./store.ts";
import {
  lockFolder,
  pathsOf,
  placeBeforeRestore,
  removeDatabase,
  type StorePaths,
} from "./store-folder.ts";

export interface RestoreOptions {
  readonly folder: string;
  readonly file: string;
  /**
   * Restore although nobody here knows what was spent since the backup was made: all that was
   * issued before counts as spent.
   */
  readonly withoutLedger: boolean;
}

export interface RestoreReport {
  readonly incarnation: string;
  /** The first revision of what follows. */
  readonly first: Revision;
  /** Whether all that was issued before counts as spent. */
  readonly fenced: boolean;
  readonly entries: number;
  /** Where the database is that was there before. */
  readonly keptAs: string | undefined;
}

/** A restore that needs `withoutLedger` to be said. */
export class LedgerUnknown extends FileRefused {
  override readonly exitCode = ExitCode.refused;
}

/**
 * Puts a backup in the place of a store's database, offline. Killed at any moment, either the old
 * one is there or the restored one, once the store is opened. What was spent since the backup was
 * made stays spent, and no revision is given again.
 * @throws FileRefused: the store runs, the backup is damaged …; LedgerUnknown
 */
export function restore(options: RestoreOptions): RestoreReport {
  const paths = pathsOf(options.folder);
  using _lock = lockFolder(options.folder);
  const place = { what: "restore", path: options.folder, otherwise: "give another folder" };
  return withDatabase(place, () => restoreLocked(paths, options));
}

function restoreLocked(paths: StorePaths, options: RestoreOptions): RestoreReport {
  const found = readPresent(paths, options);
  const keptAs = existsSync(paths.database) ? placeBeforeRestore(paths) : undefined;
  using source = openBackup(options.file);
  const manifest = checkManifest(source);
  const isReadable = isLedgerReadable(paths);
  const isKnown = knows(found, source.meta("incarnation")) && isReadable;
  if (!isKnown && !options.withoutLedger) throw ledgerUnknown(options);
  const next = nextIncarnation(source, { found, manifest, isKnown });
  const entries = copy(source, paths, next);
  passStep("restore:copied");
  mergeLedger(paths, next, { isReadable, spent: source.spent() });
  passStep("restore:merged");
  // Of one that somebody moved away: its log must not be found beside what is kept now.
  if (keptAs !== undefined) removeDatabase(keptAs);
  writeIncarnation(paths.incarnation, next);
  passStep("restore:intended");
  finishRestore(paths, next);
  const { incarnation, first } = next;
  return { incarnation, first, fenced: !isKnown, entries, keptAs };
}

/** A restore that was cut short is finished first: this one comes after it. */
function readPresent(paths: StorePaths, options: RestoreOptions): Incarnation | undefined {
  let found: Incarnation | undefined;
  try {
    found = readIncarnation(paths.incarnation);
  } catch (error) {
    if (!(error instanceof FileRefused && options.withoutLedger)) throw error;
    return undefined;
  }
  if (found?.state === "restoring") return finishRestore(paths, found);
  return found?.state === "creating" ? undefined : found;
}

function openBackup(file: string): Database {
  if (!existsSync(file)) {
    throw new NamedFileRefused(
      `Cannot restore ${file}: expected a backup there, received nothing. Look at its name.`,
    );
  }
  try {
    const database = Database.open(file, "read");
    try {
      database.check();
      return database;
    } catch (error) {
      database[Symbol.dispose]();
      throw error;
    }
  } catch (error) {
    const refusal = refusalOf(file, error);
    if (refusal === error) throw error;
    throw new FileRefused(
      `Cannot restore ${file}: ${(error as Error).message}. Take another backup.`,
      { cause: error },
    );
  }
}

/** Whether this folder's ledger has whatever was spent since an incarnation was saved. */
function knows(found: Incarnation | undefined, incarnation: string | undefined): boolean {
  if (found === undefined || incarnation === undefined) return false;
  return [found.incarnation, ...found.history].includes(incarnation);
}

function isLedgerReadable(paths: StorePaths): boolean {
  try {
    new Ledger(paths.ledger, 0)[Symbol.dispose]();
    return true;
  } catch (error) {
    if (error instanceof FileRefused) return false;
    throw error;
  }
}

function ledgerUnknown({ file, folder }: RestoreOptions): LedgerUnknown {
  return new LedgerUnknown(
    `Cannot restore ${file}: expected in ${folder} the ledger of what was spent since it was ` +
      "made, received none that can say. Restore where it was made, or say --without-ledger: " +
      "all tokens that were issued before then count as used, and addresses as given.",
  );
}

function nextIncarnation(
  source: Database,
  known: {
    readonly found: Incarnation | undefined;
    readonly manifest: Manifest | undefined;
    readonly isKnown: boolean;
  },
): Incarnation {
  const { found, manifest, isKnown } = known;
  const last = Math.max(0, ...source.lasts().values(), ...source.floors().values());
  const present = found ?? firstIncarnation();
  const first = jumpBeyond(present.reserved, present.first, manifest?.last ?? 0, last);
  const history = isKnown && found !== undefined ? [found.incarnation, ...found.history] : [];
  return {
    format: 1,
    incarnation: newIncarnationId(),
    history: history.slice(0, incarnationLimits.history),
    first,
    reserved: first,
    fence: isKnown ? Math.max(present.fence, manifest?.fence ?? 0) : first,
    state: "restoring",
  };
}

/** @returns how many entries there are */
function copy(source: Database, paths: StorePaths, next: Incarnation): number {
  removeDatabase(paths.restoring);
  const target = new DatabaseCopy(source, paths.restoring, []);
  try {
    while (target.someMore(4_096));
    target.finish(next.incarnation);
    syncFolder(paths.folder);
    return target.count;
  } finally {
    target[Symbol.dispose]();
  }
}

/** What had been spent when the backup was made is spent here too. */
function mergeLedger(
  paths: StorePaths,
  next: Incarnation,
  from: { readonly isReadable: boolean; readonly spent: readonly Spending[] },
): void {
  const path = from.isReadable ? paths.ledger : paths.restoringLedger;
  rmSync(paths.restoringLedger, { force: true });
  if (!from.isReadable) Ledger.create(path);
  using ledger = new Ledger(path, next.fence);
  ledger.add(from.spent);
}
