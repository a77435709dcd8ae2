/** The store of images: killed between any two of its steps; on a full disk; with clones. */
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
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { ImageRequest } from "../../src/image/image-request.ts";
import { ImageStore } from "../../src/image/image-store.ts";
import { type ImageStep, imageSteps } from "../../src/image/kill-points.ts";
import { hashPath } from "../../src/image/nar.ts";
import { hostler } from "../support/binary.ts";
import { type ProgramResult, startProgram } from "../support/program.ts";
import { feature, program, root, skipUnless } from "../support/skips.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { buildStory } from "../support/story.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let programs: TemporaryFolder;
let story: string;
let folder: TemporaryFolder;
let source: string;

beforeAll(async () => {
  programs = temporaryFolder();
  story = await buildStory(programs, "image-story.ts");
});
afterAll(() => programs[Symbol.dispose]());
beforeEach(() => {
  folder = temporaryFolder();
  source = folder.file("store/image");
  mkdirSync(`${source}/disks`, { recursive: true });
  writeFileSync(`${source}/vm-config.json`, "{}");
  writeFileSync(`${source}/disks/root.img`, Buffer.alloc(5 * 1024 * 1024, "disk"));
  symlinkSync("disks/root.img", `${source}/disk.img`);
  writeFileSync(folder.file("store/linux"), "kernel");
});
afterEach(() => folder[Symbol.dispose]());

/** Runs an act of the story with the compiled file, killed at a step. */
async function perform(act: string, killAt?: string): Promise<ProgramResult> {
  const environment: Record<string, string> = { BUN_BE_BUN: "1" };
  if (killAt !== undefined) environment["HOSTLER_KILL_AT"] = `image:${killAt}`;
  await using running = startProgram([hostler(), "run", story, act, folder.path], { environment });
  const result = await running.ended();
  if (killAt === undefined && result.exitCode !== 0) throw new Error(result.stderr);
  return result;
}

async function killedIn(act: string, step: ImageStep, pass = 1): Promise<void> {
  const result = await perform(act, `${step}#${pass}`);
  if (result.signal !== "SIGKILL") throw new Error(`Not killed at ${step}: ${result.stderr}`);
}

const stored = (place = folder.file("vms")) => readdirSync(join(place, "images"));
const openStore = (place = folder.file("vms")) =>
  ImageStore.open(place, { nixStore: folder.file("store") });
const request = (): ImageRequest => ({ source, expected: { kind: "any" }, wanted: () => [] });

/** Every image that is there is whole, and nothing else is there. */
async function expectWhole(): Promise<readonly string[]> {
  const keys = (await openStore()).keys();
  expect(stored().toSorted()).toEqual([...keys]);
  for (const key of keys) {
    const tree = folder.file(`vms/images/${key}/tree`);
    expect(await hashPath(tree)).toBe(await hashPath(source));
    expect(readFileSync(folder.file(`vms/images/${key}/outside/0-linux`), "utf8")).toBe("kernel");
  }
  return keys;
}

describe("killed while an image is added", () => {
  // vm-config.json, the disk, and the kernel of /nix/store.
  const passes = imageSteps.add.flatMap((step) =>
    (step.startsWith("file-") ? [1, 2, 3] : [1]).map((pass) => [step, pass] as const),
  );
  for (const [step, pass] of passes) {
    test(`${step}, pass ${pass}`, async () => {
      await killedIn("add", step, pass);
      expect(await expectWhole()).toHaveLength(step === "placed" ? 1 : 0);
      const { stdout } = await perform("add");
      expect(stdout).toContain("DONE");
      expect(await expectWhole()).toHaveLength(1);
    });
  }
});

describe("killed while an image is removed", () => {
  for (const step of imageSteps.remove) {
    test(step, async () => {
      await perform("add");
      await killedIn("remove", step);
      expect(await expectWhole()).toEqual([]);
      await perform("add");
      expect(await expectWhole()).toHaveLength(1);
    });
  }
});

