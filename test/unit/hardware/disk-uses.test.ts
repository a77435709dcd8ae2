/** Who uses a disk, and from which a host was booted, as files of /sys and /proc tell it. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { bootReasons, usesOf } from "../../../src/hardware/disk/disk-uses.ts";
import { HostTree } from "../../../src/hardware/host-tree.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

let folder: TemporaryFolder;

beforeEach(() => {
  folder = temporaryFolder();
  write("proc/cmdline", "console=ttyS0");
  write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority");
  write("proc/self/mountinfo", "22 1 0:21 / /proc rw - proc proc rw");
  for (const disk of ["sda", "sdb"]) {
    write(`sys/block/${disk}/dev`, disk === "sda" ? "8:0" : "8:16");
    mkdirSync(join(folder.path, `sys/block/${disk}/holders`));
  }
  write("sys/block/sda/sda1/dev", "8:1");
  write("sys/block/sda/sda1/partition", "1");
  mkdirSync(join(folder.path, "sys/block/sda/sda1/holders"));
});
afterEach(() => folder[Symbol.dispose]());

function write(path: string, content: string | Uint8Array): void {
  const full = join(folder.path, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, content);
}

const usesFor = (disk = "sda") =>
  usesOf(new HostTree(folder.path), disk).map(({ kind, reason }) => `${kind}: ${reason}`);

const mount = (number: string, source: string, place = "/mnt") =>
  `30 22 ${number} / ${place} rw,relatime shared:1 - ext4 ${source} rw`;

describe("uses", () => {
  test("none", () => {
    expect(usesFor()).toEqual([]);
  });

  test.each([
    ["the disk", "8:0", "/dev/sda"],
    ["a partition", "8:1", "/dev/sda1"],
    ["a partition, whose name is another one by now", "8:1", "/dev/root"],
    ["a file system without a number of its own", "0:50", "/dev/sda1"],
  ])("mounted: %s", (_name, number, source) => {
    write("proc/self/mountinfo", mount(number, source, "/with\\040blank"));
    expect(usesFor()).toEqual([`mounted: ${source} is mounted at /with blank`]);
    expect(usesFor("sdb")).toEqual([]);
  });

  test("mounted where the first process lives, and not here", () => {
    write("proc/1/mountinfo", mount("8:1", "/dev/sda1"));
    expect(usesFor()).toEqual(["mounted: /dev/sda1 is mounted at /mnt"]);
  });

  test("by a link", () => {
    write("dev/sda1", "");
    mkdirSync(join(folder.path, "dev/disk/by-id"), { recursive: true });
    symlinkSync("../../sda1", join(folder.path, "dev/disk/by-id/x"));
    write("proc/self/mountinfo", mount("0:50", "/dev/disk/by-id/x"));
    expect(usesFor()).toHaveLength(1);
  });

  test("swapped to", () => {
    write("proc/swaps", "Filename Type Size\n/dev/sda1 partition 100 0 -2");
    expect(usesFor()).toEqual(["mounted: the kernel swaps to /dev/sda1"]);
  });

  test("what is built on it, at whatever height, and what that is mounted as", () => {
    write("sys/block/sda/sda1/holders/md0", "");
    write("sys/block/md0/dev", "9:0");
    write("sys/block/md0/holders/dm-0", "");
    write("sys/block/dm-0/dev", "253:0");
    write("proc/self/mountinfo", mount("253:0", "/dev/mapper/data"));
    expect(usesFor()).toEqual([
      "holders: md0 is built on sda1",
      "holders: dm-0 is built on md0",
      "mounted: /dev/mapper/data is mounted at /mnt",
    ]);
  });

  test("holders that hold each other have an end", () => {
    write("sys/block/sda/holders/dm-0", "");
    write("sys/block/dm-0/holders/dm-0", "");
    expect(usesFor()).toHaveLength(2);
  });

  test("lines that are none", () => {
    write("proc/self/mountinfo", "\nx\n30 22 8:1\n- - -\n");
    expect(usesFor()).toEqual([]);
  });
});

describe("the disk that it was booted from", () => {
  const ID = "04030201-0605-0807-090a-0b0c0d0e0f10";
  const reasons = (partitions = [{ id: ID, label: "EFI" }]) =>
    bootReasons(new HostTree(folder.path), "sda", partitions);
  const efi = (name: string) => `sys/firmware/efi/efivars/${name}`;
  const wide = (text: string) =>
    new Uint8Array([7, 0, 0, 0, ...[...text].flatMap((letter) => [letter.charCodeAt(0), 0])]);

  test("none", () => {
    expect(reasons()).toEqual([]);
  });

  test("the boot loader names its partition", () => {
    write(efi("LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"), wide(ID.toUpperCase()));
    expect(reasons()).toEqual([`the boot loader names its partition ${ID}`]);
    expect(reasons([])).toEqual([]);
  });

  test("the firmware's option names it", () => {
    const global = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
    const body = [2, 0, 0, 0, ...new Array<number>(16).fill(0)];
    const guid = Array.from({ length: 16 }, (_, index) => index + 1);
    const option = [7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 4, 1, 42, 0, ...body, ...guid, 2, 2];
    write(efi(`BootCurrent-${global}`), new Uint8Array([6, 0, 0, 0, 0x1a, 0]));
    write(efi(`Boot001A-${global}`), new Uint8Array(option));
    expect(reasons()).toEqual([`the firmware's Boot001A names its partition ${ID}`]);
  });

  test.each([
    "root=/dev/sda1",
    "root=/dev/sda",
    `root=PARTUUID=${ID.toUpperCase()}`,
    "resume=PARTLABEL=EFI",
  ])("the kernel was told %s", (word) => {
    write("proc/cmdline", `quiet ${word} ro`);
    expect(reasons()).toEqual([`the kernel was told ${word}`]);
  });

  test.each(["root=/dev/sdb1", "root=PARTUUID=0000", "root=UUID=x", "sda", "x=sda1", "root="])(
    "%s names another",
    (word) => {
      write("proc/cmdline", word);
      expect(reasons()).toEqual([]);
    },
  );

  test("a live image of ours is one by its label", () => {
    expect(reasons([{ id: "x", label: "hostler live" }])).toEqual([
      "its partition hostler live is a live image",
    ]);
  });
});
