/**
 * `run demo vetting`: a healthy host and one with three faults, both of them emulated, boot the
 * live image and are vetted. Makes the image, and tells the story.
 */
import { join } from "node:path";
import { ensureSystemPackages, repositoryRoot } from "../setup.ts";
import { ScriptError, withStep } from "../terminal.ts";

/**
 * @param buildProgram makes the compiled file
 * @returns 0 when all was seen
 * @throws ScriptError (100) when the machine lacks something, (1) when a step before it fails
 */
export async function demonstrateVetting(buildProgram: () => Promise<string>): Promise<number> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new ScriptError("The hosts of this demo need Linux on x86-64.", { exitCode: 100 });
  }
  await ensureSystemPackages(["machine"], "the demo's hosts");
  const program = await buildProgram();
  // Only now: a fresh clone has no packages before its first build.
  const { makeLiveImage } = await import("../live-image.ts");
  const folder = join(repositoryRoot, "dist", "demo-vetting");
  // Unpacked: an emulated processor is slow at it.
  const image = await withStep("live image", () =>
    makeLiveImage({ folder, program, packing: "none" }),
  );
  const { tellStory } = await import("./vetting/story.ts");
  return await tellStory({ program, image });
}
