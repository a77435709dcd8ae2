/**
 * Gets what the other scripts need: npm packages, and Debian packages by group.
 * Every script begins here, so this file and what it imports use only what is built into Bun:
 * a fresh clone has no node_modules.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { bunExecutable, runCommand } from "./command.ts";
import { ScriptError, withStep } from "./terminal.ts";

/** The folder of package.json. */
export const repositoryRoot: string = dirname(import.meta.dirname);

/** A Debian package, and the file whose presence shows that its content is there. */
interface SystemPackage {
  readonly name: string;
  readonly shownBy: string;
}

/**
 * What each purpose needs beyond Debian's essential packages. A file shows a package's presence,
 * not the package database, so that a tool which came another way counts as well.
 */
const systemPackages = {
  layouts: [
    { name: "gcc", shownBy: "/usr/bin/gcc" },
    { name: "libc6-dev", shownBy: "/usr/include/stdio.h" },
  ],
  arm64: [
    { name: "gcc-aarch64-linux-gnu", shownBy: "/usr/bin/aarch64-linux-gnu-gcc" },
    { name: "libc6-dev-arm64-cross", shownBy: "/usr/aarch64-linux-gnu/include/stdio.h" },
    { name: "libc6-arm64-cross", shownBy: "/usr/aarch64-linux-gnu/lib/libc.so.6" },
    { name: "qemu-user-static", shownBy: "/usr/bin/qemu-aarch64-static" },
  ],
  musl: [
    { name: "gcc", shownBy: "/usr/bin/gcc" },
    { name: "musl", shownBy: "/lib/ld-musl-x86_64.so.1" },
    { name: "musl-dev", shownBy: "/usr/include/x86_64-linux-musl/stdio.h" },
    { name: "musl-tools", shownBy: "/usr/bin/musl-gcc" },
    { name: "libstdc++-12-pic", shownBy: "/usr/lib/gcc/x86_64-linux-gnu/12/libstdc++_pic.a" },
  ],
  machine: [
    { name: "qemu-system-x86", shownBy: "/usr/bin/qemu-system-x86_64" },
    { name: "ovmf", shownBy: "/usr/share/OVMF/OVMF_CODE_4M.fd" },
    { name: "busybox-static", shownBy: "/bin/busybox" },
    { name: "e2fsprogs", shownBy: "/sbin/mke2fs" },
    // With it a kernel's own configuration is read out of the kernel.
    { name: "xz-utils", shownBy: "/usr/bin/xz" },
  ],
  // For a kernel from its source.
  kernel: [
    { name: "gcc", shownBy: "/usr/bin/gcc" },
    { name: "libc6-dev", shownBy: "/usr/include/stdio.h" },
    { name: "make", shownBy: "/usr/bin/make" },
    { name: "flex", shownBy: "/usr/bin/flex" },
    { name: "bison", shownBy: "/usr/bin/bison" },
    { name: "bc", shownBy: "/usr/bin/bc" },
    { name: "libelf-dev", shownBy: "/usr/include/libelf.h" },
    { name: "xz-utils", shownBy: "/usr/bin/xz" },
  ],
  // What others say of the disks that we make.
  disks: [
    { name: "qemu-utils", shownBy: "/usr/bin/qemu-img" },
    { name: "genisoimage", shownBy: "/usr/bin/isoinfo" },
    { name: "util-linux", shownBy: "/sbin/blkid" },
    // A file system that shares bytes between files.
    { name: "xfsprogs", shownBy: "/sbin/mkfs.xfs" },
  ],
  // Clocks that are wrong, and hosts in networks of their own.
  authority: [
    { name: "faketime", shownBy: "/usr/bin/faketime" },
    { name: "iproute2", shownBy: "/sbin/ip" },
  ],
  // A DHCP client, and machines in networks of their own.
  addresses: [
    { name: "busybox-static", shownBy: "/bin/busybox" },
    { name: "iproute2", shownBy: "/sbin/ip" },
  ],
  // Programs that network boot hands out, and clients that fetch them; none starts a service.
  boot: [
    { name: "ipxe", shownBy: "/usr/lib/ipxe/snponly.efi" },
    { name: "atftp", shownBy: "/usr/bin/atftp" },
    { name: "tftp-hpa", shownBy: "/usr/bin/tftp" },
    { name: "dnsmasq-base", shownBy: "/usr/sbin/dnsmasq" },
    { name: "curl", shownBy: "/usr/bin/curl" },
  ],
  // The page of vetting is looked at in it.
  browser: [{ name: "chromium", shownBy: "/usr/bin/chromium" }],
  // What other programs say of the networks that we make.
  network: [
    { name: "iproute2", shownBy: "/sbin/ip" },
    { name: "nftables", shownBy: "/usr/sbin/nft" },
  ],
  images: [
    { name: "systemd", shownBy: "/usr/bin/systemd-analyze" },
    { name: "checkpolicy", shownBy: "/usr/bin/checkmodule" },
  ],
  bench: [
    { name: "gcc", shownBy: "/usr/bin/gcc" },
    { name: "libc6-dev", shownBy: "/usr/include/stdio.h" },
    { name: "s6", shownBy: "/usr/bin/s6-supervise" },
    { name: "runit", shownBy: "/usr/bin/runsv" },
    { name: "supervisor", shownBy: "/usr/bin/supervisord" },
  ],
  // Tools that stages of vetting can be told to ask; these packages start no service.
  tools: [
    { name: "fio", shownBy: "/usr/bin/fio" },
    { name: "iperf3", shownBy: "/usr/bin/iperf3" },
  ],
  // Measured beside the vetting of memory, links and disks; these packages start no service.
  vetting: [
    { name: "gcc", shownBy: "/usr/bin/gcc" },
    { name: "libc6-dev", shownBy: "/usr/include/stdio.h" },
    { name: "memtester", shownBy: "/usr/sbin/memtester" },
    { name: "stressapptest", shownBy: "/usr/bin/stressapptest" },
    { name: "iperf3", shownBy: "/usr/bin/iperf3" },
    { name: "fio", shownBy: "/usr/bin/fio" },
  ],
  // Measured beside the delta of an upgrade; these packages start no service.
  deltas: [
    { name: "zsync", shownBy: "/usr/bin/zsync" },
    { name: "casync", shownBy: "/usr/bin/casync" },
    { name: "rsync", shownBy: "/usr/bin/rsync" },
    { name: "zstd", shownBy: "/usr/bin/zstd" },
    { name: "xdelta3", shownBy: "/usr/bin/xdelta3" },
  ],
  // Measured beside the worker of virtual machines; these packages start no service.
  libvirt: [
    { name: "libvirt-daemon", shownBy: "/usr/sbin/libvirtd" },
    {
      name: "libvirt-daemon-driver-qemu",
      shownBy: "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
    },
    { name: "libvirt-clients", shownBy: "/usr/bin/virsh" },
  ],
} as const satisfies Record<string, readonly SystemPackage[]>;

