/** What an upgrade orders, done on a real disk; candidates and downloads are stood in for. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type CandidateOutcome,
  type CandidateStart,
  type Executor,
  ExecutorRefused,
  unknownEnding,
} from "../../src/fleet/executor.ts";
import { folderOf, linked } from "../../src/fleet/layout.ts";
import { decodeJournal, type Journal } from "../../src/fleet/lifecycle-journal.ts";
import type { AgentEffect, AgentEvent } from "../../src/fleet/lifecycle-state.ts";
import { programOf, readLayout } from "../../src/fleet/perform/layout-files.ts";
import { type ArtifactSeam, HostPerformer } from "../../src/fleet/perform/performer.ts";
import type { Build, LastWords } from "../../src/fleet/protocol.ts";
import { instanceOf, makeMarker, oldBuild } from "../support/fleet-agent/life.ts";
import { storeScript } from "../support/fleet-installation.ts";
import { buildOf } from "../support/fleet-swapped.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(30_000);

const words: LastWords = { ...unknownEnding, ending: "exited with 3", log: "why\n" };
const passes = '{"ok":true,"checks":[]}';

/** One that does what the test says, and notes what it is asked. */
class StoodInExecutor implements Executor {
  readonly kind = "systemd";
  readonly asked: string[] = [];
  readonly starts: CandidateStart[] = [];
  outcome: CandidateOutcome | Error = { kind: "ready" };
  end = Promise.withResolvers<LastWords>();
  proof = { code: 0, output: passes, said: "" };

  async startCandidate(start: CandidateStart): Promise<CandidateOutcome> {
    this.asked.push("start");
    this.starts.push(start);
    if (this.outcome instanceof Error) throw this.outcome;
    return this.outcome;
  }

  async findCandidate(): Promise<boolean> {
    return true;
  }

  candidateEnd(): Promise<LastWords> {
    return this.end.promise;
  }

  async stopCandidate(): Promise<LastWords> {
    this.asked.push("stop");
    this.end.resolve(words);
    return words;
  }

  async restartCanonical(): Promise<void> {
    this.asked.push("restart");
    if (this.outcome instanceof Error) throw this.outcome;
  }

  async runConfined(argv: readonly string[]) {
    this.asked.push(argv.slice(1, 3).join(" "));
    return this.proof;
  }
}

let folder: TemporaryFolder;
let place: string;
let executor: StoodInExecutor;
let events: AgentEvent[];
let troubles: string[];
let old: Build;
let next: Build;
let artifacts: ArtifactSeam;
let performer: HostPerformer;

beforeEach(() => {
  folder = temporaryFolder();
  place = folder.file("fleet");
  executor = new StoodInExecutor();
  [events, troubles] = [[], []];
  old = buildOf(place, storeScript(folder, "1.1.0", "echo old"));
  next = buildOf(place, storeScript(folder, "1.2.0", "echo next"));
  symlinkSync(`versions/${folderOf(old)}`, join(place, "current"));
  artifacts = {
    check: async () => ({ floor: "1.0.0", metadataVersion: 4 }),
    fetch: async (_marker, onProgress) => {
      onProgress({ bytes: 1, of_bytes: 2, fetched_bytes: 1, again_bytes: 0 });
    },
    fetchAgain: async () => {
      throw new Error("no source has it");
    },
  };
  performer = new HostPerformer({
    ...{ folder: place, executor },
    artifacts: {
      check: (effect, signal) => artifacts.check(effect, signal),
      fetch: (marker, onProgress, signal) => artifacts.fetch(marker, onProgress, signal),
      fetchAgain: (build, marker, signal) => artifacts.fetchAgain(build, marker, signal),
    },
    candidate: (marker, instance) => ({
      words: ["fleet", "agent", "--candidate", instance],
      environment: { TRANSACTION: marker.transaction },
      readyWithin: 1_000,
    }),
    handOver: (build) => void troubles.push(`hand over to ${build.version}`),
    keep: 0,
    onEvent: (event) => void events.push(event),
    onTrouble: (message) => void troubles.push(message),
  });
});
afterEach(() => folder[Symbol.dispose]());

const marker = () => makeMarker(1, { build: next });
const instance = instanceOf(1);
const program = (build: Build) => programOf(place, folderOf(build));
const leads = (link: "current" | "previous" | "candidate") => linked(readLayout(place), link);

async function told(...effects: AgentEffect[]): Promise<AgentEvent> {
  const before = events.length;
  performer.perform(effects);
  return await waitFor("an event", () => events[before]);
}

