/**
 * What stands on a disk, by its magic numbers: tables of partitions, file systems, volumes, parts
 * of arrays. The places are those of libblkid. Pure: whoever has the disk reads.
 */

/** @throws where these bytes cannot be read */
export type ReadDisk = (offset: number, length: number) => Uint8Array;

interface Magic {
  readonly name: string;
  /** From the beginning of the disk or, where it is negative, from its end. */
  readonly at: number;
  readonly bytes: string | readonly number[];
}

const KIBIBYTE = 1_024;
const MEBIBYTE = 1_024 ** 2;

const magics: readonly Magic[] = [
  { name: "GPT", at: 512, bytes: "EFI PART" },
  { name: "GPT", at: 4_096, bytes: "EFI PART" },
  { name: "GPT (backup)", at: -512, bytes: "EFI PART" },
  { name: "GPT (backup)", at: -4_096, bytes: "EFI PART" },
  { name: "MBR or a boot sector", at: 510, bytes: [0x55, 0xaa] },
  { name: "Apple partition map", at: 512, bytes: [0x50, 0x4d, 0, 0] },
  { name: "ext2, ext3 or ext4", at: 0x438, bytes: [0x53, 0xef] },
  { name: "xfs", at: 0, bytes: "XFSB" },
  { name: "btrfs", at: 64 * KIBIBYTE + 64, bytes: "_BHRfS_M" },
  { name: "btrfs", at: 64 * MEBIBYTE + 64, bytes: "_BHRfS_M" },
  { name: "vfat", at: 0x36, bytes: "FAT1" },
  { name: "vfat", at: 0x52, bytes: "FAT32" },
  { name: "exfat", at: 3, bytes: "EXFAT   " },
  { name: "ntfs", at: 3, bytes: "NTFS    " },
  { name: "iso9660", at: 0x8001, bytes: "CD001" },
  { name: "squashfs", at: 0, bytes: "hsqs" },
  { name: "f2fs", at: 1_024, bytes: [0x10, 0x20, 0xf5, 0xf2] },
  { name: "erofs", at: 1_024, bytes: [0xe2, 0xe1, 0xf5, 0xe0] },
  { name: "nilfs2", at: 1_030, bytes: [0x34, 0x34] },
  { name: "hfsplus", at: 1_024, bytes: "H+" },
  { name: "apfs", at: 32, bytes: "NXSB" },
  { name: "jfs", at: 32 * KIBIBYTE, bytes: "JFS1" },
  { name: "reiserfs", at: 64 * KIBIBYTE + 52, bytes: "ReIsEr" },
  { name: "LUKS", at: 0, bytes: [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe] },
  { name: "LUKS2 (second header)", at: 0x4000, bytes: [0x53, 0x4b, 0x55, 0x4c, 0xba, 0xbe] },
  { name: "LUKS2 (second header)", at: 0x8000, bytes: [0x53, 0x4b, 0x55, 0x4c, 0xba, 0xbe] },
  { name: "md 1.1", at: 0, bytes: [0xfc, 0x4e, 0x2b, 0xa9] },
  { name: "md 1.2", at: 4_096, bytes: [0xfc, 0x4e, 0x2b, 0xa9] },
  {
    name: "bcache",
    at: 4_096 + 24,
    bytes: [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca],
  },
  {
    name: "bcachefs",
    at: 4_096 + 24,
    bytes: [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9],
  },
  { name: "dm-integrity", at: 0, bytes: "integrt" },
  { name: "dm-verity", at: 0, bytes: "verity" },
  { name: "bluestore", at: 0, bytes: "bluestore block device" },
  { name: "Oracle ASM", at: 32, bytes: "ORCLDISK" },
  { name: "VMFS", at: MEBIBYTE, bytes: [0x0d, 0xd0, 0x01, 0xc0] },
  { name: "Intel RAID", at: -1_024, bytes: "Intel Raid ISM Cfg. Sig." },
  { name: "DDF RAID", at: -512, bytes: [0xde, 0x11, 0xde, 0x11] },
  // The end of the first page, of each size that a page has.
  ...[4, 8, 16, 64].flatMap((page) => [
    { name: "swap", at: page * KIBIBYTE - 10, bytes: "SWAPSPACE2" },
    { name: "swap", at: page * KIBIBYTE - 10, bytes: "SWAP-SPACE" },
  ]),
  // LVM's label stands in one of the first four sectors.
  ...[0, 1, 2, 3].map((sector) => ({ name: "LVM2", at: sector * 512, bytes: "LABELONE" })),
];

