/** Files of kernels made by hand: a header with what a test is about, and what is packed in it. */
import type { Packing } from "../../src/live-update/kernel-image.ts";

/** What a kernel has that keeps what is preserved. */
export const liveUpdateOptions = {
  CONFIG_64BIT: "y",
  CONFIG_BLK_DEV_INITRD: "y",
  CONFIG_RD_GZIP: "y",
  CONFIG_KEXEC_FILE: "y",
  CONFIG_KEXEC_HANDOVER: "y",
  CONFIG_LIVEUPDATE: "y",
  CONFIG_LIVEUPDATE_MEMFD: "y",
} as const;

/** An unpacked kernel, which carries these options as CONFIG_IKCONFIG does. */
export function makeKernel(
  options: Readonly<Record<string, string>> | undefined,
): Buffer<ArrayBuffer> {
  const filling = Buffer.alloc(300_000, "kernel");
  if (options === undefined) return filling;
  const lines = Object.entries(options).map(([name, value]) => `${name}=${value}\n`);
  const text = `# CONFIG_DEFERRED_STRUCT_PAGE_INIT is not set\n${lines.join("")}`;
  const packed = Bun.gzipSync(Buffer.from(text));
  // The search must not stop at what only begins like the mark.
  const marked = ["IKCFG_ST but not", "IKCFG_ST", packed, "IKCFG_ED"];
  return Buffer.concat([filling, ...marked.map((part) => Buffer.from(part as string)), filling]);
}

/** Packs as the kernel's build does: whatever is not gzip is followed by four bytes of size. */
export function pack(kernel: Uint8Array<ArrayBuffer>, packing: Packing): Buffer<ArrayBuffer> {
  if (packing === "gzip") return Buffer.from(Bun.gzipSync(kernel));
  const size = Buffer.alloc(4);
  size.writeUInt32LE(kernel.length);
  if (packing === "zstd") return Buffer.concat([Bun.zstdCompressSync(kernel), size]);
  const words = packing === "lz4" ? ["lz4", "-l", "-c"] : [packing, "-c"];
  const { stdout, exitCode } = Bun.spawnSync(words, { stdin: kernel });
  if (exitCode !== 0) throw new Error(`${words.join(" ")} ended with ${exitCode}`);
  return Buffer.concat([stdout, size]);
}

export interface BzImageOptions {
  readonly payload?: Uint8Array;
  readonly bootProtocol?: number;
  /** At 0x211: bit 0 is LOADED_HIGH. */
  readonly loadFlags?: number;
  /** At 0x236: bit 0 is for 64-bit, bit 1 for above 4 GiB. */
  readonly moreLoadFlags?: number;
  readonly commandLineSize?: number;
  readonly version?: string;
  readonly isSigned?: boolean;
}

const setupSectors = 3;
const setupBytes = (setupSectors + 1) * 512;
const payloadOffset = 64;

export function makeBzImage(options: BzImageOptions = {}): Buffer<ArrayBuffer> {
  const payload = options.payload ?? pack(makeKernel(liveUpdateOptions), "gzip");
  const bodyBytes = Math.ceil((payloadOffset + payload.length) / 16) * 16;
  const image = Buffer.alloc(setupBytes + bodyBytes);
  image.writeUInt8(setupSectors, 0x1f1);
  image.writeUInt32LE(bodyBytes / 16, 0x1f4);
  image.write("HdrS", 0x202, "latin1");
  image.writeUInt16LE(options.bootProtocol ?? 0x020f, 0x206);
  image.writeUInt16LE(0x400, 0x20e);
  image.writeUInt8(options.loadFlags ?? 1, 0x211);
  image.writeUInt16LE(options.moreLoadFlags ?? 0x7f, 0x236);
  image.writeUInt32LE(options.commandLineSize ?? 2047, 0x238);
  image.writeUInt32LE(payloadOffset, 0x248);
  image.writeUInt32LE(payload.length, 0x24c);
  image.write(`${options.version ?? "7.3.4 (user@host) #1 SMP Debian 7.3.4-1"}\0`, 0x600, "latin1");
  image.set(payload, setupBytes + payloadOffset);
  writePe(image, { at: 0x80, pointer: 0x3c, sections: [], isSigned: options.isSigned ?? false });
  return image;
}

export interface ArmImageOptions {
  readonly kernel?: Uint8Array;
  readonly memoryBytes?: bigint;
  /** Without it the header tells of no sections, and so not how long the file is. */
  readonly hasEfiStub?: boolean;
  readonly version?: string;
  readonly isSigned?: boolean;
}

export function makeArmImage(options: ArmImageOptions = {}): Buffer<ArrayBuffer> {
  const kernel = options.kernel ?? makeKernel(liveUpdateOptions);
  const banner = `Linux version ${options.version ?? "7.3.4 (user@host) (gcc) #1 SMP"}\n\0`;
  const body = Buffer.concat([Buffer.from(banner), kernel]);
  const headBytes = 4096;
  const image = Buffer.concat([Buffer.alloc(headBytes), body]);
  image.writeBigUInt64LE(options.memoryBytes ?? BigInt(image.length * 2), 16);
  image.write("ARM\x64", 56, "latin1");
  if (options.hasEfiStub === false) return image;
  image.write("MZ", 0, "latin1");
  const sections = [{ name: ".text", offset: headBytes, bytes: body.length }];
  writePe(image, { at: 0x80, pointer: 60, sections, isSigned: options.isSigned ?? false });
  return image;
}

/** An EFI program with this section, such as a unified kernel image's ".linux". */
export function makeEfiProgram(section: string): Buffer<ArrayBuffer> {
  const image = Buffer.alloc(4096);
  image.write("MZ", 0, "latin1");
  const sections = [{ name: section, offset: 1024, bytes: 1024 }];
  writePe(image, { at: 0x80, pointer: 60, sections, isSigned: false });
  return image;
}

/** The headers of a PE32+ file, as the EFI stub has them. */
function writePe(
  image: Buffer,
  options: {
    readonly at: number;
    readonly pointer: number;
    readonly sections: readonly { name: string; offset: number; bytes: number }[];
    readonly isSigned: boolean;
  },
): void {
  const { at, pointer, sections, isSigned } = options;
  const optional = at + 24;
  const optionalBytes = 160;
  image.writeUInt32LE(at, pointer);
  image.write("PE\0\0", at, "latin1");
  image.writeUInt16LE(sections.length, at + 6);
  image.writeUInt16LE(optionalBytes, at + 20);
  image.writeUInt16LE(0x20b, optional);
  image.writeUInt32LE(6, optional + 108);
  if (isSigned) {
    image.writeUInt32LE(image.length, optional + 144);
    image.writeUInt32LE(1_472, optional + 148);
  }
  sections.forEach((section, index) => {
    const entry = optional + optionalBytes + index * 40;
    image.write(section.name, entry, "latin1");
    image.writeUInt32LE(section.bytes, entry + 16);
    image.writeUInt32LE(section.offset, entry + 20);
  });
}
