/**
 * Writes a disk that a machine's firmware starts from: FAT with EFI/BOOT/BOOTX64.EFI, which counts
 * and tells each number on the first serial port, as scripts/test-guest.ts does.
 *
 *   bun scripts/efi-guest.ts FILE
 */
import { ByteImage } from "./byte-image.ts";
import { readWords, runScript, ScriptError } from "./terminal.ts";

const usage = "Usage: bun scripts/efi-guest.ts FILE";

const SECTOR = 512;

/** Turns of an empty loop between two lines. */
const USUAL_PAUSE = 3_000_000;

/** Where it is loaded does not matter: every jump is relative. */
function program(pause: number): Uint8Array {
  const print = 62;
  const bytes: number[] = [];
  const add = (...more: readonly number[]) => void bytes.push(...more);
  const call = () => {
    const distance = print - (bytes.length + 5);
    add(0xe8, ...littleEndian(distance, 4));
  };
  // The firmware's watchdog would end what runs for minutes; without interrupts it does not.
  add(0xfa, 0x31, 0xdb); // cli; xor ebx, ebx
  const turn = bytes.length;
  add(0xff, 0xc3, 0xb0, 0x54); // inc ebx; mov al, "T"
  call();
  add(0xbe, 8, 0, 0, 0, 0x89, 0xdf); // mov esi, 8; mov edi, ebx
  const digit = bytes.length;
  add(0xc1, 0xc7, 4, 0x89, 0xf8, 0x83, 0xe0, 0x0f); // rol edi, 4; mov eax, edi; and eax, 15
  add(0x3c, 10, 0x72, 2, 0x04, 39, 0x04, 48); // cmp al, 10; jb +2; add al, 39; add al, "0"
  call();
  add(0xff, 0xce, 0x75, (digit - (bytes.length + 4)) & 0xff); // dec esi; jnz digit
  add(0xb0, 10); // mov al, "\n"
  call();
  add(0xb9, ...littleEndian(pause, 4)); // mov ecx, pause
  add(0xff, 0xc9, 0x75, 0xfc); // dec ecx; jnz back
  add(0xeb, (turn - (bytes.length + 2)) & 0xff); // jmp turn
  if (bytes.length !== print) throw new Error(`Bug: print stands at ${bytes.length}`);
  add(0x88, 0xc4); // mov ah, al
  add(0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xf7); // until its port has room
  add(0x66, 0xba, 0xf8, 0x03, 0x88, 0xe0, 0xee, 0xc3); // mov dx, 0x3f8; mov al, ah; out; ret
  return Uint8Array.from(bytes);
}

function littleEndian(value: number, length: number): number[] {
  return Array.from({ length }, (_byte, index) => (value >> (index * 8)) & 0xff);
}

/** A PE32+ file of one section: Microsoft's "PE Format". */
function makeExecutable(code: Uint8Array): Uint8Array {
  const page = 4096;
  const image = new ByteImage(2 * SECTOR);
  const header = 64;
  image.text(0, "MZ");
  image.long(60, header);
  image.text(header, "PE\0\0");
  const file = header + 4;
  image.short(file, 0x8664); // x86-64
  image.short(file + 2, 1); // sections
  image.short(file + 16, 240); // bytes of the optional header
  image.short(file + 18, 0x22); // executable, and takes large addresses
  const optional = file + 20;
  image.short(optional, 0x20b);
  image.long(optional + 4, SECTOR); // bytes of code
  image.long(optional + 16, page); // the first instruction
  image.long(optional + 20, page);
  image.long(optional + 32, page); // alignment in memory
  image.long(optional + 36, SECTOR); // and in the file
  image.long(optional + 56, 2 * page);
  image.long(optional + 60, SECTOR); // bytes of headers
  image.short(optional + 68, 10); // an EFI application
  image.long(optional + 108, 16); // directories, all of them empty
  const section = optional + 240;
  image.text(section, ".text");
  image.long(section + 8, code.length);
  image.long(section + 12, page);
  image.long(section + 16, SECTOR);
  image.long(section + 20, SECTOR);
  image.long(section + 36, 0x6000_0020); // code, that is read and executed
  image.bytes.set(code, SECTOR);
  return image.bytes;
}

/** A floppy disk's layout of FAT12: 1.44 MB, clusters of one sector. */
const layout = { sectors: 2880, tableSectors: 9, rootEntries: 224 } as const;
const rootAt = (1 + 2 * layout.tableSectors) * SECTOR;
const dataAt = rootAt + layout.rootEntries * 32;
const clusterAt = (cluster: number) => dataAt + (cluster - 2) * SECTOR;
const clusters = { efi: 2, boot: 3, program: 4 } as const;

/** @returns a disk of 1.44 MB */
export function makeEfiDisk(options: { readonly pause?: number } = {}): Uint8Array {
  const disk = new ByteImage(layout.sectors * SECTOR);
  disk.bytes.set([0xeb, 0x3c, 0x90], 0);
  disk.text(3, "HOSTLER ");
  disk.short(11, SECTOR);
  disk.bytes.set([1, 1, 0, 2], 13); // sectors of a cluster, reserved ones, tables
  disk.short(17, layout.rootEntries);
  disk.short(19, layout.sectors);
  disk.bytes[21] = 0xf0;
  disk.short(22, layout.tableSectors);
  disk.short(24, 18);
  disk.short(26, 2);
  disk.bytes[38] = 0x29;
  disk.text(43, "HOSTLER EFIFAT12   ");
  disk.short(510, 0xaa55);
  for (const table of [1, 1 + layout.tableSectors]) {
    // Twelve bits each: media, end; EFI, BOOT: end; the program: its second sector, end.
    disk.bytes.set([0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x05, 0xf0, 0xff], table * SECTOR);
  }
  const executable = makeExecutable(program(options.pause ?? USUAL_PAUSE));
  enter(disk, rootAt, { name: "EFI        ", cluster: clusters.efi });
  for (const [folder, parent] of [
    [clusters.efi, 0],
    [clusters.boot, clusters.efi],
  ] as const) {
    enter(disk, clusterAt(folder), { name: ".          ", cluster: folder });
    enter(disk, clusterAt(folder) + 32, { name: "..         ", cluster: parent });
  }
  enter(disk, clusterAt(clusters.efi) + 64, { name: "BOOT       ", cluster: clusters.boot });
  enter(disk, clusterAt(clusters.boot) + 64, {
    name: "BOOTX64 EFI",
    cluster: clusters.program,
    size: executable.length,
  });
  disk.bytes.set(executable, clusterAt(clusters.program));
  return disk.bytes;
}

/** An entry of a folder; of a folder where it has no size. */
function enter(
  disk: ByteImage,
  at: number,
  entry: { readonly name: string; readonly cluster: number; readonly size?: number },
): void {
  disk.text(at, entry.name);
  disk.bytes[at + 11] = entry.size === undefined ? 0x10 : 0x20;
  disk.short(at + 26, entry.cluster);
  disk.long(at + 28, entry.size ?? 0);
}

async function main(): Promise<number> {
  const { positionals } = readWords(usage, { allowPositionals: true });
  const [path] = positionals;
  if (path === undefined || positionals.length > 1) throw new ScriptError(usage, { exitCode: 100 });
  await Bun.write(path, makeEfiDisk());
  return 0;
}

if (import.meta.main) await runScript(main);
