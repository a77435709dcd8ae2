import { Database as Sqlite, type Statement } from "bun:sqlite";
import { closeSync, openSync } from "node:fs";
import type { Bytes, Milliseconds } from "../units/units.ts";
import { type Entry, entryBytes, type Revision } from "./store.ts";

/**
 * The formats of the database. 1: entries alone. 2: each entry with a checksum. This binary reads
 * both, and writes the one that the database has.
 */
export const databaseFormats = { oldest: 1, newest: 2 } as const;
export type DatabaseFormat = 1 | 2;
export const newestFormat: DatabaseFormat = 2;

/** "hstl": PRAGMA application_id, so that file(1) and we know whose database it is. */
const applicationId = 0x6873746c;

export const databaseLimits = {
  /** Pages of the write-ahead log after which SQLite moves them into the database. */
  checkpointPages: 1_000,
  /** What the write-ahead log keeps of the disk when it is empty. */
  logBytes: 4 * 1024 ** 2,
  cacheKibibytes: 8_192,
  /** Up to so many matches the entries of a prefix are found by key, and then put in order. */
  fewMatches: 1_024,
} as const;

/** The database does not say what was written into it. */
export class DatabaseDamaged extends Error {
  override readonly name = "DatabaseDamaged";
}

/** An entry with what is not told to anybody. */
export interface StoredEntry extends Entry {
  /** When it was written on the clock by which entries grow old. */
  readonly clock: Milliseconds;
}

interface Row {
  readonly revision: number;
  readonly bucket: string;
  readonly key: string;
  readonly operation: number;
  readonly value: string;
  readonly write_id: string;
  readonly time: number;
  readonly clock: number;
  readonly checksum?: number | null;
}

/** How much a bucket has. */
export interface BucketCount {
  readonly entries: number;
  readonly bytes: Bytes;
}

const formatOne = [
  "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
  `CREATE TABLE entries (
    revision INTEGER PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL,
    operation INTEGER NOT NULL, value TEXT NOT NULL, write_id TEXT NOT NULL,
    time INTEGER NOT NULL, clock INTEGER NOT NULL, bytes INTEGER NOT NULL)`,
  "CREATE UNIQUE INDEX entries_by_key ON entries (bucket, key)",
  "CREATE INDEX entries_by_revision ON entries (bucket, revision)",
  "CREATE INDEX deletions ON entries (bucket, revision) WHERE operation = 1",
  // The highest revision that retention has removed from a bucket.
  "CREATE TABLE floors (bucket TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID",
  `CREATE TABLE samples (bucket TEXT NOT NULL, clock INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (bucket, clock)) WITHOUT ROWID`,
  // What a backup takes of the ledger.
  `CREATE TABLE spent (kind TEXT NOT NULL, id TEXT NOT NULL, issued INTEGER NOT NULL,
    PRIMARY KEY (kind, id)) WITHOUT ROWID`,
];
const checksumColumn = "ALTER TABLE entries ADD COLUMN checksum INTEGER";

/** One file of SQLite, in our schema. Every call is synchronous; errors are SQLite's. */
export class Database implements Disposable {
  readonly path: string;
  readonly #sqlite: Sqlite;
  readonly #statements = new Map<string, Statement>();
  #format: DatabaseFormat;
  #hasChecksums: boolean;

  private constructor(path: string, sqlite: Sqlite, format: DatabaseFormat) {
    this.path = path;
    this.#sqlite = sqlite;
    this.#format = format;
    this.#hasChecksums = hasChecksumColumn(sqlite);
  }

  /**
   * Makes a file, 0600.
   * @param use scratch: nothing is written through before `finish`
   * @throws Error: EEXIST, ENOSPC, SQLITE_FULL …
   */
  static create(path: string, format: DatabaseFormat, use: "live" | "scratch"): Database {
    closeSync(openSync(path, "wx", 0o600));
    const sqlite = new Sqlite(path, { readwrite: true, strict: true });
    try {
      // Before the first table: only then are freed pages given back to the disk.
      sqlite.run("PRAGMA auto_vacuum = INCREMENTAL");
      if (use === "live") prepare(sqlite);
      else {
        sqlite.run("PRAGMA journal_mode = OFF");
        sqlite.run("PRAGMA synchronous = OFF");
      }
      sqlite.run("BEGIN IMMEDIATE");
      for (const statement of formatOne) sqlite.run(statement);
      if (format === 2) sqlite.run(checksumColumn);
      sqlite.run(`PRAGMA application_id = ${applicationId}`);
      sqlite.run(`PRAGMA user_version = ${format}`);
      sqlite.run("COMMIT");
      return new Database(path, sqlite, format);
    } catch (error) {
      sqlite.close();
      throw error;
    }
  }

