/** A backup of hosts, specs and runs, and what is put in its place. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import {
  backUpDatabase,
  finishRestore,
  prepareRestore,
} from "../../../src/vetting/orchestrator/backup.ts";
import { VettingDatabase } from "../../../src/vetting/orchestrator/database.ts";
import { VettingRecords } from "../../../src/vetting/orchestrator/records.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { RunWorld } from "../../support/vetting-orchestrator/runs.ts";

const TIME = "2026-01-01T00:00:00.000Z";

/** @returns the number that the run was given */
function addRun(path: string): number {
  using database = VettingDatabase.open(path);
  const records = new VettingRecords(database);
  const { run } = new RunWorld();
  let number = 0;
  records.transaction(() => {
    number = records.lastRun() + 1;
    records.saveRun({ ...run, run: number }, "head");
  });
  return number;
}

describe("a restore", () => {
  test("of a backup from before the first run gives no number again", async () => {
    using folder = temporaryFolder();
    const [path, file] = [folder.file("vetting.db"), folder.file("backup")];
    VettingDatabase.open(path)[Symbol.dispose]();
    await backUpDatabase(path, file);
    const last = Math.max(addRun(path), addRun(path));
    expect(prepareRestore(file, path, TIME)).toBe(0);
    finishRestore(path);
    expect(addRun(path)).toBeGreaterThan(last);
  });

  test("keeps each database that it replaces, with what is not in its file yet", async () => {
    using folder = temporaryFolder();
    const [path, file] = [folder.file("vetting.db"), folder.file("backup")];
    VettingDatabase.open(path)[Symbol.dispose]();
    await backUpDatabase(path, file);
    for (const suffix of ["", "-2"]) {
      prepareRestore(file, path, TIME);
      writeFileSync(`${path}-wal`, `not in it${suffix}`);
      const keptAs = finishRestore(path) ?? "";
      expect(keptAs).toBe(`${path}.before-restore${suffix}`);
      expect(readFileSync(`${keptAs}-wal`, "utf8")).toBe(`not in it${suffix}`);
      expect(existsSync(`${path}-wal`)).toBe(false);
    }
  });

  test("that was killed while it kept the one before is ended by the next", async () => {
    using folder = temporaryFolder();
    const [path, file] = [folder.file("vetting.db"), folder.file("backup")];
    VettingDatabase.open(path)[Symbol.dispose]();
    await backUpDatabase(path, file);
    writeFileSync(`${path}.before-restore-wal`, "of the one that was killed");
    prepareRestore(file, path, TIME);
    expect(finishRestore(path)).toBe(`${path}.before-restore`);
    using kept = VettingDatabase.open(`${path}.before-restore`);
    expect(kept.all("SELECT run FROM runs")).toEqual([]);
  });

  test("over the most that are kept is refused before anything is replaced", async () => {
    using folder = temporaryFolder();
    const [path, file] = [folder.file("vetting.db"), folder.file("backup")];
    VettingDatabase.open(path)[Symbol.dispose]();
    await backUpDatabase(path, file);
    for (const number of ["", "-2", "-3", "-4", "-5", "-6", "-7", "-8"]) {
      writeFileSync(`${path}.before-restore${number}`, "kept");
    }
    const before = addRun(path);
    const restoring = () => prepareRestore(file, path, TIME);
    expect(restoring).toThrow("Move away those");
    expect(addRun(path)).toBe(before + 1);
  });
});
