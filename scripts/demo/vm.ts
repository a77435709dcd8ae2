/**
 * `run demo vm`: two virtual machines from one image; their worker is killed and takes them up
 * again, the VMM of one is replaced under it, and what is deleted leaves nothing behind.
 */
import { ensureSystemPackages } from "../setup.ts";
import { ScriptError } from "../terminal.ts";

/**
 * @param buildProgram makes the compiled file
 * @returns 0 when all was seen
 * @throws ScriptError (100) when the machine lacks something, (1) when a step before it fails
 */
export async function demonstrateVms(
  buildProgram: () => Promise<string>,
  options: { readonly namespaceFlags: readonly string[]; readonly small: boolean },
): Promise<number> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new ScriptError("The guests of this demo need Linux on x86-64.", { exitCode: 100 });
  }
  await ensureSystemPackages(["machine"], "the demo's guests");
  const program = await buildProgram();
  // Only now: a fresh clone has no packages before its first build.
  const { tellStory } = await import("./vm/story.ts");
  return await tellStory({ program, ...options });
}
