import { Database as Sqlite, type Statement } from "bun:sqlite";
import { closeSync, existsSync, mkdirSync, openSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { FileRefused } from "../../journal/file-refused.ts";
import { isDamage } from "../../store/database.ts";
import { syncFolder, withDatabase } from "../../store/files.ts";
import { passOrchestratorStep } from "../perform/orchestrator-steps.ts";

/** Version of the tables; a newer one is refused, an older one is brought up. */
export const SCHEMA_VERSION = 1;

/** "hvet": PRAGMA application_id, so that file(1) and we know whose database it is. */
const APPLICATION_ID = 0x68766574;

const logBytes = 16 * 1024 ** 2;
const cacheKibibytes = 32_768;

/** Each makes of its version the next one. */
const migrations: readonly (readonly string[])[] = [
  [
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    // Bytes of what has a bound: "vetting-runs", "vetting-logs", "vetting-sensors".
    "CREATE TABLE totals (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID",
    `CREATE TABLE hosts (
      mac TEXT PRIMARY KEY, name TEXT NOT NULL, enrolled INTEGER NOT NULL, spec TEXT,
      identity TEXT, verdict TEXT, window_until REAL, last_seen TEXT) WITHOUT ROWID`,
    `CREATE TABLE specs (
      name TEXT NOT NULL, revision INTEGER NOT NULL, content TEXT NOT NULL, changed TEXT NOT NULL,
      removed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, revision)) WITHOUT ROWID`,
    `CREATE TABLE runs (
      run INTEGER PRIMARY KEY AUTOINCREMENT, mac TEXT NOT NULL, spec TEXT NOT NULL,
      revision INTEGER NOT NULL, ended REAL, has_session INTEGER NOT NULL, record TEXT NOT NULL,
      head TEXT NOT NULL, bytes INTEGER NOT NULL, log_bytes INTEGER NOT NULL DEFAULT 0,
      sensor_every INTEGER NOT NULL DEFAULT 1, sensor_count INTEGER NOT NULL DEFAULT 0)`,
    "CREATE INDEX runs_by_mac ON runs (mac, run)",
    "CREATE INDEX runs_by_spec ON runs (spec, run)",
    "CREATE INDEX runs_by_end ON runs (ended) WHERE ended IS NOT NULL",
    `CREATE TABLE results (
      run INTEGER NOT NULL, place INTEGER NOT NULL, record TEXT NOT NULL,
      PRIMARY KEY (run, place)) WITHOUT ROWID`,
    "CREATE TABLE rules (run INTEGER PRIMARY KEY, findings TEXT NOT NULL)",
    `CREATE TABLE events (
      run INTEGER NOT NULL, sequence INTEGER NOT NULL, record TEXT NOT NULL,
      PRIMARY KEY (run, sequence)) WITHOUT ROWID`,
    `CREATE TABLE log (
      id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, instance TEXT NOT NULL,
      sequence INTEGER NOT NULL, taken REAL NOT NULL, stage TEXT, line TEXT NOT NULL)`,
    "CREATE UNIQUE INDEX log_once ON log (run, instance, sequence)",
    "CREATE INDEX log_by_run ON log (run, id)",
    `CREATE TABLE sensors (
      id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, instance TEXT NOT NULL,
      sequence INTEGER NOT NULL, taken REAL NOT NULL, reading TEXT NOT NULL)`,
    "CREATE UNIQUE INDEX sensors_once ON sensors (run, instance, sequence)",
    "CREATE INDEX sensors_by_run ON sensors (run, id)",
  ],
];

export type SqlValue = string | number | null;

/** One file of SQLite, in our tables. Every call is synchronous; errors are SQLite's. */
export class VettingDatabase implements Disposable {
  readonly #sqlite: Sqlite;
  readonly #statements = new Map<string, Statement>();

  private constructor(sqlite: Sqlite) {
    this.#sqlite = sqlite;
  }

  /**
   * Opens it, or makes it, 0600 in a folder of 0700.
   * @throws FileRefused when it is damaged, of a newer version, or cannot be used
   */
  static open(path: string): VettingDatabase {
    const file = { what: "open the database", path, otherwise: "give another --state-directory" };
    return withDatabase(file, () => {
      makeFolder(dirname(path));
      const isNew = !existsSync(path);
      if (isNew) closeSync(openSync(path, "wx", 0o600));
      const sqlite = new Sqlite(path, { readwrite: true, strict: true });
      try {
        prepare(sqlite, path);
        if (isNew) syncFolder(dirname(path));
        return new VettingDatabase(sqlite);
      } catch (error) {
        sqlite.close();
        throw isDamage(error) ? damaged(path, error) : error;
      }
    });
  }

  /** Pages in use and free, in bytes: what the file takes. */
  get size(): number {
    return pragma(this.#sqlite, "page_count") * pragma(this.#sqlite, "page_size");
  }

  /** All of it, or nothing. @throws SQLite's errors */
  transaction(act: () => void): void {
    this.#sqlite.run("BEGIN IMMEDIATE");
    try {
      act();
      passOrchestratorStep("commit", "before");
      this.#sqlite.run("COMMIT");
      passOrchestratorStep("commit", "after");
    } catch (error) {
      if (this.#sqlite.inTransaction) this.#sqlite.run("ROLLBACK");
      throw error;
    }
  }

  /** @returns how many rows were changed */
  run(sql: string, ...values: readonly SqlValue[]): number {
    return this.#query(sql).run(...values).changes;
  }

  all<Row>(sql: string, ...values: readonly SqlValue[]): Row[] {
    return this.#query(sql).all(...values) as Row[];
  }

  one<Row>(sql: string, ...values: readonly SqlValue[]): Row | undefined {
    return (this.#query(sql).get(...values) as Row | null) ?? undefined;
  }

  /** Gives pages that nothing uses back to the disk. */
  giveBack(): void {
    this.#sqlite.run("PRAGMA incremental_vacuum(4096)");
  }

  /** The database takes no more of the disk than this: then it is full. */
  limitSize(bytes: number): void {
    const pages = Math.max(1, Math.floor(bytes / pragma(this.#sqlite, "page_size")));
    this.#sqlite.run(`PRAGMA max_page_count = ${pages}`);
  }

  [Symbol.dispose](): void {
    for (const statement of this.#statements.values()) statement.finalize();
    this.#sqlite.close();
  }

  #query(sql: string): Statement {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const statement = this.#sqlite.prepare(sql);
    this.#statements.set(sql, statement);
    return statement;
  }
}

function makeFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const { mode } = statSync(folder);
  if ((mode & 0o077) === 0) return;
  throw new FileRefused(
    `Cannot use ${folder}: expected a folder of its owner alone, received mode ` +
      `0${(mode & 0o777).toString(8)}. Say chmod 700 ${folder}.`,
  );
}

function prepare(sqlite: Sqlite, path: string): void {
  const version = pragma(sqlite, "user_version");
  const application = pragma(sqlite, "application_id");
  const isEmpty = version === 0 && application === 0 && pragma(sqlite, "page_count") <= 1;
  if (!isEmpty && application !== APPLICATION_ID) {
    throw damaged(path, new Error(`expected a database of vetting, received id ${application}`));
  }
  if (version > SCHEMA_VERSION) {
    throw new FileRefused(
      `Cannot open the database ${path}: expected version ${SCHEMA_VERSION} or less, received ` +
        `${version}. It is a newer hostler's: use that one, or another --state-directory.`,
    );
  }
  // Before the first table: only then are freed pages given back to the disk.
  if (isEmpty) sqlite.run("PRAGMA auto_vacuum = INCREMENTAL");
  sqlite.run("PRAGMA journal_mode = WAL");
  sqlite.run("PRAGMA synchronous = FULL");
  sqlite.run("PRAGMA cell_size_check = ON");
  sqlite.run(`PRAGMA journal_size_limit = ${logBytes}`);
  sqlite.run(`PRAGMA cache_size = -${cacheKibibytes}`);
  if (!isEmpty) check(sqlite, path);
  for (let at = version; at < SCHEMA_VERSION; at += 1) migrate(sqlite, at);
}

/** Every page and every row; an index that lacks a row would let a token be used twice. */
function check(sqlite: Sqlite, path: string): void {
  const [found] = sqlite.query("PRAGMA integrity_check(1)").values() as string[][];
  if (found?.[0] === "ok") return;
  throw damaged(path, new Error(String(found?.[0]).replace(/\s*\n\s*/g, " ")));
}

function migrate(sqlite: Sqlite, from: number): void {
  passOrchestratorStep("create", "before");
  sqlite.run("BEGIN IMMEDIATE");
  for (const statement of migrations[from] ?? []) sqlite.run(statement);
  sqlite.run(`PRAGMA application_id = ${APPLICATION_ID}`);
  sqlite.run(`PRAGMA user_version = ${from + 1}`);
  sqlite.run("COMMIT");
  passOrchestratorStep("create", "after");
}

function damaged(path: string, error: unknown): FileRefused {
  if (error instanceof FileRefused) return error;
  return new FileRefused(
    `Cannot open the database ${path}: it is damaged: ${(error as Error).message}. Put a copy of ` +
      `it back, without ${path}-wal and -shm; or move all three away: then hosts, specs and runs ` +
      "begin anew, and what agents have not told yet is told to the next run alone.",
    { cause: error },
  );
}

function pragma(sqlite: Sqlite, name: string): number {
  const [row] = sqlite.query(`PRAGMA ${name}`).values();
  return Number(row?.[0]);
}