describe("before a candidate", () => {
  test("a check says what was believed, and a download how far it is", async () => {
    const check = { kind: "check", ticket: 3, marker: marker() } as const;
    expect(await told({ ...check, floor: null, metadataVersion: 0 })).toEqual({
      ...{ kind: "accepted", ticket: 3, floor: "1.0.0", metadataVersion: 4 },
    });
    performer.perform([{ kind: "fetch", ticket: 4, marker: marker() }]);
    await waitFor("the end of it", () => events.length === 3);
    expect(events.slice(1)).toEqual([
      {
        ...{ kind: "progress", ticket: 4 },
        progress: { bytes: 1, of_bytes: 2, fetched_bytes: 1, again_bytes: 0 },
      },
      { kind: "fetched", ticket: 4 },
    ]);
  });

  test("what is abandoned is told that it is, and answers no more", async () => {
    let signal: AbortSignal | undefined;
    artifacts = {
      ...artifacts,
      fetch: (_marker, _onProgress, given) => {
        signal = given;
        return new Promise((_, reject) =>
          given.addEventListener("abort", () => reject(given.reason)),
        );
      },
    };
    performer.perform([{ kind: "fetch", ticket: 4, marker: marker() }]);
    performer.perform([{ kind: "abandon" }]);
    expect(signal?.aborted).toBe(true);
    // The next one is not touched by it.
    expect(await told({ kind: "prove", ticket: 5, marker: marker() })).toEqual({
      ...{ kind: "proved", ticket: 5 },
    });
    expect(events).toHaveLength(1);
  });

  test("a version proves itself confined; one that fails, or is damaged, has failed", async () => {
    expect(await told({ kind: "prove", ticket: 1, marker: marker() })).toMatchObject({
      kind: "proved",
    });
    expect(executor.asked).toEqual(["--self-test --json"]);
    const checks = [{ check: "process agent", status: "failed", found: "no such function" }];
    executor.proof = { code: 111, output: JSON.stringify({ ok: false, checks }), said: "" };
    expect(await told({ kind: "prove", ticket: 2, marker: marker() })).toMatchObject({
      ...{ kind: "failed", ticket: 2, cause: "artifact" },
      reason: expect.stringContaining("process agent: no such function"),
    });
    executor.proof = { code: 0, output: passes, said: "" };
    writeFileSync(program(next), "damaged");
    expect(await told({ kind: "prove", ticket: 3, marker: marker() })).toMatchObject({
      ...{ kind: "failed", ticket: 3, cause: "artifact" },
    });
    expect(executor.asked).toHaveLength(2);
  });
});

describe("a candidate", () => {
  const start = () =>
    ({ kind: "start-candidate", marker: marker(), instance, endsAfter: 9_000 }) as const;

  test("is linked, so that nobody removes it, started, and its end is told", async () => {
    expect(await told(start())).toEqual({ kind: "candidate-ready", instance });
    expect(leads("candidate")).toBe(folderOf(next));
    expect(leads("current")).toBe(folderOf(old));
    expect(executor.starts).toEqual([
      {
        ...{ instance, program: program(next), endsAfter: 9_000, readyWithin: 1_000 },
        words: ["fleet", "agent", "--candidate", instance],
        environment: { TRANSACTION: marker().transaction },
      },
    ]);
    executor.end.resolve(words);
    await waitFor("its end", () => events.length === 2);
    expect(events[1]).toEqual({ kind: "candidate-ended", instance, lastWords: words });
  });

  test("that is stopped has ended once; before the next one is started", async () => {
    await told(start());
    performer.perform([{ kind: "stop-candidate", instance }, start()]);
    await performer.settled;
    expect(executor.asked).toEqual(["start", "stop", "start"]);
    expect(events.slice(1)).toEqual([
      { kind: "candidate-ended", instance, lastWords: words },
      { kind: "candidate-ready", instance },
    ]);
  });

  test.each([
    ["that ends before it is ready", { kind: "ended", lastWords: words } as const, "exited with 3"],
    ["that is refused", new ExecutorRefused("no systemd"), "no systemd"],
  ])("%s has ended", async (_, outcome, ending) => {
    executor.outcome = outcome;
    expect(await told(start())).toMatchObject({
      ...{ kind: "candidate-ended", instance, lastWords: { ending } },
    });
  });

  test("whose file is damaged is not started", async () => {
    writeFileSync(program(next), "damaged");
    expect(await told(start())).toMatchObject({
      ...{ kind: "candidate-ended", lastWords: { ending: expect.stringContaining("Cannot try") } },
    });
    expect(executor.asked).toEqual([]);
  });

  test("of an earlier agent is told of when it ends, and nobody knows how", async () => {
    performer.perform([{ kind: "find-candidate", instance }]);
    await performer.settled;
    expect(events).toEqual([]);
    executor.end.resolve(unknownEnding);
    await waitFor("its end", () => events.length === 1);
    expect(events).toEqual([{ kind: "candidate-ended", instance, lastWords: null }]);
  });
});