export type PackageGroup = keyof typeof systemPackages;

/**
 * Installs package.json's dependencies as bun.lock has them, unless they are there already.
 * @throws ScriptError (100) when Bun is not the pinned one, (1) when the installation fails.
 */
export async function ensureDependencies(): Promise<void> {
  requirePinnedBun();
  const stamp = join(repositoryRoot, "node_modules", ".hostler-installed");
  const wanted = hashOfFiles(["package.json", "bun.lock"]);
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  await withStep("npm packages", async () => {
    await runCommand([bunExecutable, "install", "--frozen-lockfile"], {
      workingDirectory: repositoryRoot,
    });
  });
  writeFileSync(stamp, wanted);
}

/** @returns the Debian packages of these groups that this machine lacks, each once. */
export function missingSystemPackages(groups: readonly PackageGroup[]): string[] {
  const missing = new Set<string>();
  for (const group of groups) {
    for (const { name, shownBy } of systemPackages[group]) {
      if (!existsSync(shownBy)) missing.add(name);
    }
  }
  return [...missing];
}

/**
 * Installs an npm package that only a script uses, outside of package.json's dependencies.
 * @param version exact; another one goes beside it
 * @returns the folder whose node_modules has it, in .cache/
 */
export async function ensureCachedNpmPackage(name: string, version: string): Promise<string> {
  const folder = cacheFolder(`${name}-${version}`);
  const stamp = join(folder, "installed");
  if (existsSync(stamp)) return folder;
  const manifest = { private: true, dependencies: { [name]: version } };
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
  await withStep(`npm package ${name} ${version}`, async () => {
    await runCommand([bunExecutable, "install", "--production", "--ignore-scripts"], {
      workingDirectory: folder,
    });
  });
  writeFileSync(stamp, "");
  return folder;
}