  /** @throws DatabaseDamaged, UnknownFormat, or SQLite's errors */
  static open(path: string, access: "write" | "read" = "write"): Database {
    const sqlite = new Sqlite(path, {
      ...(access === "read" ? { readonly: true } : { readwrite: true }),
      strict: true,
    });
    try {
      const application = pragma(sqlite, "application_id");
      if (application !== applicationId) {
        throw new DatabaseDamaged(`expected a database of a store, received id ${application}`);
      }
      const format = pragma(sqlite, "user_version");
      if (format !== 1 && format !== 2) throw new UnknownFormat(format);
      if (access === "write") prepare(sqlite);
      return new Database(path, sqlite, format);
    } catch (error) {
      sqlite.close();
      throw asDamage(error);
    }
  }

  get format(): DatabaseFormat {
    return this.#format;
  }

  /** Pages in use and free, in bytes: what the file takes. */
  get size(): Bytes {
    return pragma(this.#sqlite, "page_count") * pragma(this.#sqlite, "page_size");
  }

  /**
   * SQLite's own check, indexes included (a key that an index does not have would be free to be
   * written), and the checksum of every entry.
   * @throws DatabaseDamaged
   */
  check(): void {
    try {
      const [found] = this.#query("PRAGMA integrity_check(1)").values() as string[][];
      if (found?.[0] !== "ok")
        throw new DatabaseDamaged(String(found?.[0]).replace(/\s*\n\s*/g, " "));
      for (const _entry of this.entries()) {
        // Reading one checks it.
      }
    } catch (error) {
      throw asDamage(error);
    }
  }

  /** What is read from now on is what there is now, whoever writes meanwhile. */
  beginReading(): void {
    this.#run("BEGIN");
    this.lasts();
  }

  begin(): void {
    this.#run("BEGIN IMMEDIATE");
  }

  commit(): void {
    this.#run("COMMIT");
  }

  /** Takes a transaction back; fine when SQLite has done so itself. */
  rollback(): void {
    if (this.#sqlite.inTransaction) this.#run("ROLLBACK");
  }

  latest(bucket: string, key: string): StoredEntry | undefined {
    const row = this.#query("SELECT * FROM entries WHERE bucket = ? AND key = ?").get(bucket, key);
    return row === null ? undefined : this.#entry(row as Row);
  }

  /** The entries of the keys that match, beyond a revision, in the order of revisions. */
  after(bucket: string, pattern: string, revision: Revision, limit: number): StoredEntry[] {
    const rows = this.#rowsAfter(bucket, pattern, revision, limit) as Row[];
    return rows.map((row) => this.#entry(row));
  }

  #rowsAfter(bucket: string, pattern: string, revision: Revision, limit: number): unknown[] {
    const from = "SELECT * FROM entries INDEXED BY";
    const order = "AND revision > ? ORDER BY revision LIMIT ?";
    if (pattern === "") {
      const all = `${from} entries_by_revision WHERE bucket = ? ${order}`;
      return this.#query(all).all(bucket, revision, limit);
    }
    if (!pattern.endsWith(".")) {
      const one = `${from} entries_by_key WHERE bucket = ? AND key = ? ${order}`;
      return this.#query(one).all(bucket, pattern, revision, limit);
    }
    // "/" is the character after ".".
    const end = `${pattern.slice(0, -1)}/`;
    const range = "bucket = ? AND key >= ? AND key < ?";
    const few = "SELECT 1 FROM entries INDEXED BY entries_by_key WHERE";
    const { fewMatches } = databaseLimits;
    const matches = this.#query(`SELECT count(*) AS n FROM (${few} ${range} LIMIT ?)`).get(
      ...[bucket, pattern, end, fewMatches + 1],
    ) as { n: number };
    const index = matches.n > fewMatches ? "entries_by_revision" : "entries_by_key";
    const some = `${from} ${index} WHERE ${range} ${order}`;
    return this.#query(some).all(bucket, pattern, end, revision, limit);
  }

  /** All entries in the order of revisions, read as they are asked for. */
  *entries(beyond: Revision = 0): Generator<StoredEntry, void> {
    for (let last = beyond; ; ) {
      const sql = "SELECT * FROM entries WHERE revision > ? ORDER BY revision LIMIT 256";
      const rows = this.#query(sql).all(last) as Row[];
      for (const row of rows) yield this.#entry(row);
      last = rows.at(-1)?.revision ?? last;
      if (rows.length < 256) return;
    }
  }

  /** Puts an entry in the place of the one that its key has. */
  write(entry: StoredEntry): void {
    const columns = "revision, bucket, key, operation, value, write_id, time, clock, bytes";
    const values = [
      entry.revision,
      entry.bucket,
      entry.key,
      entry.operation === "put" ? 0 : 1,
      entry.value,
      entry.writeId,
      Math.round(entry.time),
      Math.round(entry.clock),
      entryBytes(entry),
    ];
    if (this.#format === 1) {
      const nine = `INSERT OR REPLACE INTO entries (${columns}) VALUES (?,?,?,?,?,?,?,?,?)`;
      this.#run(nine, ...values);
      return;
    }
    const all = `${columns}, checksum`;
    const ten = `INSERT OR REPLACE INTO entries (${all}) VALUES (?,?,?,?,?,?,?,?,?,?)`;
    this.#run(ten, ...values, checksumOf(entry));
  }

  /** The oldest entries of a bucket, that may go first, with their bytes. */
  oldest(
    bucket: string,
    choice: "deletions" | "all",
    limit: number,
  ): readonly { readonly revision: Revision; readonly bytes: Bytes; readonly clock: number }[] {
    const [index, only] =
      choice === "deletions" ? ["deletions", "AND operation = 1"] : ["entries_by_revision", ""];
    const sql =
      `SELECT revision, bytes, clock FROM entries INDEXED BY ${index} ` +
      `WHERE bucket = ? ${only} ORDER BY revision LIMIT ?`;
    return this.#query(sql).all(bucket, limit) as [];
  }

  /** Removes an entry for retention: who resumes from before it has to list again. */
  forget(bucket: string, revision: Revision): void {
    this.#run("DELETE FROM entries WHERE revision = ?", revision);
    this.setFloor(bucket, revision);
  }

  floors(): Map<string, Revision> {
    const rows = this.#query("SELECT bucket, revision FROM floors").all();
    return new Map((rows as Row[]).map(({ bucket, revision }) => [bucket, revision]));
  }

  setFloor(bucket: string, revision: Revision): void {
    this.#run(
      "INSERT INTO floors VALUES (?, ?) ON CONFLICT (bucket) " +
        "DO UPDATE SET revision = max(revision, excluded.revision)",
      ...[bucket, revision],
    );
  }

