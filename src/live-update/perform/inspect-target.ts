/**
 * Reads what a kernel, its initrd and this host tell, for target-findings.ts to judge. Everything
 * that is read or unpacked has a limit, and nothing of it is executed.
 */
import { constants, readFileSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { release } from "node:os";
import { basename, dirname, join } from "node:path";
import { Readable } from "node:stream";
import { promisify } from "node:util";
import { createGunzip, createZstdDecompress, gunzip } from "node:zlib";
import {
  isBuiltIn,
  type KernelConfiguration,
  parseKernelConfiguration,
} from "../../units/linux-kernel.ts";
import type { Bytes } from "../../units/units.ts";
import {
  type ArmImage,
  type BzImage,
  ConfigurationSearch,
  type KernelImage,
  type Packing,
  parseKernelImage,
} from "../kernel-image.ts";
import {
  type HostPolicy,
  type Initrd,
  isSameBuild,
  type Target,
  type TargetConfiguration,
} from "../target-findings.ts";

export interface TargetRequest {
  /**
   * Paths. Whoever loads what was looked at opens it first, and names it as /proc/self/fd/N: a
   * path may be another file a moment later.
   */
  readonly kernel: string;
  readonly initrd?: string | undefined;
  readonly commandLine: string;
}

export interface InspectOptions {
  /** Where the programs lie that unpack what we cannot. */
  readonly programPath?: string;
  /** For configurations: what the kernel was called before it was opened. */
  readonly kernelName?: string | undefined;
}

/** Largest file that is read as a kernel; Debian's have 8 to 12 MiB. */
export const kernelBytesLimit: Bytes = 256 * 1024 * 1024;
/** So much of an unpacked kernel is looked through; those with all of it built in have 300 MiB. */
export const unpackedBytesLimit: Bytes = 512 * 1024 * 1024;
/** Largest .config; Debian's have 260 KiB. */
export const configurationBytesLimit: Bytes = 8 * 1024 * 1024;
/** So much of an initrd is read: its beginning tells how it is packed. */
const initrdBeginBytes: Bytes = 16;
/** A program that takes longer to unpack a kernel is killed. */
const unpackMillisecondsLimit = 60_000;

const standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Looks at a target as it is now. What cannot be read is a part of the answer, no error. */
export async function inspectTarget(
  request: TargetRequest,
  options: InspectOptions = {},
): Promise<Target> {
  const host = await readHostPolicy();
  const image = await readImage(request.kernel);
  return {
    commandLine: request.commandLine,
    host,
    image: image.parsed,
    initrd: await readInitrd(request.initrd),
    configuration: await readConfiguration(image, host, {
      kernelName: options.kernelName ?? request.kernel,
      programPath: options.programPath ?? standardPath,
    }),
  };
}

interface ReadImage {
  readonly parsed: Target["image"];
  /** The file; of an Image.gz what was in it. */
  readonly bytes: Uint8Array;
}

async function readImage(path: string): Promise<ReadImage> {
  const file = await readWhole(path, kernelBytesLimit);
  if ("reason" in file) {
    return { parsed: { kind: "unreadable", reason: file.reason }, bytes: new Uint8Array() };
  }
  const parsed = parseKernelImage(file.bytes);
  return parsed.kind === "gzip" ? await openGzip(file.bytes, parsed) : { parsed, ...file };
}

async function openGzip(packed: Uint8Array, parsed: KernelImage): Promise<ReadImage> {
  try {
    const limit = { maxOutputLength: kernelBytesLimit };
    const bytes = await promisify<Uint8Array, object, Buffer>(gunzip)(packed, limit);
    const inner = parseKernelImage(bytes);
    if (inner.kind === "Image") return { parsed: { ...inner, isPacked: true }, bytes };
    return { parsed, bytes: packed };
  } catch (error) {
    const found = `a gzip file that cannot be unpacked: ${codeOf(error)}`;
    return { parsed: { kind: "none", found }, bytes: packed };
  }
}

/** @returns the file's bytes, or why they cannot be had */
async function readWhole(
  path: string,
  limit: Bytes,
): Promise<{ readonly bytes: Uint8Array } | { readonly reason: string }> {
  return await withFile(path, async (file) => {
    const { size } = await file.stat();
    if (size > limit) return { reason: `${size} bytes, more than ${limit}` };
    return { bytes: await readBytes(file, size) };
  });
}

async function readInitrd(path: string | undefined): Promise<Initrd> {
  if (path === undefined) return { kind: "none" };
  const read = await withFile(path, async (file) => {
    const { size } = await file.stat();
    return { size, begin: await readBytes(file, Math.min(size, initrdBeginBytes)) };
  });
  return "reason" in read ? { kind: "unreadable", ...read } : { kind: "read", ...read };
}

/** A named pipe would keep us waiting, and a device has no end: files alone are read. */
async function withFile<T>(
  path: string,
  read: (file: FileHandle) => Promise<T | { readonly reason: string }>,
): Promise<T | { readonly reason: string }> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const status = await file.stat();
    return status.isFile() ? await read(file) : { reason: "it is no file" };
  } catch (error) {
    return { reason: codeOf(error) };
  } finally {
    await file?.close();
  }
}

