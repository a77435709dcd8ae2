/** A disk that UEFI starts from: GPT with one EFI system partition. UEFI specification, 5.3. */
import { ByteImage, roundUp } from "../byte-image.ts";
import { makeFat32 } from "./fat.ts";
import { makeUnifiedKernel } from "./unified-kernel.ts";

const SECTOR = 512;
/** Where partitions begin by custom: a mebibyte. */
const firstSector = 2048;
const entries = { count: 128, bytes: 128, sectors: 32 } as const;
const headerBytes = 92;
/** Of an EFI system partition: C12A7328-F81F-11D2-BA4B-00A0C93EC93B. */
const systemPartition = "28732ac11ff8d211ba4b00a0c93ec93b";

/** The same bytes for the same inputs: its identifiers are made of what is in it. */
export function makeBootDisk(options: Parameters<typeof makeUnifiedKernel>[0]): Uint8Array {
  const program = makeUnifiedKernel(options);
  const identity = new Bun.CryptoHasher("sha256").update(program).digest();
  const serial = identity.readUInt32LE(28);
  const files = makeFat32({ path: "EFI/BOOT/BOOTX64.EFI", content: program, serial });
  const sectors = firstSector + roundUp(files.length / SECTOR, firstSector);
  // Behind the partition stand the entries once more, and the header.
  const total = sectors + entries.sectors + 1;
  const disk = new ByteImage(total * SECTOR);
  disk.bytes.set(files, firstSector * SECTOR);
  writeProtectiveRecord(disk, total);
  const partition = { first: firstSector, last: sectors - 1, identity };
  const table = new ByteImage(entries.sectors * SECTOR);
  table.bytes.set(Buffer.from(systemPartition, "hex"), 0);
  table.bytes.set(asGuid(identity.subarray(0, 16)), 16);
  table.quad(32, partition.first);
  table.quad(40, partition.last);
  for (const [index, letter] of [..."hostler live"].entries()) {
    table.short(56 + index * 2, letter.charCodeAt(0));
  }
  disk.bytes.set(table.bytes, 2 * SECTOR);
  disk.bytes.set(table.bytes, sectors * SECTOR);
  const common = { total, sectors, table: table.bytes, identity };
  disk.bytes.set(headerOf({ ...common, own: 1, other: total - 1, tableAt: 2 }), SECTOR);
  const last = headerOf({ ...common, own: total - 1, other: 1, tableAt: sectors });
  disk.bytes.set(last, (total - 1) * SECTOR);
  return disk.bytes;
}

/** A partition of type 0xEE over all of it, for who knows no GPT. */
function writeProtectiveRecord(disk: ByteImage, total: number): void {
  disk.bytes.set([0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff], 446);
  disk.long(454, 1);
  disk.long(458, Math.min(total - 1, 0xffff_ffff));
  disk.short(510, 0xaa55);
}

function headerOf(options: {
  readonly own: number;
  readonly other: number;
  readonly tableAt: number;
  readonly total: number;
  readonly sectors: number;
  readonly table: Uint8Array;
  readonly identity: Buffer;
}): Uint8Array {
  const header = new ByteImage(SECTOR);
  header.text(0, "EFI PART");
  header.long(8, 0x0001_0000);
  header.long(12, headerBytes);
  header.quad(24, options.own);
  header.quad(32, options.other);
  header.quad(40, 2 + entries.sectors);
  header.quad(48, options.sectors - 1);
  header.bytes.set(asGuid(options.identity.subarray(12, 28)), 56);
  header.quad(72, options.tableAt);
  header.long(80, entries.count);
  header.long(84, entries.bytes);
  header.long(88, Bun.hash.crc32(options.table));
  header.long(16, Bun.hash.crc32(header.bytes.subarray(0, headerBytes)));
  return header.bytes;
}

/** Marks 16 bytes as an identifier that was drawn: version 4, variant 1. RFC 9562. */
function asGuid(bytes: Uint8Array): Uint8Array {
  const guid = Uint8Array.from(bytes);
  guid[7] = ((guid[7] ?? 0) & 0x0f) | 0x40;
  guid[8] = ((guid[8] ?? 0) & 0x3f) | 0x80;
  return guid;
}
