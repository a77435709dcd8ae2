/** Disks that are read, written over and left alone: the tasks, on loop devices. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync, fsyncSync, openSync, readSync, writeSync } from "node:fs";
import * as v from "valibot";
import { openByName } from "../../src/vetting/perform/disks/planned-disk.ts";
import type { TaskContext } from "../../src/vetting/perform/task.ts";
import { scanDisk } from "../../src/vetting/perform/tasks/scan.ts";
import { Verification, verifyDisk } from "../../src/vetting/perform/tasks/verify.ts";
import type { TaskLine } from "../../src/vetting/protocol-task.ts";
import { type ScanInput, scanReportSchema } from "../../src/vetting/tasks/scan.ts";
import {
  type Interlock,
  type VerifyInput,
  verifyReportSchema,
} from "../../src/vetting/tasks/verify.ts";
import { SeededChance } from "../support/chance.ts";
import { program, skipUnless } from "../support/skips.ts";
import { DiskHost, type LoopDisk, loopDevices, run } from "../support/vetting/loop-disks.ts";
import { rejectionOf } from "../support/wait-for.ts";

const MEBIBYTE = 1024 ** 2;
const SIZE = 8 * MEBIBYTE + 512;

let host: DiskHost;
let told: Parameters<TaskContext["tell"]>[0][];
let context: TaskContext;

beforeEach(() => {
  host = new DiskHost();
  told = [];
  context = {
    signal: new AbortController().signal,
    tell: (line) => told.push(line),
    onQuestion: () => {},
  };
});
afterEach(() => host[Symbol.dispose]());

const planned = (disk: LoopDisk, name = "sda") => ({
  name,
  serial: disk.serial,
  size_bytes: disk.size,
});

const scanInput = (disk: LoopDisk, given: Partial<ScanInput> = {}): ScanInput => ({
  disk: planned(disk),
  block_bytes: MEBIBYTE,
  depth: 4,
  extent: 1,
  most_s: 60,
  ...given,
});

const verifyInput = (disk: LoopDisk, given: Partial<VerifyInput> = {}): VerifyInput => ({
  disk: planned(disk),
  block_bytes: MEBIBYTE,
  depth: 4,
  allowed: "expected",
  most_s: 60,
  ...given,
});

skipUnless("reading a disk", loopDevices, () => {
  test("all of it, with progress", async () => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const before = disk.digest();
    const report = await scanDisk(scanInput(disk), context, host.tree);
    expect(v.is(scanReportSchema, report)).toBe(true);
    expect(report.read).toMatchObject({
      planned_bytes: SIZE,
      done_bytes: SIZE,
      failed: { count: 0 },
    });
    expect(report.engine.name).toBe("hostler");
    expect(told.at(-1)).toEqual({ kind: "progress", done: SIZE, total: SIZE } satisfies TaskLine);
    expect(disk.digest()).toBe(before);
  });

  test("blocks of any size, and logical blocks of 4096", async () => {
    const disk = host.add("sda", { serial: "S1", size: 8 * MEBIBYTE, sector: 4_096 });
    const report = await scanDisk(scanInput(disk, { block_bytes: 1_000 }), context, host.tree);
    expect(report.read.done_bytes).toBe(8 * MEBIBYTE);
  });

  test("a part of it, the same each time", async () => {
    const disk = host.add("sda", { serial: "S1", size: 64 * MEBIBYTE });
    const input = scanInput(disk, { extent: 0.25 });
    const report = await scanDisk(input, context, host.tree);
    expect(report.read.done_bytes).toBeGreaterThanOrEqual(16 * MEBIBYTE);
    expect(report.read.done_bytes).toBeLessThan(24 * MEBIBYTE);
  });

  test("what cannot be read is bounded to the block", async () => {
    const disk = host.add("sda", { serial: "S1", size: 8 * MEBIBYTE });
    const good = 6 * MEBIBYTE + 68 * 1024;
    disk.cut(good);
    const report = await scanDisk(scanInput(disk), context, host.tree);
    const [first] = report.read.failed.ranges;
    expect(first?.offset).toBeGreaterThanOrEqual(good);
    expect(first?.offset).toBeLessThan(good + 4_096);
    expect(first?.reason).toBe("EIO");
    expect(report.read.done_bytes + report.read.failed.bytes).toBe(8 * MEBIBYTE);
  });

  test.each<[string, (disk: LoopDisk) => void, string]>([
    [
      "another disk has its name",
      (disk) => {
        host.name("sdz", disk);
        host.add("sda", { serial: "S2", size: SIZE });
      },
      "Expected under sda the disk S1",
    ],
    [
      "it is another one's name",
      (disk) => host.name("sda", disk, { serial: "" }),
      "without a serial",
    ],
  ])("%s: refused", async (_name, change, message) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    change(disk);
    const refusal = await rejectionOf(scanDisk(scanInput(disk), context, host.tree));
    expect(String(refusal)).toContain(message);
    expect(String(refusal)).toContain("TaskRefused");
  });

  test("it is not there: refused", async () => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const input = scanInput(disk, { disk: planned(disk, "sdb") });
    const refusal = await rejectionOf(scanDisk(input, context, host.tree));
    expect(String(refusal)).toContain("Cannot open the disk sdb: No such file or directory");
  });
});

skipUnless("writing a disk over", loopDevices, () => {
  test("each unit is written, read back, and says where it belongs", async () => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const report = await verifyDisk(verifyInput(disk), context, host.tree);
    expect(v.is(verifyReportSchema, report)).toBe(true);
    expect(report).toMatchObject({
      kind: "verified",
      overwritten: [],
      miscompared: 0,
      written: { done_bytes: SIZE, failed: { count: 0 } },
      read: { done_bytes: SIZE, failed: { count: 0 } },
    });
    const file = openSync(disk.file, "r");
    for (const offset of [0, 5 * MEBIBYTE + 4_096, SIZE - 512]) {
      const mark = new DataView(new ArrayBuffer(32));
      readSync(file, mark, 0, 32, offset);
      expect(new TextDecoder().decode(mark.buffer.slice(0, 8))).toBe("hostlerV");
      expect(mark.getBigUint64(24, true)).toBe(BigInt(offset));
    }
    closeSync(file);
    expect(told.at(-1)).toEqual({ kind: "progress", done: 2 * SIZE, total: 2 * SIZE });
  });

  test("once more, over what it wrote itself", async () => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    await verifyDisk(verifyInput(disk), context, host.tree);
    const again = await verifyDisk(verifyInput(disk), context, host.tree);
    expect(again.kind).toBe("verified");
  });

  test("bits that flip between the two ways are found, N of N", async () => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const opened = openByName(host.tree, "sda", "exclusive");
    if (typeof opened === "number") throw new Error(`open: ${opened}`);
    using held = opened;
    const nonce = new Uint8Array(16).fill(7);
    const over = new Verification(held, { input: verifyInput(disk), nonce, context });
    await over.write();
    const units = flipBits(disk, 50);
    const { read, miscompared } = await over.readBack();
    expect(miscompared).toBe(units.size);
    expect(new Set(read.failed.ranges.map(({ offset }) => offset))).toEqual(units);
    expect(read.failed.ranges.every(({ reason }) => reason.startsWith("1 bit differs"))).toBe(true);
  });

  test("the time is over: what was written is read back, and nothing else", async () => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const report = await verifyDisk(verifyInput(disk, { most_s: 0 }), context, host.tree);
    if (report.kind !== "verified") throw new Error(report.kind);
    expect(report.written.done_bytes).toBeLessThan(SIZE);
    expect(report.read.planned_bytes).toBeLessThanOrEqual(report.written.done_bytes);
    expect(report.miscompared).toBe(0);
  });

  test("what cannot be written fails", async () => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const input = verifyInput(disk);
    const opened = openByName(host.tree, "sda", "read");
    if (typeof opened === "number") throw new Error(`open: ${opened}`);
    using held = opened;
    // A descriptor for reading alone: each write is refused, with EBADF.
    const over = new Verification(held, { input, nonce: new Uint8Array(16), context });
    const before = disk.digest();
    const written = await over.write();
    expect(written).toMatchObject({ done_bytes: 0 });
    expect(written.failed.ranges[0]?.reason).toContain("EBADF");
    expect(disk.digest()).toBe(before);
  });
});

/** Letters, one byte each, at places of the disk. */
function put(disk: LoopDisk, texts: Readonly<Record<number, string>>): void {
  const file = openSync(disk.file, "r+");
  for (const [offset, text] of Object.entries(texts)) {
    const bytes = Buffer.from(text, "latin1");
    writeSync(file, bytes, 0, bytes.length, Number(offset));
  }
  closeSync(file);
}

