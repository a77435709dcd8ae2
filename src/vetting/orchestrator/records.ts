import type { HardwareIdentity } from "../../hardware/inventory.ts";
import type { Bytes, Milliseconds } from "../../units/units.ts";
import type { LogLine } from "../protocol.ts";
import type { HostView, KeptResult, RunEvent } from "../protocol-operator.ts";
import type { Stage } from "../protocol-result.ts";
import type { RuleFinding, Spec } from "../protocol-spec.ts";
import type { SqlValue, VettingDatabase } from "./database.ts";
import type { Run } from "./lifecycle-state.ts";

/** What has a bound of its own; the names are those of `--retain`. */
export const keptNames = ["vetting-runs", "vetting-logs", "vetting-sensors"] as const;
export type KeptName = (typeof keptNames)[number];

export const recordLimits = {
  /** Readings of one run: over it every second one goes, and half as many are kept from then on. */
  readings: 2_000,
  /** Bytes of one run's log: over it its oldest lines go. */
  runLog: 64 * 1024 ** 2,
  /** Rows that are removed in one transaction. */
  atOnce: 5_000,
} as const;

export interface HostRecord {
  readonly mac: string;
  readonly name: string;
  readonly enrolled: boolean;
  readonly spec: string | null;
  readonly identity: HardwareIdentity | null;
  readonly verdict: HostView["verdict"];
  /** Milliseconds since 1970; null: the window is closed. */
  readonly windowUntil: Milliseconds | null;
  readonly lastSeen: string | null;
}

export interface SpecRecord {
  readonly name: string;
  readonly revision: number;
  readonly content: Spec;
  readonly changed: string;
}

/** A run, and where its chain and its records stand. */
export interface RunRow {
  readonly run: Run;
  /** The last hash of its chain. */
  readonly head: string;
  readonly results: number;
}

/** One reading, as it is kept. */
export interface KeptReading {
  readonly at: Milliseconds;
  /** Kind, key, value, and what is critical. */
  readonly sensors: readonly (readonly [string, string, number, number | null])[];
  readonly errors: Readonly<Record<string, number>>;
}

interface StoredRun {
  readonly record: string;
  readonly head: string;
  readonly results: number;
}

const resultCount = "(SELECT count(*) FROM results WHERE results.run = runs.run) AS results";

/**
 * What an orchestrator remembers, by what it is. Whoever writes does it inside of a transaction of
 * the database; errors are SQLite's.
 */
export class VettingRecords {
  readonly #database: VettingDatabase;

  constructor(database: VettingDatabase) {
    this.#database = database;
  }

  get bytes(): Bytes {
    return this.#database.size;
  }

  transaction(act: () => void): void {
    this.#database.transaction(act);
  }

  /** A secret of this database, drawn once. */
  secret(name: string, draw: () => string): string {
    const sql = "SELECT value FROM meta WHERE name = ?";
    const known = this.#database.one<{ value: string }>(sql, name);
    if (known !== undefined) return known.value;
    const value = draw();
    this.transaction(() => {
      this.#database.run("INSERT INTO meta VALUES (?, ?)", name, value);
    });
    return value;
  }