  /** The last revision of each bucket that has entries. */
  lasts(): Map<string, Revision> {
    const rows = this.#query("SELECT bucket, max(revision) AS revision FROM entries GROUP BY 1");
    return new Map((rows.all() as Row[]).map(({ bucket, revision }) => [bucket, revision]));
  }

  counts(): Map<string, BucketCount> {
    const sql = "SELECT bucket, count(*) AS entries, sum(bytes) AS bytes FROM entries GROUP BY 1";
    const rows = this.#query(sql).all() as (BucketCount & { bucket: string })[];
    return new Map(rows.map(({ bucket, entries, bytes }) => [bucket, { entries, bytes }]));
  }

  meta(name: string): string | undefined {
    const row = this.#query("SELECT value FROM meta WHERE name = ?").get(name);
    return (row as { value: string } | null)?.value;
  }

  setMeta(name: string, value: string): void {
    this.#run("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, value);
  }

  /** Notes what a bucket has now; no more than `keep` samples of it stay. */
  addSample(bucket: string, sample: Sample, keep: number): void {
    this.#run(
      "INSERT OR REPLACE INTO samples VALUES (?, ?, ?)",
      ...[bucket, Math.round(sample.clock), sample.bytes],
    );
    this.#run(
      "DELETE FROM samples WHERE bucket = ? AND clock NOT IN " +
        "(SELECT clock FROM samples WHERE bucket = ? ORDER BY clock DESC LIMIT ?)",
      ...[bucket, bucket, keep],
    );
  }

  samples(bucket: string): readonly Sample[] {
    const sql = "SELECT clock, bytes FROM samples WHERE bucket = ? ORDER BY clock";
    return this.#query(sql).all(bucket) as Sample[];
  }

  addSpent(kind: string, id: string, issued: Revision): void {
    this.#run("INSERT OR IGNORE INTO spent VALUES (?, ?, ?)", kind, id, issued);
  }

  spent(): readonly { readonly kind: string; readonly id: string; readonly issued: Revision }[] {
    return this.#query("SELECT kind, id, issued FROM spent ORDER BY kind, id").all() as [];
  }

  /** Gives pages that nothing uses back to the disk. */
  giveBack(): void {
    this.#sqlite.run("PRAGMA incremental_vacuum");
    this.checkpoint();
  }

  /** Moves what the write-ahead log has into the database, and empties it. */
  checkpoint(): void {
    this.#sqlite.run("PRAGMA wal_checkpoint(TRUNCATE)");
  }

  /** The database takes no more of the disk than this: then it is full. */
  limitSize(bytes: Bytes): void {
    const pages = Math.max(1, Math.floor(bytes / pragma(this.#sqlite, "page_size")));
    this.#sqlite.run(`PRAGMA max_page_count = ${pages}`);
  }

  /** The column of format 2, which a binary of format 1 does not see. */
  addChecksumColumn(): void {
    if (this.#hasChecksums) return;
    this.#sqlite.run(checksumColumn);
    this.#hasChecksums = true;
    this.#statements.clear();
  }

  /** Writes checksums that are missing. @returns how many entries got one */
  addChecksums(limit: number): number {
    const rows = this.#query("SELECT * FROM entries WHERE checksum IS NULL LIMIT ?").all(limit);
    for (const row of rows as Row[]) {
      const checksum = checksumOf(entryOf(row));
      this.#run("UPDATE entries SET checksum = ? WHERE revision = ?", checksum, row.revision);
    }
    return rows.length;
  }

  /** Inside of a transaction. */
  setFormat(format: DatabaseFormat): void {
    this.#sqlite.run(`PRAGMA user_version = ${format}`);
  }

  /** After the transaction of `setFormat`. */
  readFormat(): void {
    this.#format = pragma(this.#sqlite, "user_version") as DatabaseFormat;
  }

  [Symbol.dispose](): void {
    for (const statement of this.#statements.values()) statement.finalize();
    this.#sqlite.close();
  }

  #entry(row: Row): StoredEntry {
    const entry = entryOf(row);
    if (this.#format === 2 && row.checksum !== checksumOf(entry)) {
      throw new DatabaseDamaged(
        `expected revision ${row.revision} (${row.bucket} ${row.key}) as it was written, ` +
          "received another checksum",
      );
    }
    return entry;
  }

  #query(sql: string): Statement {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const statement = this.#sqlite.prepare(sql);
    this.#statements.set(sql, statement);
    return statement;
  }

  #run(sql: string, ...values: readonly (string | number)[]): void {
    this.#query(sql).run(...values);
  }
}

export interface Sample {
  readonly clock: Milliseconds;
  readonly bytes: Bytes;
}

/** A format that this binary does not know. */
export class UnknownFormat extends Error {
  override readonly name = "UnknownFormat";
  readonly format: number;

  constructor(format: number) {
    super(`expected format 1 or 2, received ${format}`);
    this.format = format;
  }
}

/** @returns whether an error says that the file is not what SQLite, or we, wrote */
export function isDamage(error: unknown): boolean {
  if (error instanceof DatabaseDamaged) return true;
  return /^SQLITE_(CORRUPT|NOTADB|FORMAT)/.test(codeOf(error) ?? "");
}

/** While a database is opened or checked, an error of its schema is damage too. */
function asDamage(error: unknown): unknown {
  const isOurs = error instanceof DatabaseDamaged || error instanceof UnknownFormat;
  if (isOurs || !(isDamage(error) || codeOf(error) === "SQLITE_ERROR")) return error;
  return new DatabaseDamaged(messageOf(error), { cause: error });
}

/** @returns whether an error says that there is no room */
export function isNoRoom(error: unknown): boolean {
  // SHMSIZE: the index of the write-ahead log could not be made larger.
  const codes = ["SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "ENOSPC", "EDQUOT"];
  return codes.includes(codeOf(error) ?? "");
}

/** Of SQLite or of the kernel. */
export function codeOf(error: unknown): string | undefined {
  const { code } = error as { readonly code?: unknown };
  return typeof code === "string" ? code : undefined;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function prepare(sqlite: Sqlite): void {
  sqlite.run("PRAGMA journal_mode = WAL");
  sqlite.run("PRAGMA synchronous = FULL");
  sqlite.run("PRAGMA cell_size_check = ON");
  sqlite.run(`PRAGMA wal_autocheckpoint = ${databaseLimits.checkpointPages}`);
  sqlite.run(`PRAGMA journal_size_limit = ${databaseLimits.logBytes}`);
  sqlite.run(`PRAGMA cache_size = -${databaseLimits.cacheKibibytes}`);
}

function pragma(sqlite: Sqlite, name: string): number {
  const [row] = sqlite.query(`PRAGMA ${name}`).values();
  return Number(row?.[0]);
}

function hasChecksumColumn(sqlite: Sqlite): boolean {
  const columns = sqlite.query("SELECT name FROM pragma_table_info('entries')").values();
  return columns.some(([name]) => name === "checksum");
}

function entryOf(row: Row): StoredEntry {
  return {
    bucket: row.bucket,
    key: row.key,
    revision: row.revision,
    operation: row.operation === 0 ? "put" : "delete",
    value: row.value,
    writeId: row.write_id,
    time: row.time,
    clock: row.clock,
  };
}

/** CRC-32 of all that an entry says. */
function checksumOf(entry: StoredEntry): number {
  const { revision, bucket, key, operation, value, writeId, time, clock } = entry;
  const parts = [revision, bucket, key, operation, value, writeId];
  return Bun.hash.crc32(JSON.stringify([...parts, Math.round(time), Math.round(clock)]));
}
