/** What stands on a disk, by its magic numbers, and what its partitions are called. */
import { describe, expect, test } from "bun:test";
import {
  partitionNames,
  partitionsOfLoadOption,
} from "../../../src/hardware/disk/partition-tables.ts";
import { findSignatures, type ReadDisk } from "../../../src/hardware/disk/signatures.ts";

const SIZE = 80 * 1024 ** 2;
const KIBIBYTE = 1_024;

/** A disk of zeros but for what is put on it. */
function diskWith(
  put: Readonly<Record<number, string | readonly number[]>>,
  size = SIZE,
): { read: ReadDisk; reads: number[] } {
  const reads: number[] = [];
  const read: ReadDisk = (offset, length) => {
    reads.push(offset);
    if (offset < 0 || offset + length > size) throw new Error(`outside of the disk: ${offset}`);
    const bytes = new Uint8Array(length);
    for (const [at, value] of Object.entries(put)) {
      const start = (Number(at) < 0 ? size : 0) + Number(at);
      const given = typeof value === "string" ? [...new TextEncoder().encode(value)] : value;
      given.forEach((byte, index) => {
        const place = start + index - offset;
        if (place >= 0 && place < length) bytes[place] = byte;
      });
    }
    return bytes;
  };
  return { read, reads };
}

const MD = [0xfc, 0x4e, 0x2b, 0xa9];

describe("signatures", () => {
  test.each<[string, number, string | readonly number[]]>([
    ["GPT", 512, "EFI PART"],
    ["GPT", 4_096, "EFI PART"],
    ["GPT (backup)", -512, "EFI PART"],
    ["GPT (backup)", -4_096, "EFI PART"],
    ["MBR or a boot sector", 510, [0x55, 0xaa]],
    ["ext2, ext3 or ext4", 0x438, [0x53, 0xef]],
    ["xfs", 0, "XFSB"],
    ["btrfs", 0x10040, "_BHRfS_M"],
    ["btrfs", 64 * 1024 ** 2 + 64, "_BHRfS_M"],
    ["vfat", 0x36, "FAT16   "],
    ["vfat", 0x52, "FAT32   "],
    ["exfat", 3, "EXFAT   "],
    ["ntfs", 3, "NTFS    "],
    ["iso9660", 0x8001, "CD001"],
    ["LUKS", 0, [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe]],
    ["LUKS2 (second header)", 0x4000, [0x53, 0x4b, 0x55, 0x4c, 0xba, 0xbe]],
    ["LVM2", 512, "LABELONE"],
    ["LVM2", 1_536, "LABELONE"],
    ["swap", 4_086, "SWAPSPACE2"],
    ["swap", 65_526, "SWAPSPACE2"],
    ["md 1.1", 0, MD],
    ["md 1.2", 4_096, MD],
    ["md 1.0", SIZE - 8 * KIBIBYTE, MD],
    ["md 0.90", SIZE - 64 * KIBIBYTE, MD],
    ["bcache", 4_120, [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82]],
    ["bcachefs", 4_120, [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9]],
    ["zfs", 128 * KIBIBYTE, [0x0c, 0xb1, 0xba, 0]],
    ["zfs", 256 * KIBIBYTE + 128 * KIBIBYTE + 5 * KIBIBYTE, [0x0c, 0xb1, 0xba, 0]],
    ["zfs", SIZE - 256 * KIBIBYTE + 200 * KIBIBYTE, [0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c]],
    ["squashfs", 0, "hsqs"],
    ["f2fs", 1_024, [0x10, 0x20, 0xf5, 0xf2]],
    ["erofs", 1_024, [0xe2, 0xe1, 0xf5, 0xe0]],
    ["Intel RAID", -1_024, "Intel Raid ISM Cfg. Sig. 1.3.00"],
    ["DDF RAID", -512, [0xde, 0x11, 0xde, 0x11]],
    ["bluestore", 0, "bluestore block device"],
    ["VMFS", 1024 ** 2, [0x0d, 0xd0, 0x01, 0xc0]],
  ])("%s at %d", (name, at, bytes) => {
    expect(findSignatures(diskWith({ [at]: bytes }).read, SIZE)).toEqual([name]);
  });

  test("a disk of zeros has none, and is read at a few places, each once", () => {
    const { read, reads } = diskWith({});
    expect(findSignatures(read, SIZE)).toEqual([]);
    expect(new Set(reads).size).toBe(reads.length);
    expect(reads.length).toBeLessThan(200);
  });

  test("our own marks are none: what was begun can be done once more", () => {
    const marks = { 0: "hostlerV", 4096: "hostlerV" };
    expect(findSignatures(diskWith(marks).read, SIZE)).toEqual([]);
  });

  test("several, each once", () => {
    const put = { 510: [0x55, 0xaa], 512: "EFI PART", [-512]: "EFI PART", [0x438]: [0x53, 0xef] };
    expect(findSignatures(diskWith(put).read, SIZE)).toEqual([
      "GPT",
      "GPT (backup)",
      "MBR or a boot sector",
      "ext2, ext3 or ext4",
    ]);
  });

  test("a place that cannot be read is told, and does not hide the others", () => {
    const { read } = diskWith({ 512: "EFI PART" });
    const bad: ReadDisk = (offset, length) => {
      if (offset === 65_536) throw new Error("EIO");
      return read(offset, length);
    };
    expect(findSignatures(bad, SIZE)).toEqual(["GPT", "unreadable at byte 65536"]);
  });

  test.each([512, 1_024, 4_096, 65_536, 300 * KIBIBYTE])("a disk of %d bytes", (size) => {
    expect(findSignatures(diskWith({}, size).read, size)).toEqual([]);
  });
});

