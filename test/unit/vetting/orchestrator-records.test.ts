/** What an orchestrator keeps: batches, bounds, thinned readings, and who follows what happens. */

import { Database } from "bun:sqlite";
import { describe, expect, test } from "bun:test";
import { ProblemError } from "../../../src/http/problem.ts";
import { BatchWriter, LATER } from "../../../src/vetting/orchestrator/batch.ts";
import { VettingDatabase } from "../../../src/vetting/orchestrator/database.ts";
import { lastOf, seriesOf } from "../../../src/vetting/orchestrator/dossier.ts";
import { LiveEventBook } from "../../../src/vetting/orchestrator/event-book.ts";
import { recordLimits, VettingRecords } from "../../../src/vetting/orchestrator/records.ts";
import { tendRecords, vettingBuckets } from "../../../src/vetting/orchestrator/retention.ts";
import type { LiveEvent } from "../../../src/vetting/protocol-operator.ts";
import { falseTimers } from "../../support/false-timers.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { exampleSpec, RunWorld } from "../../support/vetting-orchestrator/runs.ts";
import { rejectionOf } from "../../support/wait-for.ts";

const HOUR = 3_600_000;

function opened(folder: { file(name: string): string }) {
  const database = VettingDatabase.open(folder.file("vetting/vetting.db"));
  return { database, records: new VettingRecords(database) };
}

/** A run that ended then, and has no session any more. */
function save(records: VettingRecords, number: number, endedAt: number | null): void {
  const world = new RunWorld();
  const run = { ...world.run, run: number, endedAt, ended: endedAt === null ? null : "then" };
  records.transaction(() => records.saveRun(run, "head"));
}

const lineOf = (sequence: number, text = "line") => ({
  ...{ sequence, time: "2026-01-01T00:00:00.000Z", level: "info" as const, stage: null, text },
});

describe("a batch", () => {
  const make = (transaction: (act: () => void) => void) => {
    const timers = falseTimers();
    const told: LiveEvent[] = [];
    const batch = new BatchWriter({
      transaction,
      wakeAfter: (wait, call) => timers.loop.wakeAfter(wait, call),
      onTold: (events) => told.push(...events),
      onTrouble: () => {},
    });
    return { batch, timers, told };
  };

  test("is written as one, and answered when it is", async () => {
    let transactions = 0;
    const { batch, timers } = make((act) => {
      transactions += 1;
      act();
    });
    const written: number[] = [];
    const waiting = [1, 2, 3].map((number) =>
      batch.add({ write: () => written.push(number), undo: () => written.push(-number) }),
    );
    expect(written).toEqual([]);
    timers.advance(10);
    await Promise.all(waiting);
    expect([written, transactions]).toEqual([[1, 2, 3], 1]);
  });

  test("one that could not be written is taken back, the last change first", async () => {
    const { batch, timers, told } = make(() => {
      throw Object.assign(new Error("database or disk is full"), { code: "SQLITE_FULL" });
    });
    const undone: number[] = [];
    const waiting = [1, 2].map((number) =>
      batch.add({ write: () => {}, undo: () => undone.push(number), tell: () => [] }),
    );
    timers.advance(10);
    const refused = await rejectionOf(waiting[0] as Promise<void>);
    expect(refused).toBeInstanceOf(ProblemError);
    expect((refused as ProblemError).problem).toMatchObject({ status: 507 });
    expect([undone, told]).toEqual([[2, 1], []]);
  });

  test("what nobody waits for is written with the next that somebody does", async () => {
    const { batch, timers } = make((act) => act());
    const written: string[] = [];
    const change = { write: () => written.push("later"), undo: () => {} };
    const waiting = batch.add(change, LATER);
    timers.advance(LATER - 1);
    expect(written).toEqual([]);
    const soon = batch.add({ write: () => {}, undo: () => {} });
    timers.advance(10);
    await Promise.all([waiting, soon]);
    expect(written).toEqual(["later"]);
  });
});

