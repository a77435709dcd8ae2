/**
 * `run live-image`: the image that vets a host. Debian 12's kernel, and an initramfs with the one
 * file, the modules of servers, busybox and an SSH server; the same bytes from the same inputs.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "./build.ts";
import { type ArchiveEntry, packArchive } from "./guest/initramfs.ts";
import { fetchKernelWithModules } from "./guest-kernel/debian-modules.ts";
import { fetchDebianTree } from "./guest-kernel/debian-tree.ts";
import { makeBootDisk } from "./live-image/disk.ts";
import { moduleEntries, parseChoices } from "./live-image/modules.ts";
import {
  folderEntries,
  linksTo,
  type ProgramSource,
  programEntries,
  programIn,
} from "./live-image/programs.ts";
import { ensureDependencies, readPackage, repositoryRoot } from "./setup.ts";
import { formatMebibytes, readWords, runScript, ScriptError, withStep } from "./terminal.ts";

const usage = `Usage: run live-image [--out FOLDER] [--tools] [--disk] [--command-line WORDS]
                      [--firmware FOLDER] [--over FOLDER] [--program FILE] [--fast]
  --out FOLDER          gets vmlinuz and initramfs, and disk.img; dist/live without it
  --tools               with smartmontools, nvme-cli, fio, ipmitool and others of Debian
  --disk                also a disk that UEFI starts from: for a stick, or an emulated CD
  --command-line WORDS  of the kernel, for that disk
  --firmware FOLDER     becomes /usr/lib/firmware; Debian has it in its non-free packages
  --over FOLDER         its files go over those of the image: keys, /etc/live.d
  --program FILE        take this file instead of building one
  --fast                packed quickly and less small: for trying things out`;

const suite = "bookworm";
const basePackages = ["busybox-static", "dropbear-bin", "libc6", "libgcc-s1", "systemd-boot-efi"];
/**
 * Packages, and what is taken of them. Stages use what they know of it, and have an engine of their
 * own for all of it; the rest is for people in a hold.
 */
const toolPackages = {
  smartmontools: ["smartctl"],
  "nvme-cli": ["nvme"],
  fio: ["fio"],
  ipmitool: ["ipmitool"],
  iperf3: ["iperf3"],
  "stress-ng": ["stress-ng"],
  memtester: ["memtester"],
  stressapptest: ["stressapptest"],
  dmidecode: ["dmidecode"],
  "lm-sensors": ["sensors"],
  ethtool: ["ethtool"],
  pciutils: ["lspci"],
  "sg3-utils": ["sg_inq", "sg_logs", "sg_readcap"],
} as const;
const ownFolder = join(repositoryRoot, "images", "live");

export interface LiveImageOptions {
  /** Made when it is not there. */
  readonly folder: string;
  /** The compiled file. */
  readonly program: string;
  readonly tools?: boolean;
  readonly disk?: boolean;
  readonly commandLine?: string;
  readonly firmware?: string;
  readonly over?: string;
  /** Modules beyond those of images/live/modules. */
  readonly modules?: readonly string[];
  /** "none": for guests whose processor is emulated, and slow to unpack it. */
  readonly packing?: "small" | "fast" | "none";
}

export interface LiveImage {
  readonly kernel: string;
  readonly initramfs: string;
  readonly disk: string | undefined;
  /** As uname -r says in it. */
  readonly release: string;
  /** Bytes of the initramfs before it was packed. */
  readonly unpacked: number;
}

const fetchTree = () => fetchDebianTree({ name: "live-image", suite, packages: basePackages });

/**
 * systemd's: it makes one program for UEFI of kernel, initramfs and command line.
 * @throws ScriptError as `makeLiveImage`
 */
export async function fetchStub(): Promise<Uint8Array> {
  return readFileSync(join(await fetchTree(), "usr/lib/systemd/boot/efi/linuxx64.efi.stub"));
}

/** Levels of zstd; the kernel unpacks windows of up to 128 MB, and that of 19 has 8 MB. */
const levels = { small: 19, fast: 3 } as const;

