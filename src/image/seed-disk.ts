import type { Bytes, Milliseconds } from "../units/units.ts";

/**
 * A NoCloud seed for cloud-init: an ISO 9660 disk named "cidata", with user-data, meta-data and
 * network-config in its root. Their names are in lower case by Joliet and by Rock Ridge, so that a
 * guest which knows only one of the two finds them: ECMA-119; Joliet Specification; IEEE P1282.
 * Pure: the same arguments give the same bytes.
 */

export interface SeedFiles {
  readonly userData: string;
  readonly metaData: string;
  /** undefined: cloud-init asks by DHCP on its own. */
  readonly networkConfig: string | undefined;
}

/** Going over it is a RangeError: who calls has checked what people wrote. */
export const seedLimits = {
  /** Bytes of each file: 1 MiB. */
  fileBytes: 1024 ** 2,
} as const;

const sectorBytes = 2048;
const volumeName = "cidata";

/** The sectors before the files. */
const sectors = {
  primary: 16,
  joliet: 17,
  end: 18,
  paths: 19,
  pathsBig: 20,
  jolietPaths: 21,
  jolietPathsBig: 22,
  root: 23,
  jolietRoot: 24,
  files: 25,
} as const;

interface PlacedFile {
  readonly name: string;
  /** For a guest that knows neither Joliet nor Rock Ridge. */
  readonly shortName: string;
  readonly content: Buffer;
  readonly sector: number;
}

/** @param time since 1970: of the files and of the disk */
export function makeSeedDisk(seed: SeedFiles, time: Milliseconds): Uint8Array {
  const files = placeFiles(seed);
  const { sector, content } = files.at(-1) as PlacedFile;
  const count = sector + sectorsOf(content.length);
  const disk = Buffer.alloc(count * sectorBytes);
  const put = (bytes: Buffer, at: number) => bytes.copy(disk, at * sectorBytes);
  const common = { count, time };
  put(descriptor({ ...common, kind: "primary" }), sectors.primary);
  put(descriptor({ ...common, kind: "joliet" }), sectors.joliet);
  put(Buffer.from("\u00ffCD001\u0001", "latin1"), sectors.end);
  put(pathTable(sectors.root, "little"), sectors.paths);
  put(pathTable(sectors.root, "big"), sectors.pathsBig);
  put(pathTable(sectors.jolietRoot, "little"), sectors.jolietPaths);
  put(pathTable(sectors.jolietRoot, "big"), sectors.jolietPathsBig);
  put(folder(files, time, "primary"), sectors.root);
  put(folder(files, time, "joliet"), sectors.jolietRoot);
  for (const file of files) put(file.content, file.sector);
  return disk;
}

/** What cloud-init needs to know at least: a new id has it run anew. */
export function defaultMetaData(machine: { readonly id: string; readonly name: string }): string {
  const [id, name] = [machine.id, machine.name].map((text) => JSON.stringify(text));
  return `instance-id: ${id}\nlocal-hostname: ${name}\n`;
}

/** In the order of their names, which is the same for long and for short ones. */
function placeFiles({ userData, metaData, networkConfig }: SeedFiles): PlacedFile[] {
  const contents: (readonly [name: string, shortName: string, content: string | undefined])[] = [
    ["meta-data", "META_DAT.;1", metaData],
    ["network-config", "NETWORK_.;1", networkConfig],
    ["user-data", "USER_DAT.;1", userData],
  ];
  let sector: number = sectors.files;
  const files: PlacedFile[] = [];
  for (const [name, shortName, text] of contents) {
    if (text === undefined) continue;
    const content = Buffer.from(text);
    if (content.length > seedLimits.fileBytes) {
      throw new RangeError(`Expected at most ${seedLimits.fileBytes} bytes of ${name}`);
    }
    files.push({ name, shortName, content, sector });
    sector += sectorsOf(content.length);
  }
  return files;
}

/** An empty file has a sector as well, so that no two stand at the same place. */
const sectorsOf = (length: Bytes) => Math.max(1, Math.ceil(length / sectorBytes));

type Tree = "primary" | "joliet";

/** Primary and supplementary volume descriptor: ECMA-119, 8.4 and 8.5. */
function descriptor(disk: { kind: Tree; count: number; time: Milliseconds }): Buffer {
  const { kind, count, time } = disk;
  const isJoliet = kind === "joliet";
  const bytes = Buffer.alloc(sectorBytes);
  const words = (text: string, at: number, length: number) => {
    const padded = text.padEnd(isJoliet ? Math.floor(length / 2) : length, " ");
    (isJoliet ? bigText(padded) : Buffer.from(padded, "latin1")).copy(bytes, at, 0, length);
  };
  bytes[0] = isJoliet ? 2 : 1;
  bytes.write("CD001\u0001", 1, "latin1");
  words("", 8, 32);
  words(volumeName, 40, 32);
  both32(bytes, 80, count);
  // UCS-2, level 3.
  if (isJoliet) bytes.write("%/E", 88, "latin1");
  both16(bytes, 120, 1);
  both16(bytes, 124, 1);
  both16(bytes, 128, sectorBytes);
  both32(bytes, 132, pathTableBytes);
  bytes.writeUInt32LE(isJoliet ? sectors.jolietPaths : sectors.paths, 140);
  bytes.writeUInt32BE(isJoliet ? sectors.jolietPathsBig : sectors.pathsBig, 148);
  folderRecord("\0", isJoliet ? sectors.jolietRoot : sectors.root, time).copy(bytes, 156);
  for (const at of [190, 318, 446, 574]) words("", at, 128);
  for (const at of [702, 739, 776]) words("", at, 37);
  for (const at of [813, 830]) bytes.write(longTime(time), at, "latin1");
  for (const at of [847, 864]) bytes.write("0".repeat(16), at, "latin1");
  bytes[881] = 1;
  return bytes;
}