/** The header and two entries of a GPT. */
function gpt(block: number): Readonly<Record<number, readonly number[]>> {
  const header = new Uint8Array(block);
  const view = new DataView(header.buffer);
  header.set(new TextEncoder().encode("EFI PART"));
  view.setBigUint64(72, 2n, true);
  view.setUint32(80, 4, true);
  view.setUint32(84, 128, true);
  const entry = (id: number, label: string) => {
    const bytes = new Uint8Array(128);
    bytes.fill(1, 0, 16);
    bytes.set(
      Array.from({ length: 16 }, (_, index) => id + index),
      16,
    );
    [...label].forEach((letter, index) => {
      bytes[56 + index * 2] = letter.charCodeAt(0);
    });
    return [...bytes];
  };
  const second = new Array<number>(128).fill(0);
  return {
    [block]: [...header],
    [2 * block]: [...entry(1, "EFI"), ...second, ...entry(17, "root")],
  };
}

describe("names of partitions", () => {
  test.each([512, 4_096])("GPT with blocks of %d", (block) => {
    const { read } = diskWith(gpt(block));
    expect(partitionNames(read, SIZE, block)).toEqual([
      { id: "04030201-0605-0807-090a-0b0c0d0e0f10", label: "EFI" },
      { id: "14131211-1615-1817-191a-1b1c1d1e1f20", label: "root" },
    ]);
  });

  test("MBR", () => {
    const entry = [0x80, 0, 0, 0, 0x83];
    const put = { 440: [0x78, 0x56, 0x34, 0x12], 462: entry, 510: [0x55, 0xaa] };
    expect(partitionNames(diskWith(put).read, SIZE, 512)).toEqual([
      { id: "12345678-02", label: "" },
    ]);
  });

  test("a table that claims too much, or points outside, has none", () => {
    const odd = { ...gpt(512) };
    const header = [...(odd[512] ?? [])];
    header[72] = 0xff;
    header[79] = 0x7f;
    expect(partitionNames(diskWith({ ...odd, 512: header }).read, SIZE, 512)).toEqual([]);
    header[84] = 1;
    expect(partitionNames(diskWith({ ...odd, 512: header }).read, SIZE, 512)).toEqual([]);
  });

  test("no table, no names", () => {
    expect(partitionNames(diskWith({}).read, SIZE, 512)).toEqual([]);
  });
});

describe("a load option of the firmware", () => {
  const node = (kind: number, part: number, body: readonly number[]) => [
    kind,
    part,
    (body.length + 4) & 0xff,
    (body.length + 4) >> 8,
    ...body,
  ];
  const option = (...nodes: readonly (readonly number[])[]) =>
    new Uint8Array([1, 0, 0, 0, 0, 0, 0x41, 0, 0, 0, ...nodes.flat()]);
  const partition = (format: number) =>
    node(4, 1, [
      ...[2, 0, 0, 0],
      ...new Array<number>(16).fill(0),
      ...Array.from({ length: 16 }, (_, index) => index + 1),
      format,
      format,
    ]);

  test("names a partition of GPT, or of MBR", () => {
    const file = node(4, 4, [0x5c, 0, 0, 0]);
    expect(partitionsOfLoadOption(option(partition(2), file, node(0x7f, 0xff, [])))).toEqual([
      "04030201-0605-0807-090a-0b0c0d0e0f10",
    ]);
    expect(partitionsOfLoadOption(option(partition(1)))).toEqual(["04030201-02"]);
  });

  test("from the network there is none; one that is cut off ends", () => {
    expect(partitionsOfLoadOption(option(node(3, 0x0b, new Array<number>(33).fill(0))))).toEqual(
      [],
    );
    expect(partitionsOfLoadOption(option([4, 1, 200, 0, 1]))).toEqual([]);
    expect(partitionsOfLoadOption(option([4, 1, 0, 0, 1]))).toEqual([]);
    expect(partitionsOfLoadOption(new Uint8Array(3))).toEqual([]);
  });
});
