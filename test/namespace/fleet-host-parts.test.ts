/** What an upgrade orders, done on a real disk; candidates and downloads are stood in for. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  type CandidateOutcome,
  type CandidateStart,
  type Executor,
  ExecutorRefused,
  unknownEnding,
} from "../../src/fleet/executor.ts";
import { folderOf, linked } from "../../src/fleet/layout.ts";
import type { Journal } from "../../src/fleet/lifecycle-journal.ts";
import {
  type ArtifactSeam,
  hostCandidates,
  hostInstallation,
  hostVersions,
} from "../../src/fleet/perform/host-parts.ts";
import { Installation } from "../../src/fleet/perform/installation.ts";
import { programOf, readLayout } from "../../src/fleet/perform/layout-files.ts";
import type { Build, LastWords } from "../../src/fleet/protocol.ts";
import {
  type AgentCandidates,
  type AgentInstallation,
  type AgentVersions,
  OrderRefused,
} from "../../src/fleet/upgrade-agent.ts";
import { instanceOf, makeMarker } from "../support/fleet-agent/life.ts";
import { storeScript } from "../support/fleet-installation.ts";
import { buildOf } from "../support/fleet-swapped.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(30_000);

const words: LastWords = { ...unknownEnding, ending: "exited with 3", log: "why\n" };
const passes = '{"version":"1.2.0","ok":true,"checks":[]}';

/** One that does what the test says, and notes what it is asked. */
class StoodInExecutor implements Executor {
  readonly formerCanonicalEnd = () => Promise.resolve(null);
  readonly kind = "systemd";
  readonly asked: unknown[] = [];
  outcome: CandidateOutcome | Error = { kind: "ready" };
  end: LastWords = words;
  proof = { code: 0, output: passes, said: "" };

  async startCandidate(start: CandidateStart): Promise<CandidateOutcome> {
    this.asked.push(start);
    if (this.outcome instanceof Error) throw this.outcome;
    return this.outcome;
  }

  async findCandidate(): Promise<boolean> {
    return true;
  }

  async candidateEnd(): Promise<LastWords> {
    return this.end;
  }

  async stopCandidate(): Promise<LastWords> {
    return this.end;
  }