/** One bit in each of so many units; those are other ones each time a bit is drawn. */
function flipBits(disk: LoopDisk, count: number): Set<number> {
  const chance = new SeededChance(0xf11b);
  const units = new Set<number>();
  const file = openSync(disk.file, "r+");
  while (units.size < count) {
    const at = chance.below(disk.size);
    const unit = at - (at % 4_096);
    if (units.has(unit)) continue;
    units.add(unit);
    const byte = new Uint8Array(1);
    readSync(file, byte, 0, 1, at);
    byte[0] = (byte[0] ?? 0) ^ (1 << chance.below(8));
    writeSync(file, byte, 0, 1, at);
  }
  fsyncSync(file);
  closeSync(file);
  return units;
}

skipUnless("every interlock", [...loopDevices, program("mkfs.ext4", "e2fsprogs")], () => {
  /** Nothing was written, and these are the reasons. */
  async function expectLeftAlone(
    disk: LoopDisk,
    expected: readonly Interlock[],
    given: Partial<VerifyInput> = {},
  ): Promise<string> {
    const before = disk.digest();
    const report = await verifyDisk(verifyInput(disk, given), context, host.tree);
    expect(disk.digest()).toBe(before);
    if (report.kind !== "refused") throw new Error("it was written");
    expect(v.is(verifyReportSchema, report)).toBe(true);
    expect([...new Set(report.closed.map(({ interlock }) => interlock))]).toEqual([...expected]);
    expect(told).toEqual([]);
    return report.closed.map(({ reason }) => reason).join("; ");
  }
  const either = ["expected", "wipe"] as const;

  test.each(either)("another serial (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    host.name("sda", disk, { serial: "S9" });
    const reason = await expectLeftAlone(disk, ["serial"], { allowed });
    expect(reason).toBe("sda is to be S1, and is S9");
  });

  test.each(either)("two disks swapped their names since the plan (%s)", async (allowed) => {
    const one = host.add("sda", { serial: "S1", size: SIZE });
    const two = host.add("sdb", { serial: "S2", size: SIZE });
    const before = two.digest();
    host.name("sda", two);
    host.name("sdb", one);
    await expectLeftAlone(one, ["serial"], { allowed });
    expect(two.digest()).toBe(before);
  });

  test.each(either)("the name leads to another device than /sys says (%s)", async (allowed) => {
    const one = host.add("sda", { serial: "S1", size: SIZE });
    const two = host.add("sdb", { serial: "S2", size: SIZE });
    const before = two.digest();
    run("ln", ["-sfn", two.device, host.path("dev/sda")]);
    await expectLeftAlone(one, ["serial"], { allowed });
    expect(two.digest()).toBe(before);
  });

  test.each(either)("a device that is no disk of the inventory (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    run("rm", ["-r", host.path("sys/block/sda")]);
    await expectLeftAlone(disk, ["serial"], { allowed });
  });

  test.each(either)("a serial of two disks (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const twin = host.add("sdb", { serial: "S1", size: SIZE });
    const before = twin.digest();
    await expectLeftAlone(disk, ["ambiguous"], { allowed });
    expect(twin.digest()).toBe(before);
  });

  test.each(either)("another size (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const other = { ...planned(disk), size_bytes: SIZE - 512 };
    await expectLeftAlone(disk, ["size"], { allowed, disk: other });
  });

  test.each(either)("read-only (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE, readOnly: true });
    await expectLeftAlone(disk, ["read-only"], { allowed });
  });

  test.each(either)("mounted (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    run("mkfs.ext4", ["-q", "-F", disk.device]);
    run("mkdir", [host.path("mounted")]);
    run("mount", ["-o", "ro", disk.device, host.path("mounted")]);
    try {
      run("cp", ["/proc/self/mountinfo", host.path("proc/self/mountinfo")]);
      await expectLeftAlone(disk, ["claimed", "mounted"], { allowed });
    } finally {
      run("umount", [host.path("mounted")]);
    }
  });

  test.each(either)("mounted, as the list of mounts says alone (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const line = "9 1 0:99 / /data rw - btrfs /dev/sda rw";
    host.write("proc/self/mountinfo", line);
    const reason = await expectLeftAlone(disk, ["mounted"], { allowed });
    expect(reason).toBe("/dev/sda is mounted at /data");
  });

  test.each(either)("held by somebody else for themselves (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const opened = openByName(host.tree, "sda", "exclusive");
    if (typeof opened === "number") throw new Error(`open: ${opened}`);
    using _held = opened;
    await expectLeftAlone(disk, ["claimed"], { allowed });
  });

  test.each(either)("something is built on it (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    host.write("sys/block/sda/holders/dm-0", "");
    await expectLeftAlone(disk, ["holders"], { allowed });
  });

  test.each(either)("swapped to (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    host.write("proc/swaps", "Filename\n/dev/sda partition 1 0 -2");
    await expectLeftAlone(disk, ["mounted"], { allowed });
  });

  test.each(either)("this host was booted from it (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    host.write("proc/cmdline", "root=/dev/sda ro");
    await expectLeftAlone(disk, ["boot-disk"], { allowed });
  });

  test.each(either)("it is not there (%s)", async (allowed) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    run("rm", [host.path("dev/sda")]);
    await expectLeftAlone(disk, ["unknown"], { allowed });
  });

  const contents: readonly (readonly [string, (disk: LoopDisk) => void, string])[] = [
    ["ext4", (disk) => run("mkfs.ext4", ["-q", "-F", disk.file]), "ext2, ext3 or ext4"],
    ["swap", (disk) => run("mkswap", [disk.file]), "swap"],
    ["GPT", (disk) => put(disk, { 510: "\x55\xaa", 512: "EFI PART" }), "GPT"],
    [
      "the backup of a GPT alone",
      (disk) => put(disk, { [SIZE - 512]: "EFI PART" }),
      "GPT (backup)",
    ],
    ["MBR", (disk) => put(disk, { 510: "\x55\xaa" }), "MBR or a boot sector"],
  ];

  test.each(contents)("%s stands on it", async (_name, fill, said) => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    fill(disk);
    const reason = await expectLeftAlone(disk, ["signature"]);
    expect(reason).toContain(`it holds ${said}. Whoever gives that up asks for a wipe`);
  });

  test.each(contents)(
    "%s: a wipe of this serial overrides it, and says what went",
    async (_name, fill, said) => {
      const disk = host.add("sda", { serial: "S1", size: SIZE });
      fill(disk);
      const report = await verifyDisk(verifyInput(disk, { allowed: "wipe" }), context, host.tree);
      if (report.kind !== "verified") throw new Error(JSON.stringify(report));
      expect(report.overwritten).toContain(said);
      expect(told[0]).toMatchObject({ kind: "log", level: "warn" });
    },
  );

  test("all that is wrong is told, and not the first of it alone", async () => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    run("mkswap", [disk.file]);
    host.name("sda", disk, { serial: "S9" });
    host.write("proc/cmdline", "root=/dev/sda ro");
    host.write("sys/block/sda/holders/md0", "");
    await expectLeftAlone(disk, ["serial", "holders", "boot-disk", "signature"]);
  });

  test("while it is written nobody can mount it", async () => {
    const disk = host.add("sda", { serial: "S1", size: SIZE });
    const opened = openByName(host.tree, "sda", "exclusive");
    if (typeof opened === "number") throw new Error(`open: ${opened}`);
    using _held = opened;
    expect(() => run("mkswap", [disk.device])).toThrow();
    expect(openByName(host.tree, "sda", "exclusive")).toBeNumber();
  });
});