/** What a person types to get the packages. */
export function installCommand(packages: readonly string[]): string {
  const install = `apt-get install --yes --no-install-recommends ${packages.join(" ")}`;
  return process.getuid?.() === 0
    ? `apt-get update && ${install}`
    : `sudo apt-get update && sudo ${install}`;
}

/**
 * Sees to it that the packages of these groups are there.
 * @param reason what they are for, in the words that follow "needed for"
 * @throws ScriptError (100) naming what is missing and the command that gets it, when this is
 *   not root or not Debian; (1) when apt-get fails.
 */
export async function ensureSystemPackages(
  groups: readonly PackageGroup[],
  reason: string,
): Promise<void> {
  const missing = missingSystemPackages(groups);
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0 || !existsSync("/usr/bin/apt-get")) {
    throw new ScriptError(explainMissing(missing, reason), { exitCode: 100 });
  }
  await withStep(`Debian packages for ${reason}: ${missing.join(" ")}`, async (step) => {
    await aptGet(["update"], step.say);
    await aptGet(["install", "--yes", "--no-install-recommends", ...missing], step.say);
  });
  const still = missingSystemPackages(groups);
  if (still.length > 0) {
    throw new ScriptError(
      `apt-get installed ${still.join(" ")}, but not the files that this release of Debian ` +
        "should have in them. The scripts are made for Debian 12.",
      { exitCode: 100 },
    );
  }
}

/** The message for somebody who has to get the packages in another way. */
export function explainMissing(missing: readonly string[], reason: string): string {
  return [
    `Missing Debian packages, needed for ${reason}: ${missing.join(" ")}`,
    "As root the script installs them itself. Otherwise:",
    `  ${installCommand(missing)}`,
  ].join("\n");
}

async function aptGet(words: readonly string[], say: (detail: string) => void): Promise<void> {
  // Status-Fd gives "dlstatus:1:20.5:text" and "pmstatus:name:50.0:text"; the lock may be held
  // by the machine's own unattended upgrades.
  const options = ["--quiet", "-oAPT::Status-Fd=1", "-oDPkg::Lock::Timeout=300"];
  await runCommand(["apt-get", ...options, ...words], {
    environment: { DEBIAN_FRONTEND: "noninteractive" },
    onLine: (line) => {
      const [kind, , percent, text] = line.split(":");
      if (kind === "dlstatus") say(`download ${Math.round(Number(percent))} %`);
      if (kind === "pmstatus") say(`install ${Math.round(Number(percent))} %: ${text}`);
    },
  });
}

/** bun:ffi is experimental and the bytes of a build depend on Bun: another version is refused. */
function requirePinnedBun(): void {
  const { packageManager } = readPackage();
  const pinned = packageManager.slice("bun@".length);
  if (Bun.version === pinned) return;
  throw new ScriptError(
    `This is Bun ${Bun.version}; hostler is built with ${pinned} alone. ` +
      `Use: npx bun@${pinned} run …`,
    { exitCode: 100 },
  );
}

/** The parts of package.json that scripts use. */
export function readPackage(): { readonly version: string; readonly packageManager: string } {
  return JSON.parse(readFileSync(join(repositoryRoot, "package.json"), "utf8"));
}

/** @param name a folder in .cache/, for what is costly to get and belongs in no commit */
export function cacheFolder(name: string): string {
  const folder = join(repositoryRoot, ".cache", name);
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** @param paths relative to the repository's root @returns SHA-256 over names and contents */
export function hashOfFiles(paths: readonly string[]): string {
  const hash = createHash("sha256");
  for (const path of paths) {
    const content = readFileSync(join(repositoryRoot, path));
    hash.update(`${path}\0${content.length}\0`).update(content);
  }
  return hash.digest("hex");
}