/** From the beginning, wherever the descriptor stands. */
async function readBytes(file: FileHandle, size: Bytes): Promise<Uint8Array> {
  const bytes = new Uint8Array(size);
  let length = 0;
  while (length < size) {
    const { bytesRead } = await file.read(bytes, length, size - length, length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return bytes.subarray(0, length);
}

/** In the kernel itself, else beside it, else the running kernel's when it is the same build. */
async function readConfiguration(
  { parsed, bytes }: ReadImage,
  host: HostPolicy,
  options: { readonly kernelName: string; readonly programPath: string },
): Promise<TargetConfiguration> {
  if (parsed.kind !== "bzImage" && parsed.kind !== "Image") {
    return { kind: "unknown", reason: "this is not looked into" };
  }
  const embedded = await searchKernel(parsed, bytes, options.programPath);
  if (typeof embedded !== "string") {
    const unpacked = await unpackConfiguration(embedded);
    if (unpacked !== undefined) {
      return { kind: "known", options: unpacked, source: "the kernel itself" };
    }
  }
  const elsewhere = await readElsewhere(parsed, host, options.kernelName);
  if (elsewhere !== undefined) return elsewhere;
  const reason = typeof embedded === "string" ? embedded : "the one in the kernel is damaged";
  return { kind: "unknown", reason };
}

async function readElsewhere(
  { version }: BzImage | ArmImage,
  host: HostPolicy,
  kernelName: string,
): Promise<TargetConfiguration | undefined> {
  const named = version?.split(" ", 1)[0];
  // It comes from a file: nothing but a plain name becomes a part of a path.
  if (version === undefined || named === undefined || !/^\d[\w.+~-]*$/.test(named)) {
    return undefined;
  }
  const beside = join(dirname(kernelName), `config-${named}`);
  const file = await readWhole(beside, configurationBytesLimit);
  if ("bytes" in file) {
    const options = parseKernelConfiguration(new TextDecoder().decode(file.bytes));
    if (options.size > 0) return { kind: "known", options, source: basename(beside) };
  }
  if (host.version === undefined || !isSameBuild(version, host.version)) return undefined;
  const running = await readRunningConfiguration();
  if (running === undefined) return undefined;
  return { kind: "known", options: running, source: "the running kernel, which it is" };
}

async function unpackConfiguration(packed: Uint8Array): Promise<KernelConfiguration | undefined> {
  try {
    const limit = { maxOutputLength: configurationBytesLimit };
    const bytes = await promisify<Uint8Array, object, Buffer>(gunzip)(packed, limit);
    const options = parseKernelConfiguration(bytes.toString("latin1"));
    return options.size === 0 ? undefined : options;
  } catch {
    return undefined;
  }
}

/** @returns the packed .config, or why there is none */
async function searchKernel(
  image: BzImage | ArmImage,
  bytes: Uint8Array,
  programPath: string,
): Promise<Uint8Array | string> {
  const absent = "the kernel does not carry it (CONFIG_IKCONFIG)";
  if (image.kind === "Image") return new ConfigurationSearch().push(bytes) ?? absent;
  if (image.payload === undefined) return "the header tells no packed kernel";
  const { packing, packed } = image.payload;
  if (packing === undefined) return "the kernel is packed in an unknown way";
  const unpacker = findUnpacker(packing, programPath);
  if (unpacker === undefined) return `no ${packing} here, by which the kernel is packed`;
  try {
    return (await searchPieces(unpacker(packed))) ?? absent;
  } catch (error) {
    return `the packed kernel (${packing}) cannot be unpacked: ${codeOf(error)}`;
  }
}

type Unpacker = (packed: Uint8Array) => AsyncIterable<Uint8Array>;

function findUnpacker(packing: Packing, programPath: string): Unpacker | undefined {
  // In one piece, or it would be handed on byte by byte.
  if (packing === "gzip") return (packed) => Readable.from([packed]).pipe(createGunzip());
  if (packing === "zstd") return (packed) => Readable.from([packed]).pipe(createZstdDecompress());
  const program = Bun.which(packing, { PATH: programPath });
  return program === null ? undefined : (packed) => unpackBy(program, packed);
}

/** By a program that reads stdin and writes stdout; it is killed when nobody reads any more. */
async function* unpackBy(program: string, packed: Uint8Array): AsyncIterable<Uint8Array> {
  const child = Bun.spawn([program, "-dc"], {
    stdin: packed,
    stdout: "pipe",
    stderr: "ignore",
    env: {},
    timeout: unpackMillisecondsLimit,
    killSignal: "SIGKILL",
  });
  try {
    yield* child.stdout;
    const status = await child.exited;
    if (status !== 0) throw new Error(`${program} ended with ${status}`);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

/** Ends with what it looks for: the rest is not unpacked. */
async function searchPieces(pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array | undefined> {
  const search = new ConfigurationSearch();
  let length = 0;
  for await (const piece of pieces) {
    const found = search.push(piece);
    if (found !== undefined) return found;
    length += piece.length;
    if (length > unpackedBytesLimit) throw new Error(`more than ${unpackedBytesLimit} bytes`);
  }
  // What is cut off gives nothing at all, and no error, where it is packed by zstd.
  if (length === 0) throw new Error("nothing comes out");
  return undefined;
}

/** What the running kernel tells of itself and of what it lets load. */
async function readHostPolicy(): Promise<HostPolicy> {
  const disabled = readNumber("/proc/sys/kernel/kexec_load_disabled");
  return {
    architecture: process.arch === "arm64" ? "arm64" : "x64",
    version: readText("/proc/version")?.replace(/^Linux version /, ""),
    lockdown: /\[(\w+)\]/.exec(readText("/sys/kernel/security/lockdown") ?? "")?.[1],
    isLoadDisabled: disabled === undefined ? undefined : disabled !== 0,
    loadLimit: readNumber("/proc/sys/kernel/kexec_load_limit_reboot"),
    signatures: signaturesOf(await readRunningConfiguration()),
  };
}

function signaturesOf(options: KernelConfiguration | undefined): HostPolicy["signatures"] {
  if (options === undefined) return undefined;
  if (isBuiltIn(options, "CONFIG_KEXEC_SIG_FORCE")) return "required";
  return isBuiltIn(options, "CONFIG_KEXEC_SIG") ? "checked" : "not checked";
}

/** Files of /proc have no size of their own: this one is read to its end. */
async function readRunningConfiguration(): Promise<KernelConfiguration | undefined> {
  try {
    const packed = readFileSync("/proc/config.gz");
    return await unpackConfiguration(packed);
  } catch {
    const file = await readWhole(`/boot/config-${release()}`, configurationBytesLimit);
    if ("reason" in file) return undefined;
    return parseKernelConfiguration(new TextDecoder().decode(file.bytes));
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

function readNumber(path: string): number | undefined {
  const text = readText(path);
  return text === undefined || !/^-?\d+$/.test(text) ? undefined : Number(text);
}

function codeOf(error: unknown): string {
  const { code, message } = error as { code?: string; message?: string };
  return code ?? message ?? String(error);
}