  hosts(): HostRecord[] {
    interface Row {
      mac: string;
      name: string;
      enrolled: number;
      spec: string | null;
      identity: string | null;
      verdict: string | null;
      window_until: number | null;
      last_seen: string | null;
    }
    return this.#database.all<Row>("SELECT * FROM hosts ORDER BY mac").map((row) => ({
      ...{ mac: row.mac, name: row.name, enrolled: row.enrolled === 1, spec: row.spec },
      identity: row.identity === null ? null : JSON.parse(row.identity),
      verdict: row.verdict === null ? null : JSON.parse(row.verdict),
      ...{ windowUntil: row.window_until, lastSeen: row.last_seen },
    }));
  }

  saveHost(host: HostRecord): void {
    const json = (value: unknown) => (value === null ? null : JSON.stringify(value));
    this.#database.run(
      "INSERT OR REPLACE INTO hosts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
      ...[host.mac, host.name, host.enrolled ? 1 : 0, host.spec, json(host.identity)],
      ...[json(host.verdict), host.windowUntil, host.lastSeen],
    );
  }

  removeHost(mac: string): void {
    this.#database.run("DELETE FROM hosts WHERE mac = ?", mac);
  }

  /** The newest revision of each that was not taken away. */
  specs(): SpecRecord[] {
    const newest = "SELECT max(revision) FROM specs AS other WHERE other.name = specs.name";
    const sql = `SELECT * FROM specs WHERE revision = (${newest}) AND removed = 0 ORDER BY name`;
    return this.#database.all<SpecRow>(sql).map(specOf);
  }

  /** Also of one that was taken away: a run is held to it. */
  spec(name: string, revision: number): SpecRecord | undefined {
    const sql = "SELECT * FROM specs WHERE name = ? AND revision = ?";
    const row = this.#database.one<SpecRow>(sql, name, revision);
    return row === undefined ? undefined : specOf(row);
  }

  lastRevision(name: string): number {
    const sql = "SELECT max(revision) AS revision FROM specs WHERE name = ?";
    return this.#database.one<{ revision: number | null }>(sql, name)?.revision ?? 0;
  }

  addSpec({ name, revision, content, changed }: SpecRecord, keep: number): void {
    this.#database.run(
      "INSERT INTO specs (name, revision, content, changed) VALUES (?, ?, ?, ?)",
      ...[name, revision, JSON.stringify(content), changed],
    );
    const used = "SELECT revision FROM runs WHERE spec = ?";
    const old = `DELETE FROM specs WHERE name = ? AND revision <= ? AND revision NOT IN (${used})`;
    this.#database.run(old, name, revision - keep, name);
  }

  removeSpec(name: string): void {
    this.#database.run("UPDATE specs SET removed = 1 WHERE name = ?", name);
  }

  /** The number of the last run there ever was. */
  lastRun(): number {
    const sql = "SELECT seq FROM sqlite_sequence WHERE name = 'runs'";
    return this.#database.one<{ seq: number }>(sql)?.seq ?? 0;
  }

  /** Those that something can still happen to. */
  liveRuns(): RunRow[] {
    const isLive = "ended IS NULL OR has_session = 1";
    const sql = `SELECT record, head, ${resultCount} FROM runs WHERE ${isLive}`;
    return this.#database.all<StoredRun>(sql).map(runOf);
  }

  run(run: number): RunRow | undefined {
    const sql = `SELECT record, head, ${resultCount} FROM runs WHERE run = ?`;
    const row = this.#database.one<StoredRun>(sql, run);
    return row === undefined ? undefined : runOf(row);
  }

  /** The newest first, of a lower number than `before`. */
  listRuns(wanted: RunFilter & { readonly before: number; readonly limit: number }): Run[] {
    const { where, values } = filterOf(wanted);
    const sql = `SELECT record FROM runs WHERE run < ? ${where} ORDER BY run DESC LIMIT ?`;
    const rows = this.#database.all<{ record: string }>(
      sql,
      wanted.before,
      ...values,
      wanted.limit,
    );
    return rows.map(({ record }) => JSON.parse(record) as Run);
  }

  countRuns(wanted: RunFilter): number {
    const { where, values } = filterOf(wanted);
    const sql = `SELECT count(*) AS n FROM runs WHERE 1 ${where}`;
    return this.#database.one<{ n: number }>(sql, ...values)?.n ?? 0;
  }

  saveRun(run: Run, head: string): void {
    const record = JSON.stringify(run);
    this.#database.run(
      `INSERT INTO runs (run, mac, spec, revision, ended, has_session, record, head, bytes)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (run) DO UPDATE SET ended = excluded.ended,
        has_session = excluded.has_session, record = excluded.record, head = excluded.head`,
      ...[run.run, run.mac, run.spec, run.specRevision, run.endedAt],
      ...[run.session === null ? 0 : 1, record, head],
    );
  }

  addResult(run: number, place: number, result: KeptResult): void {
    const record = JSON.stringify(result);
    this.#database.run("INSERT INTO results VALUES (?, ?, ?)", run, place, record);
    this.#grow(run, record.length);
  }

  setRules(run: number, rules: readonly RuleFinding[]): void {
    const findings = JSON.stringify(rules);
    this.#database.run("INSERT OR REPLACE INTO rules VALUES (?, ?)", run, findings);
    this.#grow(run, findings.length);
  }

  addEvent(run: number, event: RunEvent): void {
    const record = JSON.stringify(event);
    this.#database.run("INSERT INTO events VALUES (?, ?, ?)", run, event.sequence, record);
    this.#grow(run, record.length);
  }

  results(run: number): KeptResult[] {
    const sql = "SELECT record FROM results WHERE run = ? ORDER BY place";
    return this.#records<KeptResult>(sql, run);
  }

  rules(run: number): RuleFinding[] {
    const sql = "SELECT findings FROM rules WHERE run = ?";
    const row = this.#database.one<{ findings: string }>(sql, run);
    return row === undefined ? [] : (JSON.parse(row.findings) as RuleFinding[]);
  }

  events(run: number): RunEvent[] {
    return this.#records<RunEvent>(
      "SELECT record FROM events WHERE run = ? ORDER BY sequence",
      run,
    );
  }

  /** Those that were not there before. */
  addLines(
    run: number,
    instance: string,
    told: { readonly taken: Milliseconds; readonly lines: readonly LogLine[] },
  ): void {
    let bytes = 0;
    for (const line of told.lines) {
      const text = JSON.stringify(line);
      const added = this.#database.run(
        `INSERT OR IGNORE INTO log (run, instance, sequence, taken, stage, line)
          VALUES (?, ?, ?, ?, ?, ?)`,
        ...[run, instance, line.sequence, told.taken, line.stage, text],
      );
      if (added > 0) bytes += text.length;
    }
    if (bytes === 0) return;
    this.#database.run("UPDATE runs SET log_bytes = log_bytes + ? WHERE run = ?", bytes, run);
    this.#addTotal("vetting-logs", bytes);
    this.#trimLog(run);
  }

  #trimLog(run: number): void {
    const sql = "SELECT log_bytes AS n FROM runs WHERE run = ?";
    const { n: bytes = 0 } = this.#database.one<{ n: number }>(sql, run) ?? {};
    if (bytes > recordLimits.runLog) this.#removeLines("WHERE run = ? ORDER BY id", [run]);
  }

  /** Lines after an id, in the order in which they came. */
  lines(
    run: number,
    wanted: { readonly after: number; readonly stage: Stage | undefined; readonly limit: number },
  ): { readonly id: number; readonly line: LogLine }[] {
    const { after, stage, limit } = wanted;
    const where = stage === undefined ? "" : "AND stage = ?";
    const sql = `SELECT id, line FROM log WHERE run = ? AND id > ? ${where} ORDER BY id LIMIT ?`;
    const values = [run, after, ...(stage === undefined ? [] : [stage]), limit];
    const rows = this.#database.all<{ id: number; line: string }>(sql, ...values);
    return rows.map(({ id, line }) => ({ id, line: JSON.parse(line) as LogLine }));
  }

  lastLines(run: number, limit: number): LogLine[] {
    const sql = "SELECT line FROM log WHERE run = ? ORDER BY id DESC LIMIT ?";
    const rows = this.#database.all<{ line: string }>(sql, run, limit);
    return rows.map(({ line }) => JSON.parse(line) as LogLine).reverse();
  }

  /**
   * Those whose turn it is: a run that goes on for long is told more coarsely, and all of it. The
   * run's own row is written once for all of them, because each write is of the whole row.
   */
  addReadings(
    run: number,
    instance: string,
    told: readonly { readonly sequence: number; readonly reading: KeptReading }[],
  ): void {
    let rest = told;
    while (rest.length > 0) rest = this.#addReadings(run, instance, rest);
  }

  /** @returns those that are to be looked at by a coarser turn */
  #addReadings<Told extends { readonly sequence: number; readonly reading: KeptReading }>(
    run: number,
    instance: string,
    told: readonly Told[],
  ): readonly Told[] {
    const sql = "SELECT sensor_every AS every, sensor_count AS count FROM runs WHERE run = ?";
    const row = this.#database.one<{ every: number; count: number }>(sql, run);
    if (row === undefined) return [];
    const room = Math.max(0, recordLimits.readings - row.count);
    let [bytes, kept, looked] = [0, 0, 0];
    for (const { sequence, reading } of told) {
      if (kept > room) break;
      looked += 1;
      if (sequence % row.every !== 0) continue;
      const text = JSON.stringify(reading);
      const added = this.#database.run(
        `INSERT OR IGNORE INTO sensors (run, instance, sequence, taken, reading)
          VALUES (?, ?, ?, ?, ?)`,
        ...[run, instance, sequence, reading.at, text],
      );
      if (added === 0) continue;
      kept += 1;
      bytes += text.length;
    }
    if (kept === 0) return [];
    this.#addTotal("vetting-sensors", bytes);
    this.#database.run("UPDATE runs SET sensor_count = sensor_count + ? WHERE run = ?", kept, run);
    if (kept > room) this.#thin(run, 2 * row.every);
    return told.slice(looked);
  }

  #thin(run: number, every: number): void {
    const gone =
      "run = ? AND id IN (SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS " +
      "place FROM sensors WHERE run = ?) WHERE place % 2 = 0)";
    const sum = `SELECT coalesce(sum(length(reading)), 0) AS n FROM sensors WHERE ${gone}`;
    const { n = 0 } = this.#database.one<{ n: number }>(sum, run, run) ?? {};
    const removed = this.#database.run(`DELETE FROM sensors WHERE ${gone}`, run, run);
    this.#addTotal("vetting-sensors", -n);
    this.#database.run(
      "UPDATE runs SET sensor_every = ?, sensor_count = sensor_count - ? WHERE run = ?",
      ...[every, removed, run],
    );
  }

  readings(run: number): KeptReading[] {
    const sql = "SELECT reading AS record FROM sensors WHERE run = ? ORDER BY taken, id";
    return this.#records<KeptReading>(sql, run);
  }

  total(name: KeptName): Bytes {
    const sql = "SELECT bytes FROM totals WHERE name = ?";
    return this.#database.one<{ bytes: number }>(sql, name)?.bytes ?? 0;
  }

  /** @returns whether something went: there may be more */
  forgetLines(before: Milliseconds | undefined): boolean {
    const [where, values] = before === undefined ? ["", []] : ["WHERE taken < ?", [before]];
    return this.#removeLines(`${where} ORDER BY id`, values);
  }

  #removeLines(filter: string, values: readonly SqlValue[]): boolean {
    const ids = `SELECT id FROM log ${filter} LIMIT ${recordLimits.atOnce}`;
    interface Row {
      run: number;
      bytes: number;
    }
    const which = `WHERE id IN (${ids})`;
    const sums = `SELECT run, sum(length(line)) AS bytes FROM log ${which} GROUP BY run`;
    for (const { run, bytes } of this.#database.all<Row>(sums, ...values)) {
      this.#database.run("UPDATE runs SET log_bytes = log_bytes - ? WHERE run = ?", bytes, run);
      this.#addTotal("vetting-logs", -bytes);
    }
    return this.#database.run(`DELETE FROM log ${which}`, ...values) > 0;
  }

  /** @returns whether something went */
  forgetReadings(before: Milliseconds | undefined): boolean {
    const [where, values] = before === undefined ? ["", []] : ["WHERE taken < ?", [before]];
    const ids = `SELECT id FROM sensors ${where} ORDER BY id LIMIT ${recordLimits.atOnce}`;
    interface Row {
      run: number;
      bytes: number;
      n: number;
    }
    const sums =
      "SELECT run, count(*) AS n, sum(length(reading)) AS bytes FROM sensors " +
      `WHERE id IN (${ids}) GROUP BY run`;
    for (const { run, bytes, n } of this.#database.all<Row>(sums, ...values)) {
      this.#database.run("UPDATE runs SET sensor_count = sensor_count - ? WHERE run = ?", n, run);
      this.#addTotal("vetting-sensors", -bytes);
    }
    return this.#database.run(`DELETE FROM sensors WHERE id IN (${ids})`, ...values) > 0;
  }

  /** The oldest runs that have ended, with all that is kept of them. @returns their numbers */
  forgetRuns(wanted: {
    readonly before: Milliseconds | undefined;
    readonly limit: number;
  }): number[] {
    const { before = Number.MAX_SAFE_INTEGER, limit } = wanted;
    const rows = this.#database.all<{ run: number; bytes: number }>(
      `SELECT run, bytes FROM runs WHERE ended IS NOT NULL AND ended < ? AND has_session = 0
        ORDER BY ended LIMIT ?`,
      ...[before, limit],
    );
    for (const { run, bytes } of rows) {
      while (this.#removeLines("WHERE run = ? ORDER BY id", [run])) {
        // One piece after the other.
      }
      const sum = "SELECT coalesce(sum(length(reading)), 0) AS n FROM sensors WHERE run = ?";
      this.#addTotal("vetting-sensors", -(this.#database.one<{ n: number }>(sum, run)?.n ?? 0));
      for (const table of ["sensors", "events", "rules", "results", "runs"]) {
        this.#database.run(`DELETE FROM ${table} WHERE run = ?`, run);
      }
      this.#addTotal("vetting-runs", -bytes);
    }
    return rows.map(({ run }) => run);
  }

  giveBack(): void {
    this.#database.giveBack();
  }

  #grow(run: number, bytes: Bytes): void {
    this.#database.run("UPDATE runs SET bytes = bytes + ? WHERE run = ?", bytes, run);
    this.#addTotal("vetting-runs", bytes);
  }

  #addTotal(name: KeptName, bytes: Bytes): void {
    this.#database.run(
      `INSERT INTO totals VALUES (?, ?)
        ON CONFLICT (name) DO UPDATE SET bytes = max(0, bytes + excluded.bytes)`,
      ...[name, bytes],
    );
  }

  #records<Value>(sql: string, run: number): Value[] {
    const rows = this.#database.all<{ record: string }>(sql, run);
    return rows.map(({ record }) => JSON.parse(record) as Value);
  }
}

export interface RunFilter {
  readonly mac?: string | undefined;
  readonly spec?: string | undefined;
  readonly isOpen?: boolean | undefined;
}

function filterOf({ mac, spec, isOpen }: RunFilter) {
  const parts = [
    ...(mac === undefined ? [] : ["AND mac = ?"]),
    ...(spec === undefined ? [] : ["AND spec = ?"]),
    ...(isOpen === undefined ? [] : [`AND ended IS ${isOpen ? "NULL" : "NOT NULL"}`]),
  ];
  const values = [mac, spec].filter((value) => value !== undefined);
  return { where: parts.join(" "), values };
}

interface SpecRow {
  readonly name: string;
  readonly revision: number;
  readonly content: string;
  readonly changed: string;
}

function specOf({ name, revision, content, changed }: SpecRow): SpecRecord {
  return { name, revision, content: JSON.parse(content) as Spec, changed };
}

function runOf({ record, head, results }: StoredRun): RunRow {
  return { run: JSON.parse(record) as Run, head, results };
}