  async restartCanonical(): Promise<void> {
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
let troubles: string[];
let old: Build;
let next: Build;
let installation: AgentInstallation;
let candidates: AgentCandidates;
let versions: AgentVersions;
let fetchAgain: ArtifactSeam["fetchAgain"];

beforeEach(() => {
  folder = temporaryFolder();
  place = folder.file("fleet");
  executor = new StoodInExecutor();
  troubles = [];
  old = buildOf(place, storeScript(folder, "1.1.0", "echo old"));
  next = buildOf(place, storeScript(folder, "1.2.0", "echo next"));
  symlinkSync(`versions/${folderOf(old)}`, join(place, "current"));
  fetchAgain = async () => {
    throw new OrderRefused("no source has it", { cause: "artifact" });
  };
  installation = hostInstallation(place, {
    keep: 0,
    onTrouble: (text) => void troubles.push(text),
  });
  candidates = hostCandidates(place, {
    executor,
    plan: (marker, instance) => ({
      words: ["fleet", "agent", "--candidate", instance],
      environment: { TRANSACTION: marker.transaction },
      readyWithin: 1_000,
    }),
  });
  versions = hostVersions(place, {
    executor,
    artifacts: {
      check: async () => ({ floor: "1.0.0", metadataVersion: 4 }),
      fetch: async () => {},
      fetchAgain: (build, marker) => fetchAgain(build, marker),
    },
  });
});
afterEach(() => folder[Symbol.dispose]());

const marker = () => makeMarker(1, { build: next });
const instance = instanceOf(1);
const program = (build: Build) => programOf(place, folderOf(build));
const leads = (link: "current" | "previous" | "candidate") => linked(readLayout(place), link);
const proven = () => readLayout(place).versions.filter(({ isProven }) => isProven);

async function refusalOf(work: Promise<unknown>): Promise<OrderRefused> {
  const error = await rejectionOf(work);
  expect(error).toBeInstanceOf(OrderRefused);
  return error as OrderRefused;
}

describe("versions", () => {
  test("prove themselves confined; one that fails, or is damaged, is refused", async () => {
    const { signal } = new AbortController();
    await versions.prove(marker(), signal);
    expect(executor.asked).toEqual(["--self-test --json"]);
    const checks = [{ check: "process agent", status: "failed", found: "no such function" }];
    executor.proof = {
      code: 111,
      output: JSON.stringify({ version: "1.2.0", ok: false, checks }),
      said: "",
    };
    const failed = await refusalOf(versions.prove(marker(), signal));
    expect(failed.message).toContain("received process agent: no such function");
    expect(failed.endingCause).toBe("artifact");
    executor.proof = { code: 0, output: passes.replace("1.2.0", "1.1.0"), said: "" };
    const other = await refusalOf(versions.prove(marker(), signal));
    expect(other.message).toContain("a file of version 1.2.0, received one that says 1.1.0");
    expect(other.endingCause).toBe("artifact");
    writeFileSync(program(next), "damaged");
    const damaged = await refusalOf(versions.prove(marker(), signal));
    expect(damaged.message).toContain("expected SHA-256");
    expect(executor.asked).toHaveLength(3);
  });

  test("are hashed, and a way back that is damaged is fetched again, or refused", async () => {
    await versions.hash(next);
    await versions.findWayBack(old, marker());
    const right = readFileSync(program(old));
    writeFileSync(program(old), "damaged");
    expect((await refusalOf(versions.hash(old))).message).toContain("Fetch it again");
    const none = await refusalOf(versions.findWayBack(old, marker()));
    expect(none.message).toBe("no source has it");
    fetchAgain = async () => writeFileSync(program(old), "other");
    const wrong = await refusalOf(versions.findWayBack(old, marker()));
    expect(wrong.message).toContain("expected SHA-256");
    fetchAgain = async () => writeFileSync(program(old), right);
    await versions.findWayBack(old, marker());
  });
});

describe("a candidate", () => {
  const start = () => candidates.start({ marker: marker(), instance, endsAfter: 9_000 });

  test("is linked, so that nobody removes it, and started", async () => {
    expect(await start()).toBe("ready");
    expect(leads("candidate")).toBe(folderOf(next));
    expect(leads("current")).toBe(folderOf(old));
    expect(executor.asked).toEqual([
      {
        ...{ instance, program: program(next), endsAfter: 9_000, readyWithin: 1_000 },
        words: ["fleet", "agent", "--candidate", instance],
        environment: { TRANSACTION: marker().transaction },
      },
    ]);
  });

  test("that has ended says how; where nobody knows, nothing", async () => {
    executor.outcome = { kind: "ended", lastWords: words };
    expect(await start()).toEqual(words);
    expect(await candidates.ended(instance)).toEqual(words);
    expect(await candidates.stop(instance)).toEqual(words);
    executor.end = unknownEnding;
    expect(await candidates.ended(instance)).toBeNull();
    expect(await candidates.stop(instance)).toBeNull();
  });

  test("is not started where the host does not do it, nor of a damaged file", async () => {
    executor.outcome = new ExecutorRefused("no systemd");
    expect(await refusalOf(start())).toMatchObject({ message: "no systemd", endingCause: "host" });
    const restart = await refusalOf(candidates.restartCanonical());
    expect(restart.endingCause).toBe("host");
    writeFileSync(program(next), "damaged");
    expect(await refusalOf(start())).toMatchObject({ endingCause: "artifact" });
    expect(executor.asked).toHaveLength(1);
  });
});

describe("the installation", () => {
  const journal = (): Journal => ({
    ...{ format: 1, step: 5, boot: "11111111-1111-1111-1111-111111111111" },
    ...{ floor: null, metadataVersion: 0, current: next, previous: old, seen: [] },
    life: {
      ...{ phase: "done", transaction: marker().transaction, build: next },
      ...{ lastWords: null, ending: null, reason: null },
    },
  });

  test("has links that are swapped, and swapped back", () => {
    expect(installation.readLinks()).toEqual({ current: old, previous: null });
    installation.swap({ current: next, previous: old });
    expect(installation.readLinks()).toEqual({ current: next, previous: old });
    installation.swapBack({ current: old, previous: null });
    expect(installation.readLinks()).toEqual({ current: old, previous: null });
    writeFileSync(program(next), "damaged");
    expect(() => installation.swap({ current: next, previous: old })).toThrow("Cannot swap to");
    expect(installation.readLinks().current).toEqual(old);
    rmSync(join(place, "current"));
    expect(() => installation.readLinks()).toThrow("Make it again by hostler fleet install");
  });

  test("has a journal; what is done is proven, and where that cannot be it is said", () => {
    expect(installation.readJournal()).toEqual({ kind: "absent" });
    {
      using _held = Installation.open(place, { make: false });
      installation.writeJournal(journal());
    }
    expect(installation.readJournal()).toEqual({ kind: "ok", journal: journal() });
    expect(troubles).toEqual(["the new version cannot be called proven, ignoring"]);
    expect(proven()).toEqual([]);
    installation.writeJournal(journal());
    expect(proven().map(({ name }) => name)).toEqual([folderOf(next)]);
  });

  test("whose journal cannot be written says so, and proves nothing", () => {
    mkdirSync(join(place, "journal.json"));
    expect(() => installation.writeJournal(journal())).toThrow("Cannot write the journal");
    expect(proven()).toEqual([]);
  });

  test("keeps what is wanted, and removes the rest", () => {
    const third = buildOf(place, storeScript(folder, "1.0.0", "echo third"));
    installation.collect([third]);
    const left = readLayout(place).versions.map(({ name }) => name);
    expect(left.toSorted()).toEqual([folderOf(third), folderOf(old)].toSorted());
  });
});
