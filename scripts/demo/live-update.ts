/**
 * `run demo live-update`: a database's memory survives a change of the kernel, in a guest. Gets
 * what a guest needs, a kernel with live update among it, and tells the story.
 */

import type { GuestKernel } from "../guest-kernel/kernel-image.ts";
import { findLiveUpdateKernel, makeLiveUpdateKernel } from "../guest-kernel.ts";
import { ensureSystemPackages } from "../setup.ts";
import { ScriptError } from "../terminal.ts";

const forewarning = `\
There is no kernel with live update here yet, and Debian has built none. It is built now,
once, from Debian's source: about ten minutes on two processors, a download of 170 MB, 4 GB of disk.
HOSTLER_GUEST_KERNEL=FILE names one that is ready.`;

/**
 * @param buildProgram makes the compiled file
 * @returns 0 when all was seen
 * @throws ScriptError (100) when the machine lacks something, (1) when a step before it fails
 */
export async function demonstrateLiveUpdate(buildProgram: () => Promise<string>): Promise<number> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new ScriptError("The guest of this demo needs Linux on x86-64.", { exitCode: 100 });
  }
  await ensureSystemPackages(["machine"], "the demo's guest");
  // Before the kernel: what is wrong with this machine is not said after ten minutes.
  const program = await buildProgram();
  const kernel = await findOrBuildKernel();
  console.log(`The guest's kernel: Linux ${kernel.release}, ${kernel.path}`);
  // Only now: a fresh clone has no packages before its first build.
  const { tellStory } = await import("./live-update/story.ts");
  return await tellStory({ program, kernel });
}

/** @throws ScriptError (100), (1) */
async function findOrBuildKernel(): Promise<GuestKernel> {
  const found = findLiveUpdateKernel();
  if (found !== undefined) return found;
  console.log(forewarning);
  return await makeLiveUpdateKernel();
}
