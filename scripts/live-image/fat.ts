/** FAT32 with one file in folders: Microsoft's "FAT32 File System Specification". */
import { ByteImage } from "../byte-image.ts";

const SECTOR = 512;
const reservedSectors = 32;
const tables = 2;
/** With fewer clusters firmware takes it for FAT16. */
const fewestClusters = 65_525;
const END = 0x0fff_ffff;
const entryBytes = 32;
const label = "HOSTLERLIVE";

/**
 * @param options.path names of at most eight letters, the last one with an extension:
 *   "EFI/BOOT/BOOTX64.EFI"
 * @param options.serial 32 bits by which it is told from others
 */
export function makeFat32(options: {
  readonly path: string;
  readonly content: Uint8Array;
  readonly serial: number;
}): Uint8Array {
  const names = options.path.split("/");
  const fileClusters = Math.ceil(options.content.length / SECTOR);
  // A cluster is a sector: the root and each folder take one.
  const used = names.length + fileClusters;
  const clusters = Math.max(used, fewestClusters) + 64;
  const tableSectors = Math.ceil(((clusters + 2) * 4) / SECTOR);
  const dataSector = reservedSectors + tables * tableSectors;
  const image = new ByteImage((dataSector + clusters) * SECTOR);
  writeBootSectors(image, { sectors: dataSector + clusters, tableSectors, serial: options.serial });
  const next = [0x0fff_fff8, END, ...names.map(() => END)];
  const fileCluster = 2 + names.length;
  for (let index = 0; index < fileClusters; index++) {
    next.push(index === fileClusters - 1 ? END : fileCluster + index + 1);
  }
  for (let table = 0; table < tables; table++) {
    const at = (reservedSectors + table * tableSectors) * SECTOR;
    for (const [cluster, value] of next.entries()) image.long(at + cluster * 4, value);
  }
  const clusterAt = (cluster: number) => (dataSector + cluster - 2) * SECTOR;
  for (const [depth, name] of names.entries()) {
    const [folder, child] = [2 + depth, 3 + depth];
    let at = clusterAt(folder);
    if (depth > 0) {
      enter(image, at, { name: ".", cluster: folder });
      // The root is called 0 there.
      enter(image, at + entryBytes, { name: "..", cluster: depth === 1 ? 0 : folder - 1 });
      at += 2 * entryBytes;
    } else {
      // Its label, which the boot sector has as well.
      image.text(at, label);
      image.bytes[at + 11] = 0x08;
      at += entryBytes;
    }
    const isFile = depth === names.length - 1;
    enter(image, at, { name, cluster: child, ...(isFile ? { size: options.content.length } : {}) });
  }
  image.bytes.set(options.content, clusterAt(fileCluster));
  return image.bytes;
}

function writeBootSectors(
  image: ByteImage,
  size: { readonly sectors: number; readonly tableSectors: number; readonly serial: number },
): void {
  for (const at of [0, 6 * SECTOR]) {
    image.bytes.set([0xeb, 0x58, 0x90], at);
    image.text(at + 3, "HOSTLER ");
    image.short(at + 11, SECTOR);
    image.bytes[at + 13] = 1;
    image.short(at + 14, reservedSectors);
    image.bytes[at + 16] = tables;
    image.bytes[at + 21] = 0xf8;
    image.short(at + 24, 63);
    image.short(at + 26, 255);
    image.long(at + 32, size.sectors);
    image.long(at + 36, size.tableSectors);
    image.long(at + 44, 2);
    image.short(at + 48, 1);
    image.short(at + 50, 6);
    image.bytes[at + 64] = 0x80;
    image.bytes[at + 66] = 0x29;
    image.long(at + 67, size.serial);
    image.text(at + 71, `${label}FAT32   `);
    image.short(at + 510, 0xaa55);
  }
  for (const at of [SECTOR, 7 * SECTOR]) {
    image.text(at, "RRaA");
    image.text(at + 484, "rrAa");
    // How many clusters are free, and where to look for one: unknown.
    image.long(at + 488, 0xffff_ffff);
    image.long(at + 492, 0xffff_ffff);
    image.short(at + 510, 0xaa55);
  }
}

/** An entry of a folder; of a folder where it has no size. */
function enter(
  image: ByteImage,
  at: number,
  entry: { readonly name: string; readonly cluster: number; readonly size?: number },
): void {
  const [base = "", extension = ""] = entry.name.startsWith(".")
    ? [entry.name]
    : entry.name.split(".");
  image.text(at, base.padEnd(8) + extension.padEnd(3));
  image.bytes[at + 11] = entry.size === undefined ? 0x10 : 0x20;
  image.short(at + 20, entry.cluster >>> 16);
  image.short(at + 26, entry.cluster & 0xffff);
  image.long(at + 28, entry.size ?? 0);
}