const MD: readonly number[] = [0xfc, 0x4e, 0x2b, 0xa9];
const ZFS_LABEL = 256 * KIBIBYTE;
const ZFS_UBERBLOCKS = 128 * KIBIBYTE;
const ZFS_SLOT = KIBIBYTE;
const ZFS_MAGIC: readonly number[] = [0x0c, 0xb1, 0xba, 0x00];

/**
 * Names of all that is found, each once. A place that cannot be read may hold anything: it is
 * told as "unreadable at byte N".
 */
export function findSignatures(read: ReadDisk, size: number): string[] {
  const found = new Set<string>();
  const looked = windowed(read, size, found);
  for (const { name, at, bytes } of [...magics, ...mdAtTheEnd(size)]) {
    const offset = at < 0 ? size + at : at;
    if (isAt(looked, offset, bytes)) found.add(name);
  }
  for (const label of zfsLabels(size)) if (isZfs(looked, label)) found.add("zfs");
  return [...found];
}

/** The version 0.90 and 1.0 of md's superblock, whose places depend on the size. */
function mdAtTheEnd(size: number): Magic[] {
  const sectors = Math.floor(size / 512);
  return [
    { name: "md 0.90", at: Math.floor(size / 65_536) * 65_536 - 65_536, bytes: MD },
    { name: "md 1.0", at: Math.floor((sectors - 16) / 8) * 8 * 512, bytes: MD },
  ];
}

function zfsLabels(size: number): number[] {
  const end = Math.floor(size / ZFS_LABEL) * ZFS_LABEL;
  return [0, ZFS_LABEL, end - 2 * ZFS_LABEL, end - ZFS_LABEL];
}

type Look = (offset: number, length: number) => Uint8Array | undefined;

/** Reads whole windows, each once, as a disk is read; outside of the disk there is nothing. */
function windowed(read: ReadDisk, size: number, unreadable: Set<string>): Look {
  const WINDOW = 4_096;
  const windows = new Map<number, Uint8Array | undefined>();
  const windowAt = (start: number): Uint8Array | undefined => {
    if (windows.has(start)) return windows.get(start);
    let bytes: Uint8Array | undefined;
    try {
      bytes = read(start, Math.min(WINDOW, size - start)).slice();
    } catch {
      unreadable.add(`unreadable at byte ${start}`);
    }
    windows.set(start, bytes);
    return bytes;
  };
  return (offset, length) => {
    if (offset < 0 || offset + length > size) return undefined;
    const start = Math.floor(offset / WINDOW) * WINDOW;
    return windowAt(start)?.subarray(offset - start, offset - start + length);
  };
}

function isAt(look: Look, offset: number, bytes: Magic["bytes"]): boolean {
  const wanted =
    typeof bytes === "string" ? [...bytes].map((letter) => letter.charCodeAt(0)) : bytes;
  const found = look(offset, wanted.length);
  return found?.length === wanted.length && wanted.every((byte, index) => found[index] === byte);
}

function isZfs(look: Look, label: number): boolean {
  for (let at = ZFS_UBERBLOCKS; at < ZFS_LABEL; at += ZFS_SLOT) {
    const big = [...ZFS_MAGIC].reverse();
    const offset = label + at;
    if (isAt(look, offset, ZFS_MAGIC) || isAt(look, offset + 4, big)) return true;
  }
  return false;
}
