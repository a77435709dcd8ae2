/** Snapshots of the compiled worker with QEMU: what is restored goes on, or nothing of it is. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { hashPath } from "../../src/image/nar.ts";
import { snapshotSteps } from "../../src/vm/perform/kill-points.ts";
import type { SnapshotSummary, VmSummary } from "../../src/vm/protocol.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { expectContinuous } from "../support/guest-numbers.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { SmallDisk } from "../support/small-disk.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { isThere, type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const MEBIBYTE = 1024 ** 2;

let folder: TemporaryFolder;
let host: VmHost;
let image: TestImage;

beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(async () => {
  await host[Symbol.asyncDispose]();
  folder[Symbol.dispose]();
});

async function makeHost(): Promise<void> {
  host = await VmHost.make({ folder });
  image = await host.image();
}

/** A machine that has counted. */
async function makeMachine(): Promise<void> {
  await host.say("create", "web", "--image", image.path, "--hash", image.hash, "--start");
  await host.counts("web");
}

const snapshotsFolder = () => join(host.artifacts, "snapshots");
const snapshotFolder = (name: string) => join(snapshotsFolder(), "web", name);
const listed = async () =>
  JSON.parse(await host.say("snapshot", "--list", "--json")) as SnapshotSummary[];

/** @returns what the refused command said */
async function refused(...words: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await host.run(...words);
  expect([exitCode, stdout]).toEqual([111, ""]);
  return stderr;
}

/** What it said while no worker listened is lost; it never went back, and never began anew. */
function expectGrowing(numbers: readonly number[]): void {
  expect(numbers).toEqual([...new Set(numbers)].toSorted((one, other) => one - other));
}

/** Lets a paused machine run. @returns the first number of it from then on */
async function resumed(): Promise<number> {
  const seen = host.numbers("web").length;
  await host.say("resume", "web", "--wait");
  return await waitFor("it to count", () => host.numbers("web")[seen]);
}

/** The last number of a guest that is paused, once all that it said is heard. */
async function lastNumber(): Promise<number> {
  let before = -1;
  let looks = 0;
  await waitFor("the console to be silent", () => {
    const now = host.numbers("web").length;
    looks = now === before ? looks + 1 : 0;
    before = now;
    return looks > 5;
  });
  return host.numbers("web").at(-1) ?? 0;
}

/** Nothing is there but what the snapshots hold. */
async function expectNoMachine(): Promise<void> {
  expect(await host.say("list", "--json")).toBe("[]\n");
  expect(host.vmmProcesses()).toEqual([]);
  expect(host.kept().machines).toEqual([]);
}

const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];

skipUnless("snapshots with QEMU", needs, () => {
  test("a machine goes on, and is made of one again, with all it had", async () => {
    await makeHost();
    await host.start();
    await makeMachine();
    const before = await host.summary("web");
    const heard = host.numbers("web").at(-1) ?? 0;
    expect(await host.say("snapshot", "web", "first")).toBe("web: snapshot first made\n");
    expect(await host.reaches("web", "running")).toMatchObject({ pid: before.pid });
    const beyond = (await host.counts("web")) + 3;
    await waitFor("it to go on", () => (host.numbers("web").at(-1) ?? 0) >= beyond);
    expectContinuous(host.numbers("web"));

    const [line] = await listed();
    expect(line).toMatchObject({ name: "web", snapshot: "first", power: "running" });
    expect(line?.stored_bytes).toBeLessThan((line?.bytes ?? 0) / 4);
    expect(await host.say("snapshot", "--list", "web")).toContain("first");
    const modeOf = (path: string) => statSync(path).mode & 0o777;
    expect(modeOf(snapshotFolder("first"))).toBe(0o700);
    const files = readdirSync(snapshotFolder("first")).toSorted();
    expect(files).toEqual(["manifest.json", "memory-0", "state"]);
    for (const file of files) expect(modeOf(join(snapshotFolder("first"), file))).toBe(0o600);
    expect(await refused("snapshot", "web", "first")).toContain("has a snapshot first already");
    expect(await refused("restore", "web", "first")).toContain("Delete it first");

    await host.say("delete", "web", "--now", "--wait");
    await expectNoMachine();
    // Its image is the store's own: a snapshot without it would be of no use.
    rmSync(image.path, { recursive: true });
    expect(await host.say("restore", "web", "first")).toStartWith("web: running, 10.100.");
    await host.counts("web");
    // It has gone on while we were told that it runs.
    const [first = 0] = host.numbers("web");
    expect(first).toBeGreaterThan(heard);
    expect(first).toBeLessThan(beyond);
    expectContinuous(host.numbers("web"));
    const { address, mac, tap } = before;
    expect(await host.summary("web")).toMatchObject({ address, mac, tap, restarts: 0 });
    expect(host.said).not.toContain("bug");
  });
});

