/** Guests with live update whose first process is a script of ours. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { bundle } from "../../../scripts/guest/bundle.ts";
import type { DiskContent } from "../../../scripts/guest/disk.ts";
import { busyboxLinks } from "../../../scripts/guest/programs.ts";
import type { GuestKernel } from "../../../scripts/guest-kernel/kernel-image.ts";
import { findLiveUpdateKernel } from "../../../scripts/guest-kernel.ts";
import { hostler, hostlerWithFaults, repositoryRoot } from "../binary.ts";
import { guestFeatures } from "../machine.ts";
import { type Feature, feature, file } from "../skips.ts";
import { type LiveUpdateRun, type LiveUpdateScenario, runScenario } from "./scenario.ts";

/** What a suite with such guests needs of this machine. */
export const liveUpdateFeatures: readonly Feature[] = [
  ...guestFeatures,
  file("/sbin/mke2fs", "e2fsprogs"),
  feature(
    "no kernel with live update (bun scripts/guest-kernel.ts builds one)",
    () => findLiveUpdateKernel() !== undefined,
  ),
];

/** Python is there in a guest where this machine has one. */
export const python: Feature = file("/usr/bin/python3", "python3");

/**
 * Runs the stages, each in a kernel of its own, and gives the verdict of the last one.
 *
 * In the guest's PATH are busybox, `hostler` with its names `luod` and `luoctl`, the build for
 * fault tests as `hostler-faults`, `guest-bun FILE`, and python3 where this machine has it. The
 * kernel that it runs is /boot/vmlinuz. Nothing lasts over a kexec but what is in /scenario.
 *
 * @throws DeadlineError, or Error when it ends without a verdict, with the end of what it said
 */
export function liveUpdateGuest(scenario: LiveUpdateScenario): Promise<LiveUpdateRun> {
  return runScenario(scenario, {
    name: "root",
    init: "/init",
    writing: "refused",
    content: rootContent,
  });
}

/** Our own programs and how a stage is run: the same in every such guest. */
export async function commonFiles(folder: string): Promise<Record<string, string | Uint8Array>> {
  const enterKernel = await bundle("test/machine/guest/enter-kernel.ts", folder);
  return {
    "/usr/lib/guest/run-stage": ownFile("run-stage"),
    "/usr/lib/guest/enter-kernel.js": readFileSync(enterKernel),
    "/usr/bin/guest-bun": '#!/bin/sh\nBUN_BE_BUN=1 exec hostler run "$@"\n',
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nprobe:x:42:43::/:/bin/sh\n",
    "/etc/group": "root:x:0:\nprobe:x:43:\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
  };
}

export const commonLinks: Readonly<Record<string, string>> = {
  "/usr/bin/luod": "hostler",
  "/usr/bin/luoctl": "hostler",
};

/** @returns the text of a file of test/machine/guest */
export function ownFile(name: string): string {
  return readFileSync(join(repositoryRoot, "test/machine/guest", name), "utf8");
}

async function rootContent(kernel: GuestKernel, folder: string): Promise<DiskContent> {
  const library = pythonLibrary();
  return {
    folders: ["dev", "proc", "sys", "run", "tmp", "root", "var", "scenario", "sbin", "usr/sbin"],
    programs: {
      "/usr/bin/hostler": hostler(),
      "/usr/bin/hostler-faults": hostlerWithFaults(),
      "/bin/busybox": "/bin/busybox",
      ...pythonPrograms(library),
    },
    trees: { "/boot/vmlinuz": kernel.path, ...pythonTrees(library) },
    files: { ...(await commonFiles(folder)), "/init": ownFile("stages-init") },
    links: { ...commonLinks, ...busyboxLinks("/bin") },
  };
}

/** The packages of Python's library that a small client imports, and that those import. */
const pythonPackages = ["collections", "ctypes", "encodings", "importlib", "json", "re"];

/** The interpreter and its modules in C, some of which have libraries of their own. */
function pythonPrograms(library: string | undefined): Record<string, string> {
  if (library === undefined) return {};
  const folder = join(library, "lib-dynload");
  const paths = readdirSync(folder).map((name) => join(folder, name));
  return Object.fromEntries(["/usr/bin/python3", ...paths].map((path) => [path, path]));
}

function pythonTrees(library: string | undefined): Record<string, string> {
  if (library === undefined) return {};
  const files = readdirSync(library).filter((name) => name.endsWith(".py"));
  const paths = [...files, ...pythonPackages].map((name) => join(library, name));
  return Object.fromEntries(paths.map((path) => [path, path]));
}

/** @returns the folder of this machine's Python that has its modules */
function pythonLibrary(): string | undefined {
  if (!existsSync("/usr/bin/python3")) return undefined;
  const tell = "import sysconfig; print(sysconfig.get_path('stdlib'))";
  const { stdout } = spawnSync("/usr/bin/python3", ["-c", tell], { encoding: "utf8" });
  return stdout.trim();
}
