/**
 * Reads what a kernel's file says of itself. Pure: bytes come in. Nothing in a file is believed
 * before it was held against the file's length.
 */
import type { Bytes } from "../units/units.ts";

/** How something is packed; the names are those of the programs that unpack it. */
export type Packing = "gzip" | "zstd" | "xz" | "lz4" | "lzma" | "bzip2" | "lzop";

export type KernelImage = BzImage | ArmImage | ZbootImage | GzipFile | NoKernel;

/** x86: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". */
export interface BzImage {
  readonly kind: "bzImage";
  /** 0x020f for 2.15. */
  readonly bootProtocol: number;
  readonly isLoadedHigh: boolean;
  readonly is64Bit: boolean;
  readonly isLoadableAbove4GiB: boolean;
  /** Of the command line, with the byte that ends it. */
  readonly commandLineLimit: Bytes;
  /** "7.3.4 (user@host) #1 SMP …" */
  readonly version: string | undefined;
  readonly length: FileLength;
  /** The packed kernel; undefined where the file is cut off or the header tells none. */
  readonly payload: Payload | undefined;
  /** The file carries a signature; whose, the kernel says when it loads it. */
  readonly isSigned: boolean;
}

/** arm64: Documentation/arch/arm64/booting.rst, "Call the kernel image". */
export interface ArmImage {
  readonly kind: "Image";
  /** An Image.gz, which was unpacked to be looked at. */
  readonly isPacked: boolean;
  /** What it takes of memory; none is told by kernels before 3.17, which cannot be loaded. */
  readonly memoryBytes: bigint;
  readonly version: string | undefined;
  readonly length: FileLength;
  readonly isSigned: boolean;
}

/** An EFI program that unpacks a kernel: drivers/firmware/efi/libstub/zboot-header.S. */
export interface ZbootImage {
  readonly kind: "zboot";
  readonly packing: string;
}

/** It may be an Image.gz, once it is unpacked. */
export interface GzipFile {
  readonly kind: "gzip";
}

export interface NoKernel {
  readonly kind: "none";
  /** What it is instead; completes "found: …". */
  readonly found: string;
}

export interface FileLength {
  readonly actual: Bytes;
  /** What the header says that the file has at least; undefined where it does not say. */
  readonly least: Bytes | undefined;
}

export interface Payload {
  readonly packing: Packing | undefined;
  readonly packed: Uint8Array;
}

/** Longest version that is read out of a file. */
const versionBytesLimit = 256;

/** Looks at the whole file of a kernel. It never throws. */
export function parseKernelImage(file: Uint8Array): KernelImage {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  if (hasText(bytes, setup.magic, "HdrS")) return parseBzImage(bytes);
  if (hasText(bytes, arm.magic, "ARM\x64")) return parseArmImage(bytes);
  if (hasText(bytes, 0, "MZ") && hasText(bytes, 4, "zimg")) {
    return { kind: "zboot", packing: textAt(bytes, 24, 32) };
  }
  if (packingOf(bytes) === "gzip") return { kind: "gzip" };
  return { kind: "none", found: describeFile(bytes) };
}

/** First bytes, in hexadecimal: lib/decompress.c and the formats themselves. */
const packings: readonly (readonly [begin: string, packing: Packing])[] = [
  ["1f8b", "gzip"],
  ["28b52ffd", "zstd"],
  ["fd377a585a", "xz"],
  // The older format of lz4, which the kernel knows alone.
  ["02214c18", "lz4"],
  ["5d0000", "lzma"],
  ["425a68", "bzip2"],
  ["894c5a4f", "lzop"],
];

/** @returns undefined for what is not packed, or in a way that no kernel knows */
export function packingOf(bytes: Uint8Array): Packing | undefined {
  const begin = Buffer.from(bytes.subarray(0, 8)).toString("hex");
  return packings.find(([first]) => begin.startsWith(first))?.[1];
}

const setup = {
  sectors: 0x1f1,
  size: 0x1f4,
  peOffset: 0x3c,
  magic: 0x202,
  protocol: 0x206,
  versionOffset: 0x20e,
  loadFlags: 0x211,
  moreLoadFlags: 0x236,
  commandLineSize: 0x238,
  payloadOffset: 0x248,
  payloadLength: 0x24c,
  end: 0x250,
} as const;
const sectorBytes = 512;

/** From this boot protocol on, the header has the flags that kexec_file_load(2) asks for. */
export const leastBootProtocol = 0x020c;