describe("records", () => {
  test("a line that comes twice is kept once; another process's is another one", () => {
    using folder = temporaryFolder();
    const { database, records } = opened(folder);
    save(records, 1, null);
    records.transaction(() => {
      records.addLines(1, "a", { taken: 1, lines: [lineOf(1), lineOf(2)] });
      records.addLines(1, "a", { taken: 2, lines: [lineOf(2), lineOf(3)] });
      records.addLines(1, "b", { taken: 3, lines: [lineOf(1)] });
    });
    expect(records.lastLines(1, 10).map(({ sequence }) => sequence)).toEqual([1, 2, 3, 1]);
    const [first] = records.lines(1, { after: 0, stage: undefined, limit: 1 });
    const rest = records.lines(1, { after: first?.id ?? 0, stage: undefined, limit: 10 });
    expect(rest.map(({ line }) => line.sequence)).toEqual([2, 3, 1]);
    database[Symbol.dispose]();
  });

  /** What is kept of so many readings that are told so many at a time. */
  function keptOf(many: number, atOnce: number) {
    using folder = temporaryFolder();
    const { database, records } = opened(folder);
    save(records, 1, null);
    const readings = Array.from({ length: many }, (_one, sequence) => {
      return { sequence, reading: { at: sequence, sensors: [], errors: {} } };
    });
    records.transaction(() => {
      for (let next = 0; next < many; next += atOnce) {
        records.addReadings(1, "a", readings.slice(next, next + atOnce));
      }
    });
    const kept = records.readings(1).map(({ at }) => at);
    const total = records.total("vetting-sensors");
    database[Symbol.dispose]();
    return { kept, total };
  }

  test("a run that goes on for long is told more coarsely, and all of it", () => {
    const many = 3 * recordLimits.readings;
    const { kept } = keptOf(many, 1);
    expect(kept.length).toBeLessThanOrEqual(recordLimits.readings);
    expect(kept.length).toBeGreaterThan(recordLimits.readings / 3);
    expect(kept[0]).toBe(0);
    expect(many - (kept.at(-1) ?? 0)).toBeLessThanOrEqual(8);
  });

  test.each([5, 64, 3 * recordLimits.readings])("and so are %i that come at once", (atOnce) => {
    const many = 3 * recordLimits.readings;
    expect(keptOf(many, atOnce)).toEqual(keptOf(many, 1));
  });

  test("a reading that comes twice is kept once", () => {
    using folder = temporaryFolder();
    const { database, records } = opened(folder);
    save(records, 1, null);
    const of = (sequence: number) => {
      return { sequence, reading: { at: sequence, sensors: [], errors: {} } };
    };
    records.transaction(() => {
      records.addReadings(1, "a", [of(1), of(2)]);
      records.addReadings(1, "a", [of(2), of(3)]);
    });
    expect(records.readings(1).map(({ at }) => at)).toEqual([1, 2, 3]);
    database[Symbol.dispose]();
  });

  test("over a bound of age or size the oldest goes; an open run never does", async () => {
    using folder = temporaryFolder();
    const { database, records } = opened(folder);
    save(records, 1, 1_000);
    save(records, 2, 2 * HOUR);
    save(records, 3, null);
    records.transaction(() => {
      for (const run of [1, 2, 3]) {
        records.addLines(run, "a", { taken: run * HOUR, lines: [lineOf(1, "x".repeat(1_000))] });
      }
    });
    const bounds = (name: string, age: number, size: number) =>
      vettingBuckets.map((one) => (one.name === name ? { ...one, age, size } : one));
    const now = 3 * HOUR;
    await tendRecords(records, { bounds: bounds("vetting-logs", HOUR * 1.5, 1e9), now });
    expect([1, 2, 3].map((run) => records.lastLines(run, 9).length)).toEqual([0, 1, 1]);
    await tendRecords(records, { bounds: bounds("vetting-logs", 9 * HOUR, 1_500), now });
    expect(records.total("vetting-logs")).toBeLessThanOrEqual(1_500);
    await tendRecords(records, { bounds: bounds("vetting-runs", HOUR * 2.5, 1e9), now });
    expect([1, 2, 3].map((run) => records.run(run)?.run.run)).toEqual([undefined, 2, 3]);
    await tendRecords(records, { bounds: bounds("vetting-runs", 0, 0), now });
    expect(records.countRuns({})).toBe(1);
    expect(records.lastRun()).toBe(3);
    database[Symbol.dispose]();
  });

  test("revisions beyond those that are kept go, but those that runs were held to", () => {
    using folder = temporaryFolder();
    const { database, records } = opened(folder);
    records.transaction(() => {
      for (let revision = 1; revision <= 5; revision += 1) {
        const spec = { name: "rack", revision, content: exampleSpec, changed: "now" };
        records.addSpec(spec, 2);
        if (revision === 1) records.saveRun(new RunWorld().run, "head");
      }
    });
    const kept = [1, 2, 3, 4, 5].filter((revision) => records.spec("rack", revision));
    expect(kept).toEqual([1, 4, 5]);
    records.transaction(() => records.removeSpec("rack"));
    expect(records.specs()).toEqual([]);
    expect(records.lastRevision("rack")).toBe(5);
    database[Symbol.dispose]();
  });

  test("a newer version, and another program's database, are refused", () => {
    using folder = temporaryFolder();
    opened(folder).database[Symbol.dispose]();
    const path = folder.file("vetting/vetting.db");
    const change = (sql: string) => {
      const sqlite = new Database(path);
      sqlite.run(sql);
      sqlite.close();
    };
    change("PRAGMA user_version = 99");
    expect(() => VettingDatabase.open(path)).toThrow("It is a newer hostler's");
    change("PRAGMA user_version = 1");
    change("PRAGMA application_id = 7");
    expect(() => VettingDatabase.open(path)).toThrow("expected a database of vetting");
  });
});

