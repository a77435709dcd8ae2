import { Database as Sqlite } from "bun:sqlite";
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  openSync,
  renameSync,
  rmSync,
  unlinkSync,
} from "node:fs";
import { dirname } from "node:path";
import { FileRefused } from "../../journal/file-refused.ts";
import { nextTurn, syncFile, syncFolder, withDatabase } from "../../store/files.ts";
import { placeBeforeRestore, removeDatabase } from "../../store/store-folder.ts";
import { VettingDatabase } from "./database.ts";
import { restoredRun } from "./lifecycle-restored.ts";
import type { Run } from "./lifecycle-state.ts";

/** Hosts, specs and runs as a file that lasts, and back: beside the backup of the store. */

/** Of the store's backup: an orchestrator's has two files. */
export const besideBackup = (file: string): string => `${file}.vetting`;

/** Rows that are copied in one turn: hosts are answered meanwhile. */
const ROWS_AT_ONCE = 64;
/** Numbers of runs that the orchestrator may have given since a backup was made. */
const RUNS_SINCE = 1_000;

export interface DatabaseBackup {
  readonly file: string;
  readonly rows: number;
  /** Of all rows, in their order. */
  readonly sha256: string;
}

type Row = readonly (string | number | null)[];

/**
 * Copies a database while it is used; a transaction shows one moment of it. Reads the copy back,
 * and gives it its name when it is whole, and on the disk. 0600.
 * @throws FileRefused; also where something has that name
 */
export async function backUpDatabase(path: string, file: string): Promise<DatabaseBackup> {
  const place = { what: "write the backup", path: file, otherwise: "give another file" };
  const partial = `${file}.${process.pid}.partial`;
  if (existsSync(file)) throw somethingIsThere(file);
  try {
    const copied = await copyAll(path, partial, place);
    withDatabase(place, () => syncFile(partial));
    const found = await readBack(partial, place);
    if (found !== copied.sha256) {
      throw new FileRefused(
        `Cannot write the backup ${file}: expected ${copied.sha256} when it was read back, ` +
          `received ${found}. Is that disk well? Give a file on another one.`,
      );
    }
    withDatabase(place, () => publish(partial, file));
    return { file, ...copied };
  } finally {
    removeDatabase(partial);
  }
}

function somethingIsThere(file: string): FileRefused {
  return new FileRefused(
    `Cannot write the backup ${file}: expected nothing there, received a file. A backup ` +
      "overwrites nothing: give another name.",
  );
}

function publish(partial: string, file: string): void {
  if (existsSync(file)) throw somethingIsThere(file);
  linkSync(partial, file);
  unlinkSync(partial);
  syncFolder(dirname(file));
}

type Place = Parameters<typeof withDatabase>[0];

async function copyAll(path: string, partial: string, place: Place) {
  using source = withDatabase(place, () => new Sqlite(path, { readonly: true, strict: true }));
  using target = withDatabase(place, () => {
    removeDatabase(partial);
    closeSync(openSync(partial, "wx", 0o600));
    return new Sqlite(partial, { readwrite: true, strict: true });
  });
  source.run("BEGIN");
  withDatabase(place, () => {
    // It has no name yet, and is made lasting when it is whole.
    for (const name of ["journal_mode = OFF", "synchronous = OFF", "auto_vacuum = INCREMENTAL"]) {
      target.run(`PRAGMA ${name}`);
    }
    for (const name of ["application_id", "user_version"]) {
      target.run(`PRAGMA ${name} = ${Number(source.query(`PRAGMA ${name}`).values()[0]?.[0])}`);
    }
    target.run("BEGIN");
    for (const sql of definitionsOf(source)) target.run(sql);
  });
  const hash = new Bun.CryptoHasher("sha256");
  let rows = 0;
  for (const table of tablesOf(source)) {
    const isOwn = table !== "sqlite_sequence";
    if (!isOwn) target.run("DELETE FROM sqlite_sequence");
    for (const row of rowsOf(source, table)) {
      hash.update(lineOf(table, row));
      const places = row.map(() => "?").join(", ");
      withDatabase(place, () =>
        target.query(`INSERT INTO ${table} VALUES (${places})`).run(...row),
      );
      rows += 1;
      if (rows % ROWS_AT_ONCE === 0) await nextTurn();
    }
  }
  withDatabase(place, () => target.run("COMMIT"));
  return { rows, sha256: hash.digest("hex") };
}

async function readBack(partial: string, place: Place): Promise<string> {
  using copy = withDatabase(place, () => new Sqlite(partial, { readonly: true, strict: true }));
  const hash = new Bun.CryptoHasher("sha256");
  let rows = 0;
  for (const table of tablesOf(copy)) {
    for (const row of rowsOf(copy, table)) {
      hash.update(lineOf(table, row));
      rows += 1;
      if (rows % ROWS_AT_ONCE === 0) await nextTurn();
    }
  }
  return hash.digest("hex");
}

const lineOf = (table: string, row: Row) => `${JSON.stringify([table, ...row])}\n`;

