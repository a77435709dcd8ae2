/** TypeScript of ours for a guest: one file, run by the compiled file as its own Bun. */
import { join } from "node:path";
import { bunExecutable, runCommand } from "../command.ts";
import { repositoryRoot } from "../setup.ts";

/** What makes the compiled file a Bun must not reach the programs that a story starts. */
const forgetBun = 'delete process.env["BUN_BE_BUN"];';

/**
 * The program and what it imports, as one file.
 * @param entry from the repository's root
 * @param folder gets the file; made when it is not there
 * @returns the file's path
 * @throws ScriptError (1) with what Bun said, when it cannot be bundled
 */
export async function bundle(entry: string, folder: string): Promise<string> {
  const outcome = `--outfile=${join(folder, "story.js")}`;
  const words = ["build", "--target=bun", `--banner=${forgetBun}`, outcome, entry];
  await runCommand([bunExecutable, ...words], { workingDirectory: repositoryRoot });
  return join(folder, "story.js");
}