describe("a dossier", () => {
  test("has so many points at most, over all of the time", () => {
    const readings = Array.from({ length: 100 }, (_one, at) => ({
      ...{ at, errors: { carrier: 0 } },
      sensors: [["temperature", "core 0", 40, null] as const],
    }));
    const points = (most: number) => seriesOf(readings, most).map((one) => one.points.length);
    expect(points(200)).toEqual([100, 100]);
    expect(points(100)).toEqual([50, 50]);
    expect(points(99)).toEqual([34, 34]);
  });

  test("has the last lines of a log that is too long", () => {
    const lines = [1, 2, 3, 4].map((sequence) => lineOf(sequence, "x".repeat(10)));
    expect(lastOf(lines, 40).map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4]);
    expect(lastOf(lines, 39).map(({ sequence }) => sequence)).toEqual([2, 3, 4]);
    expect(lastOf(lines, 0)).toEqual([]);
  });
});

describe("who follows", () => {
  const eventOf = (run: number): LiveEvent => ({ kind: "log", run, lines: [] });
  const first = (): LiveEvent[] => [eventOf(99)];

  async function take(
    book: LiveEventBook,
    after: string | undefined,
    count: number,
  ): Promise<{ ids: string[]; runs: number[] }> {
    const [ids, runs]: [string[], number[]] = [[], []];
    const { signal } = new AbortController();
    const isWanted = () => true;
    for await (const { id, event } of book.follow(after, { signal, isWanted, now: first })) {
      ids.push(id);
      if (event.kind === "log") runs.push(event.run);
      if (runs.length === count) break;
    }
    return { ids, runs };
  }

  test("begins with what is, and goes on after the id that was seen", async () => {
    const book = new LiveEventBook("process");
    book.add([eventOf(1)]);
    const waiting = take(book, undefined, 3);
    book.add([eventOf(2), eventOf(3)]);
    const { ids, runs } = await waiting;
    expect(runs.slice(0, 1)).toEqual([99]);
    book.add([eventOf(4)]);
    expect((await take(book, ids[1], 2)).runs).toEqual([3, 4]);
  });

  test("of another process, or behind what is kept, is told what is anew", async () => {
    const book = new LiveEventBook("process", { events: 2, characters: 1_000_000 });
    book.add([1, 2, 3, 4, 5].map(eventOf));
    expect((await take(book, "other-3", 1)).runs).toEqual([99]);
    expect((await take(book, "process-1", 1)).runs).toEqual([99]);
    expect((await take(book, "process-3", 2)).runs).toEqual([4, 5]);
    expect((await take(book, "process-7", 1)).runs).toEqual([99]);
  });

  test("what is kept has a bound of its size as well", async () => {
    const book = new LiveEventBook("process", { events: 100, characters: 200 });
    book.add([1, 2, 3, 4, 5].map(eventOf));
    expect((await take(book, "process-1", 1)).runs).toEqual([99]);
    expect((await take(book, "process-4", 1)).runs).toEqual([5]);
  });
});
