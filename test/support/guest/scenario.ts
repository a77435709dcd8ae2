/**
 * Scenarios of guests that go through several kernels, by real kexecs: a root disk, which is made
 * once for many scenarios, and a small second one with what a scenario brings along.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { bundle } from "../../../scripts/guest/bundle.ts";
import { type DiskContent, writeDisk } from "../../../scripts/guest/disk.ts";
import type { GuestDisk } from "../../../scripts/guest/machine.ts";
import type { GuestKernel } from "../../../scripts/guest-kernel/kernel-image.ts";
import { findLiveUpdateKernel } from "../../../scripts/guest-kernel.ts";
import { cacheFolder } from "../../../scripts/setup.ts";
import { type CaseResult, readCases } from "../../machine/guest/story.ts";
import { type GuestRun, runGuest } from "../machine.ts";
import { temporaryFolder } from "../temporary-folder.ts";

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
  /** Beyond the root and the scenario's own: /dev/vdc, /dev/vdd … */
  readonly disks?: readonly GuestDisk[];
  readonly kernelWords?: readonly string[];
  readonly memoryMebibytes?: number;
  readonly deadlineMilliseconds?: number;
}

export interface LiveUpdateRun extends GuestRun {
  /** What was written by writeCase. */
  readonly cases: readonly CaseResult[];
}

/** What the scenarios of one kind have in common. */
export interface ScenarioRoot {
  /** Of the disk in .cache. */
  readonly name: string;
  /** The guest's first process. */
  readonly init: string;
  readonly writing: GuestDisk["writing"];
  /** @param folder for files that are made for it; gone when the disk is written */
  readonly content: (kernel: GuestKernel, folder: string) => Promise<DiskContent>;
}

/** Generous: a processor is emulated, on a machine that may have much else to do. */
const usualDeadlineMilliseconds = 4 * 60_000;
const scenarioMebibytes = 48;
const rootSpareMebibytes = 32;

/**
 * Runs the stages, each in a kernel of its own, and gives the verdict of the last one.
 * @throws DeadlineError, or Error when it ends without a verdict, with the end of what it said
 */
export async function runScenario(
  scenario: LiveUpdateScenario,
  root: ScenarioRoot,
): Promise<LiveUpdateRun> {
  using folder = temporaryFolder();
  const kernel = findLiveUpdateKernel();
  if (kernel === undefined) throw new Error("There is no kernel with live update.");
  const scenarioDisk = folder.file("scenario");
  writeDisk(scenarioDisk, await contentOf(scenario, folder.file("bundles")), scenarioMebibytes);
  const run = await runGuest({
    kernel,
    root: {
      disks: [
        { path: await rootDisk(root, kernel), writing: root.writing },
        { path: scenarioDisk, writing: "kept" },
        ...(scenario.disks ?? []),
      ],
      init: root.init,
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
async function rootDisk(root: ScenarioRoot, kernel: GuestKernel): Promise<string> {
  using folder = temporaryFolder();
  const content = await root.content(kernel, folder.path);
  const cache = cacheFolder("live-update-guest");
  const name = `${root.name}-${identityOf(content)}`;
  const path = join(cache, name);
  if (existsSync(path)) return path;
  writeDisk(`${path}.new`, content, rootSpareMebibytes);
  // A guest that still runs from an older one keeps it.
  for (const other of readdirSync(cache)) {
    if (other.startsWith(`${root.name}-`) && other !== `${name}.new`) rmSync(join(cache, other));
  }
  renameSync(`${path}.new`, path);
  return path;
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
