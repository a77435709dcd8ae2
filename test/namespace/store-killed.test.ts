/** The store killed (SIGKILL) between any two of its steps: what was acknowledged is there. */
import { Database as Sqlite } from "bun:sqlite";
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from "bun:test";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { Database } from "../../src/store/database.ts";
import { type StoreStep, storeSteps } from "../../src/store/kill-points.ts";
import { verifyBackup } from "../../src/store/verify.ts";
import { hostler } from "../support/binary.ts";
import { openStore, putOne } from "../support/embedded-store.ts";
import { type ProgramResult, startProgram } from "../support/program.ts";
import { WatchReader } from "../support/store-conformance.ts";
import { buildStory } from "../support/story.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(60_000);

let programs: TemporaryFolder;
let story: string;
let folder: TemporaryFolder;
let place: string;
let backup: string;

beforeAll(async () => {
  programs = temporaryFolder();
  story = await buildStory(programs, "store-story.ts", { external: ["bun:test"] });
});
afterAll(() => programs[Symbol.dispose]());
beforeEach(() => {
  folder = temporaryFolder();
  place = folder.file("store");
  backup = folder.file("backup");
});
afterEach(() => folder[Symbol.dispose]());

/** Runs an act of the story with the compiled file, killed at a step. */
async function perform(act: string, killAt?: string): Promise<ProgramResult> {
  const environment: Record<string, string> = { BUN_BE_BUN: "1" };
  if (killAt !== undefined) environment["HOSTLER_KILL_AT"] = `store:${killAt}`;
  await using program = startProgram([hostler(), "run", story, act, place, backup], {
    environment,
  });
  const result = await program.ended();
  if (killAt === undefined && result.exitCode !== 0) throw new Error(result.stderr);
  return result;
}

async function killedIn(act: string, step: StoreStep, pass = 1): Promise<ProgramResult> {
  const result = await perform(act, `${step}#${pass}`);
  if (result.signal !== "SIGKILL") throw new Error(`Not killed at ${step}: ${result.stderr}`);
  expect(result.stdout).not.toContain("DONE");
  return result;
}

/** All that was acknowledged is there, and nothing that was spent can be spent. */
async function expectKept(...results: readonly ProgramResult[]): Promise<void> {
  await using store = openStore(place);
  const text = results.map(({ stdout }) => stdout).join("");
  let highest = 0;
  for (const [, key = "", revision] of text.matchAll(/^PUT (\S+) (\d+)$/gm)) {
    expect(await store.get("facts", key)).toMatchObject({ revision: Number(revision), value: key });
    highest = Math.max(highest, Number(revision));
  }
  for (const [, id = ""] of text.matchAll(/^SPENT (\S+)$/gm)) {
    const spending = { kind: "token", id, issued: store.revision };
    expect(await store.ledger.spend(spending)).toBe(false);
  }
  expect(await putOne(store, "facts", "later", "1")).toBeGreaterThan(highest);
}

describe("killed while it is made", () => {
  for (const step of storeSteps.create) {
    test(step, async () => {
      await killedIn("write", step);
      await expectKept(await perform("write"));
    });
  }
});

describe("killed while it writes", () => {
  for (const step of [...storeSteps.commit, ...storeSteps.spend, ...storeSteps.reserve]) {
    for (const pass of step === "reserve:promised" ? [1] : [1, 4]) {
      test(`${step}, pass ${pass}`, async () => {
        const first = await perform("write");
        const killed = await killedIn("write", step, pass);
        await expectKept(first, killed, await perform("write"));
      });
    }
  }

  test("at any moment, again and again", async () => {
    const results: ProgramResult[] = [];
    for (let round = 1; round <= 10; round += 1) {
      await using program = startProgram([hostler(), "run", story, "endless", place], {
        environment: { BUN_BE_BUN: "1" },
      });
      await program.said(new RegExp(`SPENT t\\.\\w+\\.${round * 3}\\n`));
      program.kill("SIGKILL");
      results.push(await program.ended());
    }
    expect(results.every(({ signal }) => signal === "SIGKILL")).toBe(true);
    await expectKept(...results);
  });
});