/**
 * Makes the image. Nothing but its inputs decides its bytes: entries in their order, without times
 * and with one owner, packed by the pinned Bun.
 * @throws ScriptError (100) without a mirror of Debian, (1) when apt fails or something is lacking
 */
export async function makeLiveImage(options: LiveImageOptions): Promise<LiveImage> {
  mkdirSync(options.folder, { recursive: true });
  const fetched = await fetchKernelWithModules({ suite, flavour: "amd64" });
  const tree = await fetchTree();
  const packages = [...basePackages, ...Object.keys(toolPackages)];
  const tools =
    options.tools === true
      ? await fetchDebianTree({ name: "live-image-tools", suite, packages })
      : undefined;
  const list = readFileSync(join(ownFolder, "modules"), "utf8");
  const more = (options.modules ?? []).map((what) => ({ kind: "take" as const, what }));
  const entries = [
    ...systemEntries(tree, options),
    ...programEntries(tools ?? tree, programs(tools ?? tree, options)),
    ...(tools === undefined ? [] : toolEntries(tools)),
    ...moduleEntries(fetched, [...parseChoices(list), ...more]),
    ...(options.firmware === undefined ? [] : folderEntries(options.firmware, "usr/lib/firmware")),
    ...(options.over === undefined ? [] : folderEntries(options.over, "").map(withoutSlash)),
  ];
  const archive = Buffer.concat(packArchive(entries));
  const packing = options.packing ?? "small";
  const packed =
    packing === "none" ? archive : Bun.zstdCompressSync(archive, { level: levels[packing] });
  const kernel = join(options.folder, "vmlinuz");
  const initramfs = join(options.folder, "initramfs");
  writeWhole(kernel, readFileSync(fetched.kernel));
  writeWhole(initramfs, packed);
  const { release } = fetched;
  const disk = options.disk === true ? join(options.folder, "disk.img") : undefined;
  if (disk !== undefined) {
    const stub = await fetchStub();
    const commandLine = options.commandLine ?? "";
    writeWhole(
      disk,
      makeBootDisk({ stub, kernel: readFileSync(kernel), initramfs: packed, commandLine, release }),
    );
  }
  return { kernel, initramfs, disk, release, unpacked: archive.length };
}

/** Whoever serves the old one to a host that boots goes on serving it whole. */
function writeWhole(path: string, content: Uint8Array): void {
  writeFileSync(`${path}.new`, content);
  renameSync(`${path}.new`, path);
}

function withoutSlash(entry: ArchiveEntry): ArchiveEntry {
  return { ...entry, path: entry.path.replace(/^\/+/, "") };
}

const busybox = "usr/bin/busybox";
/** Of busybox, what would be in the way: the first process, and what packages of Debian have. */
const unwantedApplets = ["busybox", "init", "linuxrc", "dpkg", "dpkg-deb", "rpm", "modinfo"];

function programs(tree: string, { program, tools }: LiveImageOptions): ProgramSource[] {
  const names = ["busybox", "dropbear", "dropbearkey"];
  if (tools === true) names.push(...toolNames());
  return [
    { place: "usr/bin/hostler", path: program },
    ...names.map((name) => programIn(tree, name)),
  ];
}

function toolNames(): string[] {
  return Object.values(toolPackages).flat();
}

/** Of the tools, what their programs read: which disks there are, and names of PCI devices. */
function toolEntries(tree: string): ArchiveEntry[] {
  const folders = ["usr/share/misc", "var/lib/smartmontools", "usr/share/smartmontools"];
  return folders
    .filter((folder) => existsSync(join(tree, folder)))
    .flatMap((folder) => folderEntries(join(tree, folder), folder));
}