const pathTableBytes = 10;

/** The root alone: ECMA-119, 9.4. */
function pathTable(root: number, order: "little" | "big"): Buffer {
  const bytes = Buffer.alloc(pathTableBytes);
  bytes[0] = 1;
  if (order === "little") {
    bytes.writeUInt32LE(root, 2);
    bytes.writeUInt16LE(1, 6);
  } else {
    bytes.writeUInt32BE(root, 2);
    bytes.writeUInt16BE(1, 6);
  }
  return bytes;
}

/** The root's records; they fit into a sector. */
function folder(files: readonly PlacedFile[], time: Milliseconds, kind: Tree): Buffer {
  const isJoliet = kind === "joliet";
  const sector = isJoliet ? sectors.jolietRoot : sectors.root;
  const directory = rockMode(0o40_555, 2);
  const own = isJoliet ? [] : [rockBegin, directory, rockName];
  const records = [
    folderRecord("\0", sector, time, own),
    folderRecord("\u0001", sector, time, isJoliet ? [] : [directory]),
    ...files.map((file) => {
      const { name, shortName, content } = file;
      return record({
        name: isJoliet ? bigText(name) : Buffer.from(shortName, "latin1"),
        sector: file.sector,
        length: content.length,
        isFolder: false,
        time,
        more: isJoliet ? [] : [rockMode(0o100_444, 1), rockFileName(name)],
      });
    }),
  ];
  const bytes = Buffer.concat(records);
  if (bytes.length > sectorBytes) throw new Error("Bug: the seed's folder is too long");
  return bytes;
}

function folderRecord(
  name: string,
  sector: number,
  time: Milliseconds,
  more: readonly Buffer[] = [],
): Buffer {
  const bytes = Buffer.from(name, "latin1");
  return record({ name: bytes, sector, length: sectorBytes, isFolder: true, time, more });
}

/** A directory record: ECMA-119, 9.1. */
function record(entry: {
  readonly name: Buffer;
  readonly sector: number;
  readonly length: Bytes;
  readonly isFolder: boolean;
  readonly time: Milliseconds;
  /** Fields of Rock Ridge. */
  readonly more: readonly Buffer[];
}): Buffer {
  const { name, sector, length, isFolder, time, more } = entry;
  const plain = 33 + name.length + ((name.length + 1) % 2);
  const rock = Buffer.concat(more);
  const bytes = Buffer.alloc(plain + rock.length + (rock.length % 2));
  bytes[0] = bytes.length;
  both32(bytes, 2, sector);
  both32(bytes, 10, length);
  shortTime(time).copy(bytes, 18);
  bytes[25] = isFolder ? 2 : 0;
  both16(bytes, 28, 1);
  bytes[32] = name.length;
  name.copy(bytes, 33);
  rock.copy(bytes, plain);
  return bytes;
}

/** SP: the system use sharing protocol is used, from the first byte on. */
const rockBegin = Buffer.from([0x53, 0x50, 7, 1, 0xbe, 0xef, 0]);

/** ER: which extension: its name, and neither a description nor a source. */
const rockName = Buffer.from("ER\u0012\u0001\u000a\u0000\u0000\u0001RRIP_1991A", "latin1");

/** PX: mode, links, user, group. */
function rockMode(mode: number, links: number): Buffer {
  const bytes = Buffer.alloc(36);
  bytes.write("PX\u0024\u0001", "latin1");
  both32(bytes, 4, mode);
  both32(bytes, 12, links);
  return bytes;
}

/** NM: the name in full. */
function rockFileName(name: string): Buffer {
  const begin = Buffer.from([0x4e, 0x4d, 5 + name.length, 1, 0]);
  return Buffer.concat([begin, Buffer.from(name, "latin1")]);
}

/** A number in both orders of bytes, the little end first. */
function both32(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value, at);
  bytes.writeUInt32BE(value, at + 4);
}

function both16(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt16LE(value, at);
  bytes.writeUInt16BE(value, at + 2);
}

/** UCS-2, the big end first. */
const bigText = (text: string) => Buffer.from(text, "utf16le").swap16();

/** ECMA-119, 9.1.5: years since 1900, and no offset from UTC. */
function shortTime(time: Milliseconds): Buffer {
  const [year = 0, ...rest] = partsOf(time);
  return Buffer.from([year - 1900, ...rest, 0]);
}

/** ECMA-119, 8.4.26.1: digits, hundredths, and no offset from UTC. */
function longTime(time: Milliseconds): string {
  const [year = 0, ...rest] = partsOf(time);
  const digits = rest.map((part) => String(part).padStart(2, "0")).join("");
  return `${String(year).padStart(4, "0")}${digits}00\0`;
}

/** A moment that ISO 9660 can say: from 1970 to 2155. */
function partsOf(time: Milliseconds): number[] {
  const last = Date.UTC(2155, 11, 31);
  const date = new Date(Math.min(Math.max(time, 0), last));
  const day = [date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate()];
  return [...day, date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()];
}