function parseBzImage(bytes: Buffer): BzImage {
  // Of a file that ends within its header the rest reads as zeros, and its length tells.
  const header = Buffer.alloc(setup.end);
  bytes.copy(header, 0, 0, setup.end);
  const bootProtocol = header.readUInt16LE(setup.protocol);
  const flags = bootProtocol < leastBootProtocol ? 0 : header.readUInt16LE(setup.moreLoadFlags);
  // Zero sectors stand for four, in kernels older than all others.
  const setupBytes = ((header[setup.sectors] || 4) + 1) * sectorBytes;
  const least = setupBytes + header.readUInt32LE(setup.size) * 16;
  const versionOffset = header.readUInt16LE(setup.versionOffset);
  return {
    kind: "bzImage",
    bootProtocol,
    isLoadedHigh: ((header[setup.loadFlags] ?? 0) & 1) !== 0,
    is64Bit: (flags & 1) !== 0,
    isLoadableAbove4GiB: (flags & 2) !== 0,
    commandLineLimit: header.readUInt32LE(setup.commandLineSize),
    version: versionOffset === 0 ? undefined : versionAt(bytes, versionOffset + sectorBytes),
    length: { actual: bytes.length, least: Math.max(least, setup.end) },
    payload: payloadOf(bytes, header, setupBytes),
    isSigned: isSigned(bytes, header.readUInt32LE(setup.peOffset)),
  };
}

function payloadOf(bytes: Buffer, header: Buffer, setupBytes: number): Payload | undefined {
  const begin = setupBytes + header.readUInt32LE(setup.payloadOffset);
  const end = begin + header.readUInt32LE(setup.payloadLength);
  if (header.readUInt32LE(setup.payloadLength) <= 4 || end > bytes.length) return undefined;
  const packing = packingOf(bytes.subarray(begin));
  // Behind what is packed stand four bytes with its size; gzip has them in its own format.
  return { packing, packed: bytes.subarray(begin, packing === "gzip" ? end : end - 4) };
}

function versionAt(bytes: Buffer, offset: number): string | undefined {
  const text = textAt(bytes, offset, versionBytesLimit);
  return text === "" ? undefined : text;
}

const arm = { memoryBytes: 16, magic: 56, peOffset: 60, end: 64 } as const;

function parseArmImage(bytes: Buffer): ArmImage {
  const isWhole = bytes.length >= arm.end;
  // Only with the EFI stub the first instruction reads as "MZ", and the header tells of sections.
  const peOffset = isWhole && hasText(bytes, 0, "MZ") ? bytes.readUInt32LE(arm.peOffset) : 0;
  const banner = bytes.indexOf("Linux version ");
  const version = banner < 0 ? undefined : versionAt(bytes, banner + "Linux version ".length);
  return {
    kind: "Image",
    isPacked: false,
    memoryBytes: isWhole ? bytes.readBigUInt64LE(arm.memoryBytes) : 0n,
    version: version?.trimEnd(),
    length: { actual: bytes.length, least: isWhole ? leastPeLength(bytes, peOffset) : arm.end },
    isSigned: isSigned(bytes, peOffset),
  };
}

/** Where a PE file's headers lie: "PE Format" of Microsoft, of which EFI programs are a kind. */
interface PeHeaders {
  readonly optional: number;
  readonly sections: number;
  readonly sectionCount: number;
}

/** The signature and the header of fixed size. */
const peFixedBytes: Bytes = 24;

function peHeaders(bytes: Buffer, offset: number): PeHeaders | undefined {
  if (offset === 0 || offset + peFixedBytes > bytes.length) return undefined;
  if (!hasText(bytes, offset, "PE\0\0")) return undefined;
  const optional = offset + peFixedBytes;
  const sections = optional + bytes.readUInt16LE(offset + 20);
  const sectionCount = bytes.readUInt16LE(offset + 6);
  if (sections + sectionCount * peSection.bytes > bytes.length) return undefined;
  return { optional, sections, sectionCount };
}

const peSection = { bytes: 40, rawBytes: 16, rawOffset: 20 } as const;

