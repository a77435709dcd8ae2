/**
 * Guests with live update that go through several kernels, by real kexecs: their root disk, which
 * is made once for many scenarios, and a small second one with what a scenario brings along.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { GuestKernel } from "../../../scripts/guest-kernel/kernel-image.ts";
import { findLiveUpdateKernel } from "../../../scripts/guest-kernel.ts";
import { cacheFolder } from "../../../scripts/setup.ts";
import { type CaseResult, readCases } from "../../machine/guest/story.ts";
import { hostler, hostlerWithFaults, repositoryRoot } from "../binary.ts";
import { type GuestRun, guestFeatures, runGuest } from "../machine.ts";
import { type Feature, feature, file } from "../skips.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { bundle } from "./bundle.ts";
import { type DiskContent, writeDisk } from "./disk.ts";

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

/** What a guest does in one of its kernels. */
export type GuestStage = {
  /**
   * Who enters the next kernel when this is not the last stage. "stage" is itself, or what it
   * asks (luoctl kexec): it is a failure when no kernel is entered within a minute after it.
   * "init" does it after a stage that ended with 0; what the stage left running lasts until then.
   */
  readonly kexec?: "stage" | "init";
} & (
  | { readonly script: string }
  | {
      /** TypeScript, from the repository's root; it may call ffi/. */
      readonly program: string;
      readonly words?: readonly string[];
    }
);

export interface LiveUpdateScenario {
  readonly name: string;
  /** In the order of the kernels. A script is busybox's sh, in the folder /scenario. */
  readonly stages: readonly GuestStage[];
  /** Further files in /scenario, executable: their names there → text or bytes. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  /** Further TypeScript for `guest-bun /scenario/NAME.js`: NAME → from the repository's root. */
  readonly programs?: Readonly<Record<string, string>>;
  readonly kernelWords?: readonly string[];
  readonly memoryMebibytes?: number;
  readonly deadlineMilliseconds?: number;
}

export interface LiveUpdateRun extends GuestRun {
  /** What was written by writeCase. */
  readonly cases: readonly CaseResult[];
}

/** Generous: a processor is emulated, on a machine that may have much else to do. */
const usualDeadlineMilliseconds = 4 * 60_000;
const scenarioMebibytes = 48;

/**
 * Runs the stages, each in a kernel of its own, and gives the verdict of the last one.
 *
 * In the guest's PATH are busybox, `hostler` with its names `luod` and `luoctl`, the build for
 * fault tests as `hostler-faults`, `guest-bun FILE`, and python3 where this machine has it. The
 * kernel that it runs is /boot/vmlinuz. Nothing lasts over a kexec but what is in /scenario.
 *
 * @throws DeadlineError, or Error when it ends without a verdict, with the end of what it said
 */
export async function liveUpdateGuest(scenario: LiveUpdateScenario): Promise<LiveUpdateRun> {
  using folder = temporaryFolder();
  const kernel = findLiveUpdateKernel();
  if (kernel === undefined) throw new Error("There is no kernel with live update.");
  const scenarioDisk = folder.file("scenario");
  writeDisk(scenarioDisk, await contentOf(scenario, folder.file("bundles")), scenarioMebibytes);
  const run = await runGuest({
    kernel,
    root: {
      disks: [
        { path: await rootDisk(kernel), writing: "refused" },
        { path: scenarioDisk, writing: "kept" },
      ],
      init: "/init",
    },
    kernelWords: ["kho=on", "liveupdate=on", ...(scenario.kernelWords ?? [])],
    memoryMebibytes: scenario.memoryMebibytes ?? 1024,
    deadlineMilliseconds: scenario.deadlineMilliseconds ?? usualDeadlineMilliseconds,
  });
  console.log(`${scenario.name}: ${Math.round(run.milliseconds)} ms`);
  console.log(run.lines.filter((line) => line.startsWith("HOSTLER-")).join("\n"));
  return { ...run, cases: readCases(run.lines) };
}