skipUnless("snapshots with QEMU, of a paused machine and of disks", needs, () => {
  test("a paused machine stays paused, and goes on with the next number", async () => {
    await makeHost();
    await host.start();
    await makeMachine();
    await host.say("pause", "web", "--wait");
    const last = await lastNumber();
    await host.say("snapshot", "web", "still");
    await host.reaches("web", "paused");
    await host.say("snapshot", "web", "again");
    await host.reaches("web", "paused");
    await host.say("snapshot", "--delete", "web", "again");
    expect(await resumed()).toBe(last + 1);
    await host.say("delete", "web", "--now", "--wait");
    const words = await host.say("restore", "web", "still", "--json");
    expect(JSON.parse(words) as VmSummary).toMatchObject({ phase: "paused", wanted: "paused" });
    // The line that was under way may have been cut, and its begin was said in the other life.
    expect([last + 1, last + 2]).toContain(await resumed());
    expect(await host.say("replace-vmm", "web", "--wait")).toStartWith("web: running");
    await host.counts("web");
    expectContinuous(host.numbers("web"));
    await host.say("delete", "web", "--now", "--wait");
    await host.say("snapshot", "--delete", "web", "still");
    expect(await listed()).toEqual([]);
    expect(readdirSync(snapshotsFolder())).toEqual([]);
    expect(host.kept().images).toEqual([]);
  });

  test("its own disks come back as they were, and are its VMM's again", async () => {
    await makeHost();
    writeFileSync(join(image.path, "root.img"), new Uint8Array(MEBIBYTE).fill(7));
    const configuration = JSON.parse(readFileSync(join(image.path, "vm-config.json"), "utf8"));
    configuration.disks = [{ id: "root", path: "root.img", image_type: "Raw" }];
    configuration.hostler = { ephemeral_disks: [{ id: "scratch", size: MEBIBYTE }] };
    writeFileSync(join(image.path, "vm-config.json"), JSON.stringify(configuration));
    image = { path: image.path, hash: await hashPath(image.path) };
    await host.start();
    await makeMachine();
    const scratch = join(host.machineFolder("web"), "disks/scratch.raw");
    const file = openSync(scratch, "r+");
    writeSync(file, "written by its guest", 4096);
    closeSync(file);
    await host.say("snapshot", "web", "first");
    const files = readdirSync(snapshotFolder("first")).toSorted();
    expect(files).toEqual(["disk-0", "disk-1", "manifest.json", "memory-0", "state"]);
    await host.say("delete", "web", "--now", "--wait");
    await host.say("restore", "web", "first");
    await host.counts("web");
    expect(readFileSync(scratch, "latin1")).toContain("written by its guest");
    const [user] = host.vmms().keys();
    for (const name of ["scratch.raw", "root.qcow2"]) {
      const status = statSync(join(host.machineFolder("web"), "disks", name));
      expect([`${status.uid}`, status.mode & 0o777]).toEqual([user ?? "", 0o600]);
    }
  });
});