/** Tables before their indexes, so that a row has its place at once. */
function definitionsOf(source: Sqlite): string[] {
  const sql = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'";
  return source.query(`${sql} ORDER BY type DESC, name`).values().flat().map(String);
}

function tablesOf(source: Sqlite): string[] {
  const sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
  // Last: rows of the others change it.
  return [...source.query(`${sql} ORDER BY name`).values().flat().map(String), "sqlite_sequence"];
}

function* rowsOf(source: Sqlite, table: string): Generator<Row> {
  const order = table === "sqlite_sequence" ? " ORDER BY name" : "";
  for (const row of source.prepare(`SELECT * FROM ${table}${order}`).iterate()) {
    yield Object.values(row as Record<string, string | number | null>);
  }
}

export interface DatabaseRestore {
  readonly runs: number;
  /** Where the database is that was there before. */
  readonly keptAs: string | undefined;
}

/**
 * A backup as it is put in the place of a database: whole, and without what counted only then.
 * Nothing that runs uses it yet.
 * @throws FileRefused: there is no backup, it is damaged, as many databases are kept as may be, or
 * there is no room
 */
export function prepareRestore(file: string, path: string, time: string): number {
  const place = { what: "restore", path: file, otherwise: "give another file" };
  if (!existsSync(file)) {
    throw new FileRefused(
      `Cannot restore ${file}: expected the hosts, specs and runs of a backup there, received ` +
        "nothing. Keep both files of a backup together: FILE and FILE.vetting.",
    );
  }
  return withDatabase(place, () => {
    // Refused before anything is made.
    if (existsSync(path)) placeOfKept(path);
    const partial = restoring(path);
    removeDatabase(partial);
    using source = new Sqlite(file, { readonly: true, strict: true });
    source.run(`VACUUM INTO '${partial.replaceAll("'", "''")}'`);
    chmodSync(partial, 0o600);
    // Looks at every page and row of it, and at whose it is.
    using database = VettingDatabase.open(partial);
    const runs = database.all<{ run: number; record: string }>("SELECT run, record FROM runs");
    const highest = lastRunOf(path);
    database.transaction(() => {
      database.run("UPDATE hosts SET window_until = NULL");
      for (const { run, record } of runs) {
        const { run: next, events } = restoredRun(JSON.parse(record) as Run, time);
        if (next === undefined) continue;
        const sql = "UPDATE runs SET record = ?, has_session = 0 WHERE run = ?";
        database.run(sql, JSON.stringify(next), run);
        for (const event of events) {
          const words = [run, event.sequence, JSON.stringify(event)];
          database.run("INSERT INTO events VALUES (?, ?, ?)", ...words);
        }
      }
      // Two runs of one number would have reports that say they are of one run.
      const before = sequenceOf(
        database.all("SELECT seq FROM sqlite_sequence WHERE name = 'runs'"),
      );
      const next = Math.max(before + RUNS_SINCE, highest);
      // A backup from before the first run has no row of it.
      database.run("DELETE FROM sqlite_sequence WHERE name = 'runs'");
      database.run("INSERT INTO sqlite_sequence VALUES ('runs', ?)", next);
    });
    return runs.length;
  });
}

const restoring = (path: string) => `${path}.restoring`;
const sequenceOf = ([row]: readonly { readonly seq: number }[]) => row?.seq ?? 0;

/** Of the database that is there; 0 where it is none, or damaged. */
function lastRunOf(path: string): number {
  if (!existsSync(path)) return 0;
  try {
    using database = new Sqlite(path, { readonly: true });
    const sql = "SELECT seq FROM sqlite_sequence WHERE name = 'runs'";
    return sequenceOf(database.query<{ seq: number }, []>(sql).all());
  } catch {
    return 0;
  }
}

/**
 * Puts what was prepared in its place; killed before it ends, the same command does it anew.
 * @returns where the database is that was there before
 * @throws FileRefused when as many are kept as may be
 */
export function finishRestore(path: string): string | undefined {
  const place = { what: "restore", path, otherwise: "give another --state-directory" };
  return withDatabase(place, () => {
    const folder = dirname(path);
    const keptAs = existsSync(path) ? keep(folder, path) : undefined;
    // Before the other file has its name: SQLite would take them for that one's.
    for (const suffix of besides) rmSync(path + suffix, { force: true });
    renameSync(restoring(path), path);
    syncFolder(folder);
    return keptAs;
  });
}

/** What is committed and not in the file yet. */
const besides = ["-wal", "-shm"];

/** Gives a database another name as well. It is kept once its own file, the last one, has that. */
function keep(folder: string, path: string): string {
  const keptAs = placeOfKept(path);
  for (const suffix of [...besides, ""]) {
    rmSync(keptAs + suffix, { force: true });
    if (existsSync(path + suffix)) linkSync(path + suffix, keptAs + suffix);
  }
  syncFolder(folder);
  return keptAs;
}

const placeOfKept = (path: string) =>
  placeBeforeRestore({ folder: dirname(path), beforeRestore: `${path}.before-restore` });