async function contentOf(scenario: LiveUpdateScenario, folder: string): Promise<DiskContent> {
  const files: Record<string, string | Uint8Array> = { ...scenario.files };
  const addProgram = async (name: string, entry: string) => {
    files[`${name}.js`] = readFileSync(await bundle(entry, join(folder, name)));
  };
  for (const [name, entry] of Object.entries(scenario.programs ?? {}))
    await addProgram(name, entry);
  for (const [index, stage] of scenario.stages.entries()) {
    const name = `stage${index + 1}`;
    if (stage.kexec === "init") files[`kexec${index + 1}`] = "";
    if ("script" in stage) {
      files[name] = `#!/bin/sh\n${stage.script}\n`;
      continue;
    }
    await addProgram(name, stage.program);
    const words = (stage.words ?? []).map((word) => ` '${word}'`).join("");
    files[name] = `#!/bin/sh\nexec guest-bun /scenario/${name}.js${words}\n`;
  }
  return { files };
}

/** The root disk for this build and this kernel, kept in .cache for the next scenario and run. */
async function rootDisk(kernel: GuestKernel): Promise<string> {
  using folder = temporaryFolder();
  const content = await rootContent(kernel, folder.path);
  const cache = cacheFolder("live-update-guest");
  const name = `root-${identityOf(content)}`;
  const path = join(cache, name);
  if (existsSync(path)) return path;
  const spareMebibytes = 16;
  writeDisk(`${path}.new`, content, spareMebibytes);
  // A guest that still runs from an older one keeps it.
  for (const other of readdirSync(cache)) {
    if (other.startsWith("root-") && other !== `${name}.new`) rmSync(join(cache, other));
  }
  renameSync(`${path}.new`, path);
  return path;
}

async function rootContent(kernel: GuestKernel, folder: string): Promise<DiskContent> {
  const source = join(repositoryRoot, "test/machine/guest");
  const library = pythonLibrary();
  const enterKernel = await bundle("test/machine/guest/enter-kernel.ts", folder);
  return {
    folders: ["dev", "proc", "sys", "run", "tmp", "root", "var", "scenario", "sbin", "usr/sbin"],
    programs: {
      "/usr/bin/hostler": hostler(),
      "/usr/bin/hostler-faults": hostlerWithFaults(),
      "/bin/busybox": "/bin/busybox",
      ...pythonPrograms(library),
    },
    trees: { "/boot/vmlinuz": kernel.path, ...pythonTrees(library) },
    files: {
      "/init": readFileSync(join(source, "stages-init")),
      "/usr/lib/guest/enter-kernel.js": readFileSync(enterKernel),
      "/usr/bin/guest-bun": '#!/bin/sh\nBUN_BE_BUN=1 exec hostler run "$@"\n',
      "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nprobe:x:42:43::/:/bin/sh\n",
      "/etc/group": "root:x:0:\nprobe:x:43:\n",
      "/etc/hosts": "127.0.0.1 localhost\n",
    },
    links: {
      "/usr/bin/luod": "hostler",
      "/usr/bin/luoctl": "hostler",
      ...busyboxLinks(),
    },
  };
}

function busyboxLinks(): Record<string, string> {
  const { stdout } = spawnSync("/bin/busybox", ["--list"], { encoding: "utf8" });
  const applets = stdout.trim().split("\n");
  const names = applets.filter((name) => name !== "busybox" && name !== "init");
  return Object.fromEntries(names.map((name) => [`/bin/${name}`, "busybox"]));
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

/** A file is taken to be the same when its size and time are. */
function identityOf(content: DiskContent): string {
  const hash = createHash("sha256");
  const sources = [
    ...Object.entries(content.programs ?? {}),
    ...Object.entries(content.trees ?? {}),
  ];
  for (const [place, source] of sources) {
    const { size, mtimeMs } = statSync(source);
    hash.update(JSON.stringify([place, source, size, mtimeMs]));
  }
  for (const [place, bytes] of Object.entries(content.files ?? {})) {
    hash.update(JSON.stringify([place, createHash("sha256").update(bytes).digest("hex")]));
  }
  hash.update(JSON.stringify([content.folders, content.links]));
  return hash.digest("hex").slice(0, 16);
}
