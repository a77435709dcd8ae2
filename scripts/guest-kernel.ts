/**
 * Kernels for guests of the machine suite: Debian 12's own, fetched by apt as whoever runs this,
 * and one that a person names. Of Debian's package only the kernel itself is used, no module.
 */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { runCommand } from "./command.ts";
import { cacheFolder } from "./setup.ts";
import { ScriptError, withStep } from "./terminal.ts";

export interface GuestKernel {
  /** A bzImage. */
  readonly path: string;
  /** As uname -r gives it: "6.1.0-48-amd64". */
  readonly release: string;
  /** What it was configured with, such as CONFIG_UNIX: "y"; undefined when it does not tell. */
  readonly options: ReadonlyMap<string, string> | undefined;
}

const suite = "bookworm";
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";

/**
 * Debian 12's kernel of the newest point release. Fetched once into .cache/; delete the folder to
 * fetch a newer one. Neither root nor a Debian of that release is needed, only a Debian mirror
 * among the machine's own package sources.
 * @throws ScriptError (100) without such a mirror, (1) when apt fails
 */
export async function fetchDebianKernel(): Promise<GuestKernel> {
  const folder = cacheFolder(`guest-kernel-${suite}`);
  const stamp = join(folder, "release");
  if (!existsSync(stamp)) {
    await withStep(`kernel of Debian ${suite}`, async (step) => {
      const mirror = findDebianMirror(readSourceLists("/etc/apt"));
      if (mirror === undefined) {
        throw new ScriptError("There is no Debian mirror in /etc/apt to fetch a kernel from.", {
          exitCode: 100,
        });
      }
      writeFileSync(`${stamp}.new`, await download(folder, mirror, step.say));
      renameSync(`${stamp}.new`, stamp);
    });
  }
  return {
    path: join(folder, "vmlinuz"),
    release: readFileSync(stamp, "utf8"),
    options: parseOptions(readFileSync(join(folder, "config"), "utf8")),
  };
}

/** @returns the release of the kernel, whose vmlinuz and config then lie in the folder */
async function download(
  folder: string,
  mirror: string,
  say: (detail: string) => void,
): Promise<string> {
  const options = makeAptFolder(join(folder, "apt"), mirror);
  say("lists of packages");
  await runCommand(["apt-get", ...options, "--quiet", "update"]);
  const shown = await runCommand(["apt-cache", ...options, "show", "linux-image-amd64"]);
  const [, release] = /^Depends:.*\blinux-image-(6\.1\.[^\s,]+)/m.exec(shown) ?? [];
  if (release === undefined) {
    throw new ScriptError(`linux-image-amd64 of ${suite} names no kernel 6.1:\n${shown}`, {
      exitCode: 1,
    });
  }
  say(`linux-image-${release}`);
  await runCommand(["apt-get", ...options, "--quiet", "download", `linux-image-${release}`], {
    workingDirectory: folder,
  });
  const names = readdirSync(folder).filter((name) => name.endsWith(".deb"));
  const unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --wildcards "./boot/*"';
  await runCommand(["sh", "-e", "-c", unpack, "unpack", join(folder, names[0] ?? ""), folder]);
  renameSync(join(folder, "boot", `vmlinuz-${release}`), join(folder, "vmlinuz"));
  renameSync(join(folder, "boot", `config-${release}`), join(folder, "config"));
  await runCommand(["rm", "-r", "apt", "boot", ...names], { workingDirectory: folder });
  return release;
}

/** A configuration of apt of our own, so that the machine's stays as it is. @returns its options */
function makeAptFolder(folder: string, mirror: string): string[] {
  for (const name of ["lists/partial", "cache/archives/partial"]) {
    mkdirSync(join(folder, name), { recursive: true });
  }
  const sources = join(folder, "sources.list");
  writeFileSync(sources, `deb [signed-by=${keyring}] ${mirror} ${suite} main\n`);
  return [
    `-oDir::Etc::SourceList=${sources}`,
    "-oDir::Etc::SourceParts=/dev/null",
    `-oDir::State::Lists=${join(folder, "lists")}`,
    `-oDir::Cache=${join(folder, "cache")}`,
    "-oAcquire::Languages=none",
    // Run by root, apt would fetch as a user who may not write here.
    "-oAPT::Sandbox::User=root",
  ];
}

function readSourceLists(folder: string): string[] {
  const parts = join(folder, "sources.list.d");
  const names = existsSync(parts) ? readdirSync(parts).toSorted() : [];
  return [join(folder, "sources.list"), ...names.map((name) => join(parts, name))]
    .filter((path) => /\.(list|sources)$/.test(path) && existsSync(path))
    .map((path) => readFileSync(path, "utf8"));
}

/**
 * @param texts of sources.list(5), in either format
 * @returns the address of the first archive of Debian itself, not of its security updates
 */
export function findDebianMirror(texts: readonly string[]): string | undefined {
  const lines = texts.flatMap((text) => text.split("\n"));
  const wanted = lines.filter((line) => /^\s*(deb\s|URIs:)/i.test(line));
  return wanted
    .flatMap((line) => line.split(/\s+/))
    .find((word) => /^[a-z+]+:.*\/debian\/?$/.test(word));
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