skipUnless("a disk of its own", root, () => {
  test("that is full: refused, and everything is removed; with room it goes on", async () => {
    using disk = new SmallDisk(folder.file("small"), "16m");
    const store = await openStore(disk.path);
    writeFileSync(`${source}/more.img`, Buffer.alloc(20 * 1024 * 1024, "x"));
    const free = disk.free;
    const refused = await rejectionOf(store.add(request()));
    expect(refused.message).toBe(
      `Cannot store the image ${source}, more.img: expected room on its file system, received ` +
        "none (ENOSPC). Make room there (df and df -i say how much there is).",
    );
    expect(stored(disk.path)).toEqual([]);
    expect(disk.free).toBe(free);
    truncateSync(`${source}/more.img`, 1024 * 1024);
    using image = await store.add(request());
    expect(stored(disk.path)).toEqual([image.key]);
  });

  test("that is full to its last byte", async () => {
    using disk = new SmallDisk(folder.file("small"), "1m");
    const store = await openStore(disk.path);
    disk.fill();
    expect((await rejectionOf(store.add(request()))).message).toContain("(ENOSPC)");
    disk.clear();
    expect(stored(disk.path)).toEqual([]);
  });

  test("that is read-only", async () => {
    using disk = new SmallDisk(folder.file("small"), "16m");
    const store = await openStore(disk.path);
    disk.remount("ro");
    expect((await rejectionOf(store.add(request()))).message).toContain("(EROFS)");
  });
});

const xfs = feature("no xfs in this kernel", () =>
  readFileSync("/proc/filesystems", "utf8").includes("\txfs\n"),
);

skipUnless("a disk that can clone", [root, xfs, program("mkfs.xfs", "xfsprogs")], () => {
  let place: string;
  const run = (...words: readonly string[]) => {
    const { status, stderr } = spawnSync(words[0] as string, words.slice(1), { encoding: "utf8" });
    if (status !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
  };
  beforeEach(() => {
    place = folder.file("xfs");
    mkdirSync(place);
    writeFileSync(folder.file("xfs.img"), "");
    truncateSync(folder.file("xfs.img"), 320 * 1024 * 1024);
    run("mkfs.xfs", "-q", folder.file("xfs.img"));
    run("mount", "-o", "loop", folder.file("xfs.img"), place);
    rmSync(source, { recursive: true });
    source = join(place, "image");
    mkdirSync(source);
    writeFileSync(`${source}/vm-config.json`, "{}");
    writeFileSync(`${source}/disk.img`, Buffer.alloc(64 * 1024 * 1024, "disk"));
    run("sync", "-f", place);
  });
  afterEach(() => run("umount", "-l", place));

  const freeBlocks = () => {
    const { stdout } = spawnSync("stat", ["-f", "-c", "%f", place], { encoding: "utf8" });
    return Number(stdout);
  };

  test("shares the bytes with the image, and verifies those of the clone", async () => {
    const store = await openStore(join(place, "vms"));
    const before = freeBlocks();
    const hash = await hashPath(source);
    using image = await store.add({ ...request(), expected: { kind: "nar", hash } });
    run("sync", "-f", place);
    // In blocks of 4 KiB, the copy would have taken 16,384.
    expect(before - freeBlocks()).toBeLessThan(1_000);
    const disk = image.locate({ kind: "inside", name: "disk.img" }, "disks[0].path");
    expect(statSync(disk).mode & 0o7777).toBe(0o444);
    expect(await hashPath(disk)).toBe(await hashPath(`${source}/disk.img`));
    // What is written to the image later is not in the clone.
    appendFileSync(`${source}/disk.img`, "later");
    expect(statSync(disk).size).toBe(64 * 1024 * 1024);
  });

  test("finds a wrong hash; what changes while the clone is read does no harm", async () => {
    const store = await openStore(join(place, "vms"));
    const hash = await hashPath(source);
    const onProgress = () => writeFileSync(`${source}/disk.img`, "changed");
    using image = await store.add({ ...request(), expected: { kind: "nar", hash }, onProgress });
    image[Symbol.dispose]();
    await store.removeUnused(new Set());
    const refused = await rejectionOf(store.add({ ...request(), expected: { kind: "nar", hash } }));
    expect(refused.message).toContain(`expected ${hash}, received sha256-`);
    expect(stored(join(place, "vms"))).toEqual([]);
  });
});