/** The skeleton of a system: folders, links, users, and what is of our own. */
function systemEntries(tree: string, options: LiveImageOptions): ArchiveEntry[] {
  const folders = ["dev", "proc", "sys", "run", "tmp", "root", "mnt", "var", "etc"];
  const { stdout } = Bun.spawnSync([join(tree, "bin/busybox"), "--list"]);
  const applets = stdout.toString().trim().split("\n").toSorted();
  const taken = new Set(options.tools === true ? toolNames() : []);
  const wanted = applets.filter((name) => !unwantedApplets.includes(name) && !taken.has(name));
  const own = (place: string, name: string): ArchiveEntry => {
    const content = readFileSync(join(ownFolder, name));
    return { kind: "file", path: place, content, mode: 0o755 };
  };
  const text = (place: string, content: string): ArchiveEntry => {
    return { kind: "file", path: place, content: new TextEncoder().encode(content) };
  };
  const { version } = readPackage();
  return [
    ...folders.map((path): ArchiveEntry => ({ kind: "folder", path })),
    ...["usr/bin", "usr/sbin", "usr/lib", "usr/lib64"].map((path): ArchiveEntry => {
      return { kind: "folder", path };
    }),
    ...["bin", "sbin", "lib", "lib64"].map((path): ArchiveEntry => {
      return { kind: "link", path, target: `usr/${path}` };
    }),
    { kind: "link", path: "var/run", target: "../run" },
    { kind: "device", path: "dev/console", major: 5, minor: 1 },
    { kind: "device", path: "dev/null", major: 1, minor: 3 },
    ...linksTo(busybox, wanted),
    own("init", "init"),
    own("usr/lib/live/udhcpc", "udhcpc"),
    // Nobody has a password: whoever comes in by SSH has a key.
    text("etc/passwd", "root:*:0:0:root:/root:/bin/sh\n"),
    text("etc/group", "root:x:0:\ntty:x:5:\n"),
    text("etc/shells", "/bin/sh\n"),
    text("etc/hosts", "127.0.0.1 localhost\n"),
    text("etc/live-release", `hostler ${version} live\n`),
    text("etc/live-epoch", `${earliestTime}\n`),
  ];
}

/** 2026-01-01 in UTC, seconds: no host is vetted by this version before. */
const earliestTime = 1_767_225_600;

async function main(): Promise<number> {
  const { values } = readWords(usage, {
    options: {
      out: { type: "string" },
      tools: { type: "boolean" },
      disk: { type: "boolean" },
      "command-line": { type: "string" },
      firmware: { type: "string" },
      over: { type: "string" },
      program: { type: "string" },
      fast: { type: "boolean" },
    },
  });
  if (process.arch !== "x64") {
    throw new ScriptError("The live image is made on x86-64 alone.", { exitCode: 100 });
  }
  if (values["command-line"] !== undefined && values.disk !== true) {
    throw new ScriptError(`--command-line is for a disk: say --disk as well\n${usage}`, {
      exitCode: 100,
    });
  }
  await ensureDependencies();
  const folder = resolve(values.out ?? join(repositoryRoot, "dist", "live"));
  const image = await withStep("live image", async () =>
    makeLiveImage({
      folder,
      program: resolve(values.program ?? (await ownProgram())),
      tools: values.tools ?? false,
      disk: values.disk ?? false,
      packing: values.fast === true ? "fast" : "small",
      ...(values["command-line"] === undefined ? {} : { commandLine: values["command-line"] }),
      ...(values.firmware === undefined ? {} : { firmware: resolve(values.firmware) }),
      ...(values.over === undefined ? {} : { over: resolve(values.over) }),
    }),
  );
  for (const path of [image.kernel, image.initramfs, ...(image.disk ? [image.disk] : [])]) {
    const content = Bun.file(path);
    const hash = new Bun.CryptoHasher("sha256").update(await content.bytes()).digest("hex");
    console.log(`${hash}  ${formatMebibytes(content.size)}  ${path}`);
  }
  console.log(`kernel ${image.release}; ${formatMebibytes(image.unpacked)} in the host's memory`);
  return 0;
}

async function ownProgram(): Promise<string> {
  const folder = join(repositoryRoot, "dist");
  return (await build({ folder, name: "hostler", faults: false })).path;
}

if (import.meta.main) await runScript(main);