/** @returns how long a PE file is at least, as far as it tells; undefined for any other */
function leastPeLength(bytes: Buffer, offset: number): Bytes | undefined {
  if (offset === 0) return undefined;
  const fixed = offset + peFixedBytes;
  if (fixed > bytes.length) return fixed;
  if (!hasText(bytes, offset, "PE\0\0")) return undefined;
  const headers = peHeaders(bytes, offset);
  // The table of sections is cut off.
  if (headers === undefined) return bytes.length + 1;
  const ends = sectionOffsets(headers).map(
    (at) =>
      bytes.readUInt32LE(at + peSection.rawBytes) + bytes.readUInt32LE(at + peSection.rawOffset),
  );
  return ends.length === 0 ? undefined : Math.max(...ends);
}

function sectionOffsets({ sections, sectionCount }: PeHeaders): number[] {
  return Array.from({ length: sectionCount }, (_, index) => sections + index * peSection.bytes);
}

/** The fifth data directory of a PE32+ file: its table of certificates. */
const peCertificates = { magic: 0x20b, directories: 108, offset: 144, bytes: 8 } as const;

function isSigned(bytes: Buffer, offset: number): boolean {
  const headers = peHeaders(bytes, offset);
  if (headers === undefined) return false;
  const entry = headers.optional + peCertificates.offset;
  if (entry + peCertificates.bytes > headers.sections) return false;
  if (bytes.readUInt16LE(headers.optional) !== peCertificates.magic) return false;
  if (bytes.readUInt32LE(headers.optional + peCertificates.directories) < 5) return false;
  return bytes.readUInt32LE(entry) !== 0 && bytes.readUInt32LE(entry + 4) !== 0;
}

/** What people take for a kernel, by the name that they know it by. */
function describeFile(bytes: Buffer): string {
  if (bytes.length === 0) return "an empty file";
  if (hasText(bytes, 0, "\x7fELF")) return "an ELF file, as vmlinux is";
  if (hasText(bytes, 0, "MZ")) {
    const headers = bytes.length < 64 ? undefined : peHeaders(bytes, bytes.readUInt32LE(60));
    const isUnified =
      headers !== undefined &&
      sectionOffsets(headers).some((at) => textAt(bytes, at, 8) === ".linux");
    return isUnified ? "a unified kernel image (EFI)" : "an EFI or DOS program without a kernel";
  }
  const packing = packingOf(bytes);
  if (packing !== undefined) return `a file packed by ${packing}`;
  return isText(bytes.subarray(0, 4096)) ? "a text file" : "a file that is no kernel";
}

/** UTF-8 without the control characters that no text has; its last character may be cut. */
function isText(bytes: Uint8Array): boolean {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
  } catch {
    return false;
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is about control characters.
  return !/[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]/.test(text);
}

function hasText(bytes: Buffer, offset: number, text: string): boolean {
  return bytes.toString("latin1", offset, offset + text.length) === text;
}

/** Up to the byte that ends it. */
function textAt(bytes: Buffer, offset: number, limit: Bytes): string {
  const text = bytes.toString("latin1", offset, offset + limit);
  return text.split(/[\0\n]/, 1)[0] ?? "";
}

/** CONFIG_IKCONFIG puts the .config into the kernel, packed by gzip, between two marks. */
const marks = { begin: Buffer.from("IKCFG_ST\x1f\x8b", "latin1"), end: Buffer.from("IKCFG_ED") };
const markBytes = "IKCFG_ST".length;

/** Largest packed .config that is kept; Debian's have some 60 KiB. */
export const packedConfigurationLimit: Bytes = 1024 * 1024;

/** Looks for the .config in an unpacked kernel that comes in pieces, and keeps no more of it. */
export class ConfigurationSearch {
  #kept = Buffer.alloc(0);
  #hasBegun = false;

  /** @returns the .config, packed by gzip, once it is complete */
  push(piece: Uint8Array): Uint8Array | undefined {
    this.#kept = Buffer.concat([this.#kept, piece]);
    if (!this.#hasBegun) {
      const begin = this.#kept.indexOf(marks.begin);
      // A mark may lie across two pieces.
      const from = begin < 0 ? Math.max(0, this.#kept.length - marks.begin.length + 1) : begin;
      this.#kept = this.#kept.subarray(begin < 0 ? from : begin + markBytes);
      this.#hasBegun = begin >= 0;
      if (!this.#hasBegun) return undefined;
    }
    const end = this.#kept.indexOf(marks.end);
    if (end >= 0 && end <= packedConfigurationLimit) return this.#kept.subarray(0, end);
    if (this.#kept.length <= packedConfigurationLimit) return undefined;
    // It only looked like the mark.
    this.#hasBegun = false;
    this.#kept = Buffer.alloc(0);
    return undefined;
  }
}
