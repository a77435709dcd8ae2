/** What a finished kernel is and has: a bzImage, its release, and what it was configured with. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { ScriptError } from "../terminal.ts";

export interface GuestKernel {
  /** A bzImage. */
  readonly path: string;
  /** As uname -r gives it: "6.1.0-48-amd64". */
  readonly release: string;
  /** What it was configured with, such as CONFIG_UNIX: "y"; undefined when it does not tell. */
  readonly options: ReadonlyMap<string, string> | undefined;
}

/** @param text a kernel's .config; what is not set is left out */
export function parseOptions(text: string): ReadonlyMap<string, string> {
  const options = new Map<string, string>();
  for (const [, name = "", value = ""] of text.matchAll(/^(CONFIG_\w+)=(.*)$/gm)) {
    options.set(name, value);
  }
  return options;
}

/** Where a bzImage says what: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". */
const header = {
  setupSectors: 0x1f1,
  magic: 0x202,
  versionOffset: 0x20e,
  payloadOffset: 0x248,
  payloadLength: 0x24c,
} as const;
const sectorBytes = 512;

/**
 * The kernel in a file that a person names. It does not tell its options when they are not in it,
 * or when this machine lacks the program that unpacks it.
 * @throws ScriptError (100) when the file holds no kernel
 */
export function readNamedKernel(path: string): GuestKernel {
  const image = existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
  const isKernel = image.length > 4096 && image.toString("latin1", header.magic, 518) === "HdrS";
  if (!isKernel) throw new ScriptError(`${path} is not a kernel (bzImage).`, { exitCode: 100 });
  const version = image.readUInt16LE(header.versionOffset) + sectorBytes;
  const [release = ""] = image.toString("latin1", version, version + 128).split(/[ \0]/);
  const embedded = embeddedConfiguration(image);
  return { path, release, options: embedded === undefined ? undefined : parseOptions(embedded) };
}

/** CONFIG_IKCONFIG puts the .config into the kernel, packed, between two marks. */
function embeddedConfiguration(image: Buffer): string | undefined {
  const begin =
    (image.readUInt8(header.setupSectors) + 1) * sectorBytes +
    image.readUInt32LE(header.payloadOffset);
  // After the packed kernel stand four bytes with its unpacked size.
  const end = begin + image.readUInt32LE(header.payloadLength) - 4;
  const kernel = unpack(image.subarray(begin, end));
  const mark = Buffer.from("IKCFG_ST\u001f\u008b", "latin1");
  const place = kernel?.indexOf(mark) ?? -1;
  if (kernel === undefined || place < 0) return undefined;
  const packed = kernel.subarray(place + 8, kernel.indexOf("IKCFG_ED", place));
  return new TextDecoder().decode(Bun.gunzipSync(new Uint8Array(packed)));
}

/** The programs that unpack what a kernel may be packed with, by the first bytes. */
const unpackers: readonly { readonly begin: string; readonly argv: readonly string[] }[] = [
  { begin: "1f8b", argv: ["gzip", "-dc"] },
  { begin: "fd377a585a", argv: ["xz", "-dc"] },
  { begin: "28b52ffd", argv: ["zstd", "-dc"] },
];

function unpack(packed: Buffer): Buffer | undefined {
  const begin = packed.toString("hex", 0, 8);
  const unpacker = unpackers.find((candidate) => begin.startsWith(candidate.begin));
  const [program = "", ...words] = unpacker?.argv ?? [];
  if (program === "") return undefined;
  const { status, stdout } = spawnSync(program, words, { input: packed, maxBuffer: 2 ** 30 });
  return status === 0 ? stdout : undefined;
}
