/** Stories of tests that are killed: bundled once, and run by the compiled file as Bun. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TemporaryFolder } from "./temporary-folder.ts";

/**
 * @param name of a file in this folder
 * @returns the path of the bundle, in the folder
 */
export async function buildStory(
  folder: TemporaryFolder,
  name: string,
  options: { readonly faults?: boolean; readonly external?: readonly string[] } = {},
): Promise<string> {
  const { faults = true, external = [] } = options;
  const built = await Bun.build({
    entrypoints: [join(import.meta.dirname, name)],
    target: "bun",
    ...(faults && { define: { HOSTLER_FAULTS: "true" } }),
    external: [...external],
  });
  const path = folder.file("story.js");
  writeFileSync(path, await (built.outputs[0] as Blob).text());
  return path;
}