skipUnless("snapshots with QEMU that somebody changed", needs, () => {
  test("memory that somebody changed is refused, and what is not there", async () => {
    await makeHost();
    await host.start();
    await makeMachine();
    await host.say("snapshot", "web", "first");
    await host.say("delete", "web", "--now", "--wait");
    const path = join(snapshotFolder("first"), "memory-0");
    const byte = flipByte(path, 2 * MEBIBYTE);
    const words = await refused("restore", "web", "first");
    expect(words).toMatch(/memory-0: expected sha256-\S+=, received sha256-\S+=/);
    await expectNoMachine();
    truncateSync(path, 4096);
    expect(await refused("restore", "web", "first")).toContain("bytes, received 4096");
    rmSync(path);
    expect(await refused("restore", "web", "first")).toContain("a file, received ENOENT");
    expect(await refused("restore", "web", "second")).toContain("its own: first");
    expect(byte).toBeNumber();
    await expectNoMachine();
  });
});

skipUnless("snapshots with QEMU that end early", needs, () => {
  test("on a disk without room nothing is left, and the machine goes on", async () => {
    using disk = new SmallDisk(folder.file("artifacts"), "16m");
    chmodSync(disk.path, 0o711);
    await makeHost();
    await host.start();
    await makeMachine();
    disk.fill();
    // Room for what is noted of the machine, and not for its state.
    const filler = join(disk.path, "filler");
    truncateSync(filler, statSync(filler).size - 96 * 1024);
    expect(await refused("snapshot", "web", "first")).toContain("ENOSPC");
    expect(readdirSync(snapshotsFolder())).toEqual([]);
    await host.reaches("web", "running");
    await host.counts("web");
    expectContinuous(host.numbers("web"));
    disk.clear();
    await host.say("snapshot", "web", "first");
    await host.counts("web");
    expectContinuous(host.numbers("web"));
    await host.say("delete", "web", "--now", "--wait");
  });

  test("a worker that is killed in the middle leaves all of it, or nothing", async () => {
    await makeHost();
    await host.start();
    await makeMachine();
    for (const place of snapshotSteps.taken) {
      const step = place.slice("snapshot:".length);
      await killedAt(`vm:${place}`, "snapshot", "web", step);
      await host.reaches("web", "running");
      await host.counts("web");
      expectGrowing(host.numbers("web"));
      expect(isThere(snapshotFolder(step))).toBe(step === "placed");
    }
    expect((await listed()).map(({ snapshot }) => snapshot)).toEqual(["placed"]);
    expect(readdirSync(join(snapshotsFolder(), "web"))).toEqual(["placed"]);
    await host.say("delete", "web", "--now", "--wait");
    for (const place of snapshotSteps.restored) {
      await killedAt(`vm:${place}`, "restore", "web", "placed");
      await expectNoMachine();
    }
    expect(await host.say("restore", "web", "placed")).toStartWith("web: running");
    await host.counts("web");
    expectContinuous(host.numbers("web"));
  });
});

/** Asks a worker that dies there, in the place of the one that runs; another one follows it. */
async function killedAt(place: string, ...words: readonly string[]): Promise<void> {
  await host.kill();
  const environment = { HOSTLER_KILL_AT: place };
  await host.start({ binary: hostlerWithFaults(), environment });
  if (words[0] === "snapshot") await host.reaches("web", "running");
  const { exitCode } = await host.run(...words);
  expect([place, exitCode]).toEqual([place, 111]);
  await host.worker.ended();
  await host.start();
}

/** @returns what was there */
function flipByte(path: string, position: number): number {
  const file = openSync(path, "r+");
  const byte = new Uint8Array(1);
  readSync(file, byte, 0, 1, position);
  const [before = 0] = byte;
  byte[0] = before ^ 1;
  writeSync(file, byte, 0, 1, position);
  closeSync(file);
  return before;
}