describe("links", () => {
  const swap = () => ({ kind: "swap", ticket: 7, current: next, previous: old }) as const;

  test("are swapped, and swapped back", async () => {
    expect(await told(swap())).toEqual({ kind: "swapped", ticket: 7 });
    expect([leads("current"), leads("previous")]).toEqual([folderOf(next), folderOf(old)]);
    const back = { kind: "swap-back", ticket: 8, current: old, previous: null } as const;
    expect(await told(back)).toEqual({ kind: "swapped", ticket: 8 });
    expect([leads("current"), leads("previous")]).toEqual([folderOf(old), undefined]);
  });

  test.each([
    ["the new one", () => next],
    ["the way back", () => old],
  ])("both files are hashed before: %s is damaged", async (_, damaged) => {
    const hash = { kind: "hash", ticket: 6, build: next, wayBack: old } as const;
    expect(await told(hash)).toEqual({ kind: "intact", ticket: 6 });
    writeFileSync(program(damaged()), "damaged");
    expect(await told(hash)).toMatchObject({
      ...{ kind: "failed", ticket: 6, cause: "artifact" },
      reason: expect.stringContaining(`Cannot use ${folderOf(damaged())}: expected SHA-256`),
    });
  });

  test("stay where the new one is damaged, or no installation is there", async () => {
    writeFileSync(program(next), "damaged");
    expect(await told(swap())).toMatchObject({ kind: "failed", ticket: 7, cause: "artifact" });
    expect(leads("current")).toBe(folderOf(old));
    rmSync(join(place, "layout.json"));
    expect(await told(swap())).toMatchObject({ kind: "failed", ticket: 7, cause: "host" });
  });

  test("a way back that is damaged is fetched again, or it has failed", async () => {
    const find = { kind: "find-way-back", ticket: 9, build: old, marker: marker() } as const;
    expect(await told(find)).toEqual({ kind: "way-back", ticket: 9 });
    const right = readFileSync(program(old));
    writeFileSync(program(old), "damaged");
    expect(await told(find)).toMatchObject({ kind: "failed", reason: "no source has it" });
    artifacts = { ...artifacts, fetchAgain: async () => writeFileSync(program(old), right) };
    expect(await told(find)).toEqual({ kind: "way-back", ticket: 9 });
    artifacts = { ...artifacts, fetchAgain: async () => writeFileSync(program(old), "other") };
    writeFileSync(program(old), "damaged");
    expect(await told(find)).toMatchObject({ kind: "failed", cause: "artifact" });
  });

  test("a restart that is refused has failed", async () => {
    performer.perform([{ kind: "restart-canonical", ticket: 2 }]);
    await performer.settled;
    expect({ asked: executor.asked, events }).toEqual({ asked: ["restart"], events: [] });
    executor.outcome = new ExecutorRefused("no systemd");
    expect(await told({ kind: "restart-canonical", ticket: 3 })).toMatchObject({
      ...{ kind: "failed", ticket: 3, reason: "no systemd", cause: "host" },
    });
  });
});

describe("notes", () => {
  const journal = (): Journal => ({
    ...{ format: 1, step: 5, boot: "11111111-1111-1111-1111-111111111111" },
    ...{ floor: null, metadataVersion: 0, current: next, previous: old, seen: [] },
    life: {
      ...{ phase: "done", transaction: marker().transaction, build: next },
      ...{ lastWords: null, ending: null, reason: null },
    },
  });

  test("are on the disk before what follows; what is done is proven", () => {
    performer.perform([{ kind: "note", journal: journal() }]);
    const text = readFileSync(join(place, "journal.json"), "utf8");
    expect(decodeJournal(text)).toEqual({ kind: "ok", journal: journal() });
    const proven = readLayout(place).versions.filter(({ isProven }) => isProven);
    expect(proven.map(({ name }) => name)).toEqual([folderOf(next)]);
    expect(troubles).toEqual([]);
  });

  test("that fail are told, and nothing that follows is done", () => {
    mkdirSync(join(place, "journal.json"));
    performer.perform([
      { kind: "note", journal: journal() },
      { kind: "swap", ticket: 1, current: next, previous: old },
    ]);
    expect(events).toEqual([
      { kind: "note-failed", reason: expect.stringContaining("Cannot write the journal") },
    ]);
    expect(leads("current")).toBe(folderOf(old));
    expect(existsSync(join(place, "versions", folderOf(next), "proven"))).toBe(false);
  });

  test("what nobody needs is removed; roles are handed over by whoever knows them", () => {
    const third = storeScript(folder, "1.0.0", "echo third");
    const fourth = buildOf(place, storeScript(folder, "1.0.1", "echo fourth"));
    performer.perform([
      { kind: "collect", keep: [fourth, oldBuild] },
      { kind: "hand-over", build: next },
    ]);
    const left = readLayout(place).versions.map(({ name }) => name);
    expect(left).not.toContain(third);
    expect(left.toSorted()).toEqual([folderOf(fourth), folderOf(old)].toSorted());
    expect(troubles).toEqual(["hand over to 1.2.0"]);
  });
});