test("killed while the ledger is written anew", async () => {
  const killed = await killedIn("compact", "compact:written");
  await expectKept(killed);
});

describe("killed while its format is raised", () => {
  for (const step of storeSteps.upgrade) {
    test(step, async () => {
      await perform("write");
      // Taken back to format 1, as an older hostler would have made it.
      {
        using database = new Sqlite(`${place}/store.db`);
        database.run("ALTER TABLE entries DROP COLUMN checksum");
        database.run("PRAGMA user_version = 1");
      }
      const before = await contents();
      await killedIn("upgrade", step);
      expect(await contents()).toEqual(before);
      await perform("upgrade");
      using database = Database.open(`${place}/store.db`);
      expect(database.format).toBe(2);
      database.check();
    });
  }
});

/** The values of all facts. */
async function contents(): Promise<[string, string][]> {
  await using store = openStore(place);
  await using watch = new WatchReader(store, "facts", "");
  return [...(await watch.synced()).values].toSorted();
}

describe("killed while it makes a backup", () => {
  for (const step of storeSteps.backup) {
    test(step, async () => {
      const written = await perform("write");
      await killedIn("backup", step);
      // Either whole, or not there.
      expect(existsSync(backup)).toBe(step === "backup:linked");
      if (existsSync(backup)) expect(verifyBackup(backup).entries).toBe(100);
      rmSync(backup, { force: true });
      await perform("backup");
      expect(verifyBackup(backup).entries).toBe(100);
      await expectKept(written);
    });
  }
});

describe("killed while it is restored", () => {
  const decided = storeSteps.restore.indexOf("restore:intended");
  for (const [index, step] of storeSteps.restore.entries()) {
    for (const act of ["restore", "restore-without-ledger"]) {
      const isFenced = act !== "restore";
      test(`${act}: ${step}`, async () => {
        const before = await perform("write");
        await perform("backup");
        const after = await perform("write");
        if (isFenced) rmSync(`${place}/spent.log`);
        // So that there is a log to be put aside.
        if (!isFenced) await killedIn("write", "commit:acknowledged");
        await killedIn(act, step);
        const isRestored = index >= decided;
        if (isFenced && !isRestored) {
          // Nothing was decided: the ledger is missing still, and the store says so.
          expect(() => openStore(place)).toThrow("--without-ledger");
          await perform(act);
        }
        await expectRestored({ before, after, isRestored: isRestored || isFenced });
        await perform(act);
        await expectRestored({ before, after, isRestored: true });
      });
    }
  }
});

/** Either the store as it was, or the restored one; in both nothing is given or spent again. */
async function expectRestored(expected: {
  readonly before: ProgramResult;
  readonly after: ProgramResult;
  readonly isRestored: boolean;
}): Promise<void> {
  await using store = openStore(place);
  const { before, after, isRestored } = expected;
  const text = before.stdout + after.stdout;
  const issued = JSON.parse(readFileSync(`${place}/incarnation.json`, "utf8")).first as number;
  let highest = 0;
  for (const [, key = "", revision] of text.matchAll(/^PUT (\S+) (\d+)$/gm)) {
    const isThere = !isRestored || before.stdout.includes(`PUT ${key} `);
    expect([key, (await store.get("facts", key)) !== undefined]).toEqual([key, isThere]);
    highest = Math.max(highest, Number(revision));
  }
  for (const [, id = ""] of text.matchAll(/^SPENT (\S+)$/gm)) {
    // Issued before the restore, as all of them were.
    expect(store.ledger.isSpent({ kind: "token", id, issued: issued - 1 })).toBe(true);
  }
  expect(await putOne(store, "records", "later", "1")).toBeGreaterThan(highest);
}
