/** Files of another release of Debian, unpacked and not installed, for the root of a guest. */
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "../command.ts";
import { cacheFolder } from "../setup.ts";
import { withStep } from "../terminal.ts";
import { openDebianArchive } from "./debian-archive.ts";

/** Where a release has programs and libraries; the package that says so is not fetched. */
const mergedFolders = ["bin", "sbin", "lib", "lib64"];

/**
 * The packages and all that they depend on, without what their installation would do. Fetched
 * once into .cache/; delete the folder to fetch newer ones.
 * @param options.name of the folder there
 * @returns the folder that has usr and etc
 * @throws ScriptError (100) without a mirror of Debian, (1) when apt fails
 */
export async function fetchDebianTree(options: {
  readonly name: string;
  readonly suite: string;
  readonly packages: readonly string[];
}): Promise<string> {
  const { name, suite, packages } = options;
  const folder = cacheFolder(name);
  const [tree, stamp] = [join(folder, "tree"), join(folder, "complete")];
  if (existsSync(stamp)) return tree;
  await withStep(`${packages.join(" ")} of Debian ${suite}`, async ({ say }) => {
    rmSync(folder, { recursive: true });
    const target = join(folder, "packages");
    mkdirSync(target, { recursive: true });
    say("lists of packages");
    const archive = await openDebianArchive(suite, join(folder, "apt"));
    say("download");
    const files = await archive.downloadWhole(packages, target);
    say("unpacking");
    for (const merged of mergedFolders) mkdirSync(join(tree, "usr", merged), { recursive: true });
    for (const file of files) await runCommand(["dpkg-deb", "-x", file, tree]);
    await runCommand(["rm", "-r", "apt", "packages"], { workingDirectory: folder });
    writeFileSync(stamp, `${files.join("\n")}\n`);
  });
  return tree;
}
