/** An installation on the disk: killed between any two of its steps, damaged, full, and used. */
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
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { linked } from "../../src/fleet/layout.ts";
import { checkVersion, Installation } from "../../src/fleet/perform/installation.ts";
import { type HostStep, hostSteps } from "../../src/fleet/perform/kill-points.ts";
import { programOf, readLayout, versionFolder } from "../../src/fleet/perform/layout-files.ts";
import { hostler } from "../support/binary.ts";
import { storeScript, writeScript } from "../support/fleet-installation.ts";
import { type ProgramResult, startProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { buildStory } from "../support/story.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let programs: TemporaryFolder;
let story: string;
let folder: TemporaryFolder;
let place: string;

beforeAll(async () => {
  programs = temporaryFolder();
  story = await buildStory(programs, "fleet-story.ts");
});
afterAll(() => programs[Symbol.dispose]());
beforeEach(() => {
  folder = temporaryFolder();
  place = folder.file("fleet");
});
afterEach(() => folder[Symbol.dispose]());

/** Runs an act of the story with the compiled file. */
async function perform(words: readonly string[], killAt?: HostStep): Promise<ProgramResult> {
  const [act = "", ...rest] = words;
  const environment: Record<string, string> = { BUN_BE_BUN: "1" };
  if (killAt !== undefined) environment["HOSTLER_KILL_AT"] = `fleet:${killAt}`;
  const argv = [hostler(), "run", story, act, place, ...rest];
  await using running = startProgram(argv, { environment });
  return await running.ended();
}

async function killedIn(words: readonly string[], step: HostStep): Promise<void> {
  const result = await perform(words, step);
  if (result.signal !== "SIGKILL") throw new Error(`Not killed at ${step}: ${result.stderr}`);
}

async function done(words: readonly string[]): Promise<void> {
  expect(await perform(words)).toMatchObject({ exitCode: 0, stderr: "" });
}

const stored = () => readdirSync(join(place, "versions")).toSorted();
const current = () => linked(readLayout(place), "current");
const open = () => Installation.open(place, { make: false });

/** Every version that says to be verified is, and what a link leads to is whole. */
function expectUsable(): void {
  const state = readLayout(place);
  for (const { name, state: how } of state.versions) {
    if (how === "verified") expect(checkVersion(place, name)).toMatchObject({ kind: "whole" });
  }
  const name = linked(state, "current");
  if (name !== undefined) expect(checkVersion(place, name)).toMatchObject({ kind: "whole" });
}

/** Two versions, the first of which is current. */
function twoVersions(): { readonly first: string; readonly second: string } {
  const first = storeScript(folder, "1.0.0", "echo first");
  const second = storeScript(folder, "1.1.0", "echo second");
  symlinkSync(`versions/${first}`, join(place, "current"));
  return { first, second };
}

describe("killed at every step", () => {
  test.each(hostSteps.store)("of storing: %s; the next one stores it whole", async (step) => {
    const source = writeScript(folder, "program", "echo program");
    await killedIn(["store", source, "1.0.0"], step);
    expectUsable();
    await done(["store", source, "1.0.0"]);
    const [name = ""] = stored();
    expect(stored()).toEqual([name]);
    expect(readdirSync(versionFolder(place, name)).toSorted()).toEqual(["hostler", "verified"]);
    expect(checkVersion(place, name).kind).toBe("whole");
  });

  test.each(hostSteps.swap)("of a swap: %s; one of the two is current", async (step) => {
    const { first, second } = twoVersions();
    using installation = open();
    installation.setCandidate(second);
    installation[Symbol.dispose]();
    await killedIn(["swap", second, first], step);
    const isAfter = step === "current" || step === "swapped";
    expect(current()).toBe(isAfter ? second : first);
    expectUsable();
    await done(["swap", second, first]);
    const { links } = readLayout(place);
    expect(links).toEqual({
      current: { kind: "version", name: second },
      previous: { kind: "version", name: first },
      candidate: { kind: "absent" },
    });
    expect(readdirSync(place).filter((name) => name.endsWith(".new"))).toEqual([]);
  });

  test.each(hostSteps.swapBack)("of going back: %s; one of the two is current", async (step) => {
    const { first, second } = twoVersions();
    await done(["swap", second, first]);
    await killedIn(["swap-back", first], step);
    expect(current()).toBe(step === "reverting" ? second : first);
    expectUsable();
    await done(["swap-back", first]);
    expect(readLayout(place).links).toMatchObject({
      current: { name: first },
      previous: { kind: "absent" },
    });
  });

  test.each(hostSteps.collect)("of removing: %s; what is linked stays", async (step) => {
    const { first } = twoVersions();
    storeScript(folder, "1.2.0", "echo third");
    await killedIn(["collect", "0"], step);
    expect(current()).toBe(first);
    expectUsable();
    await done(["collect", "0"]);
    expect(stored()).toEqual([first]);
  });
});

describe("a program that is stored", () => {
  test("is not written again when it is there and whole", () => {
    const name = storeScript(folder, "1.0.0", "echo one");
    const before = readFileSync(join(versionFolder(place, name), "verified"), "utf8");
    utimesSync(programOf(place, name), 1, 1);
    using installation = open();
    expect(installation.store(folder.file("program-1.0.0"), "1.0.0")).toEqual({
      name,
      isNew: false,
    });
    expect(readFileSync(join(versionFolder(place, name), "verified"), "utf8")).toBe(before);
  });

  test.each([
    ["four bytes are others", (path: string) => rewrite(path, (bytes) => bytes.fill(88, 12, 16))],
    ["its end is cut off", (path: string) => truncateSync(path, 20)],
    ["it is longer", (path: string) => appendFileSync(path, "\n")],
    ["it may not be executed", (path: string) => chmodSync(path, 0o644)],
    ["it is gone", (path: string) => rmSync(path)],
    [
      "it is a link",
      (path: string) => {
        renameSync(path, `${path}.moved`);
        symlinkSync(`${path}.moved`, path);
      },
    ],
  ])("%s: it is not swapped to, nor gone back to, and is stored again", (_, damage) => {
    const { first, second } = twoVersions();
    damage(programOf(place, second));
    using installation = open();
    expect(() => installation.swap({ current: second, previous: first })).toThrow(
      "Cannot swap to 1.1.0-",
    );
    expect(() => installation.swapBack({ current: second, previous: null })).toThrow(
      "Cannot go back to 1.1.0-",
    );
    expect(() => installation.setCandidate(second)).toThrow("Fetch it again.");
    expect(current()).toBe(first);
    installation.store(folder.file("program-1.1.0"), "1.1.0");
    installation.swap({ current: second, previous: first });
    expect(current()).toBe(second);
  });

  test("whose verified file was taken from another version is not one", () => {
    const { first, second } = twoVersions();
    const paths = [first, second].map((name) => join(versionFolder(place, name), "verified"));
    copyFileSync(paths[0] ?? "", paths[1] ?? "");
    using installation = open();
    expect(() => installation.swap({ current: second, previous: first })).toThrow(
      "expected a version that was verified, received none of that name",
    );
  });

  test("a swap from what is not current is refused", () => {
    const { first, second } = twoVersions();
    const third = storeScript(folder, "1.2.0", "echo third");
    using installation = open();
    expect(() => installation.swap({ current: second, previous: third })).toThrow(
      `expected that current leads to ${third}, received ${first}`,
    );
  });
});

describe("what is removed", () => {
  test("is never what somebody runs, by whatever name", async () => {
    const { first, second } = twoVersions();
    // A script is run by its interpreter: a copy of a program is needed.
    using installation = open();
    const sleeper = installation.store("/bin/sleep", "1.3.0").name;
    await using running = startProgram([programOf(place, sleeper), "1000"]);
    const { remove, keep } = installation.collect({ keep: 0 });
    expect(remove).toEqual([second]);
    expect(keep).toContainEqual({ name: sleeper, reason: "it runs" });
    running.kill("SIGKILL");
    await running.ended();
    expect(installation.collect({ keep: 0 }).remove).toEqual([sleeper]);
    expect(stored()).toEqual([first]);
  });

  test("one that was set aside and is run comes back to its place", async () => {
    const { first } = twoVersions();
    using installation = open();
    const sleeper = installation.store("/bin/sleep", "1.3.0").name;
    const aside = join(place, "versions", `.${sleeper}.1.removed`);
    renameSync(versionFolder(place, sleeper), aside);
    await using _running = startProgram([join(aside, "hostler"), "1000"]);
    expect(installation.collect({ keep: 0 }).keep).toContainEqual({
      name: sleeper,
      reason: "it runs",
    });
    expect(stored()).toEqual([first, sleeper].toSorted());
  });

  test("is nothing that it does not understand", () => {
    const { first } = twoVersions();
    mkdirSync(join(place, "versions/mine"));
    writeFileSync(join(place, "versions/notes.txt"), "");
    using installation = open();
    installation.collect({ keep: 0 });
    expect(stored()).toEqual([first, "mine", "notes.txt"].toSorted());
  });

  test("is nothing of an installation of a later hostler", () => {
    twoVersions();
    writeFileSync(join(place, "layout.json"), '{"format":2}\n');
    expect(() => open()).toThrow("expected format 1 at most, received 2, of a later hostler");
  });

  test("nor of a folder that is no installation", () => {
    mkdirSync(place);
    expect(() => open()).toThrow("Make one by hostler fleet install");
    expect(() => Installation.open(folder.file("none"), { make: false })).toThrow(
      "expected a folder above it, received none",
    );
  });
});

test("two do not change one installation at the same time", () => {
  twoVersions();
  using _first = open();
  expect(() => open()).toThrow(`received a lock that process ${process.pid} has`);
});

skipUnless("an installation on a full disk", root, () => {
  test("a program that does not fit is refused, and leaves nothing", () => {
    using disk = new SmallDisk(folder.file("disk"), "4m");
    place = join(disk.path, "fleet");
    const first = storeScript(folder, "1.0.0", "echo one", place);
    writeFileSync(folder.file("large"), Buffer.alloc(8 * 1024 * 1024, "x"));
    using installation = open();
    expect(() => installation.store(folder.file("large"), "2.0.0")).toThrow(
      "expected room on its file system, received none (ENOSPC)",
    );
    expect(stored()).toEqual([first]);
  });
});

skipUnless("an installation in which no file can be made", root, () => {
  test("a swap is refused, and current is as it was; with room it is made", () => {
    using disk = new SmallDisk(folder.file("disk"), "4m,nr_inodes=32");
    place = join(disk.path, "fleet");
    const first = storeScript(folder, "1.0.0", "echo one", place);
    const second = storeScript(folder, "1.1.0", "echo two", place);
    symlinkSync(`versions/${first}`, join(place, "current"));
    using installation = open();
    const fillers: string[] = [];
    for (let isFull = false; !isFull; ) {
      const filler = join(disk.path, `filler-${fillers.length}`);
      try {
        writeFileSync(filler, "");
        fillers.push(filler);
      } catch {
        isFull = true;
      }
    }
    const swap = () => installation.swap({ current: second, previous: first });
    expect(swap).toThrow("Make room there (df and df -i say how much there is)");
    expect(current()).toBe(first);
    // With room for one link alone it gets half the way, and current is still what it was.
    rmSync(fillers[0] ?? "");
    expect(swap).toThrow("Make room there");
    expect(current()).toBe(first);
    rmSync(fillers[1] ?? "");
    swap();
    expect(current()).toBe(second);
    expect(linked(readLayout(place), "previous")).toBe(first);
  });
});

skipUnless("an installation that others see in another way", root, () => {
  test("what runs in another mount namespace, which hides the folder, is not removed", async () => {
    const { first } = twoVersions();
    using installation = open();
    const sleeper = installation.store("/bin/sleep", "1.3.0").name;
    const path = programOf(place, sleeper);
    // The shell holds the file open, hides the folder, and becomes what it holds.
    const script = `exec 9< ${path}; mount -t tmpfs none ${place}; exec /proc/self/fd/9 1000`;
    await using running = startProgram(["unshare", "--mount", "sh", "-c", script]);
    const runs = () => readFileSync(`/proc/${running.processId}/comm`, "utf8");
    await waitFor("the program to run", () => runs() === "9\n");
    const { remove, keep } = installation.collect({ keep: 0 });
    expect(remove).not.toContain(sleeper);
    expect(keep).toContainEqual({ name: sleeper, reason: "it runs" });
    expect(stored()).toEqual([first, sleeper].toSorted());
  });
});

function rewrite(path: string, change: (bytes: Buffer) => unknown): void {
  const bytes = readFileSync(path);
  change(bytes);
  writeFileSync(path, bytes);
}

test("a link says where it leads from its own folder, so that the folder can be moved", () => {
  const { first, second } = twoVersions();
  using installation = open();
  installation.swap({ current: second, previous: first });
  expect(readlinkSync(join(place, "current"))).toBe(`versions/${second}`);
  expect(existsSync(join(place, "current/hostler"))).toBe(true);
});
