/** Pairs of builds that differ as versions do, each from a tree of its own. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bunExecutable, runCommand, tryCommand } from "../command.ts";
import { readPackage, repositoryRoot } from "../setup.ts";

/** What a device runs, and what it is to become. */
export interface BuildPair {
  /** What differs, for people. */
  readonly what: string;
  readonly from: string;
  readonly to: string;
}

const dependency = { name: "valibot", version: "1.4.2" } as const;
/** Another version of Bun, as its npm package has it. */
const otherBun = "1.4.4";

/** The commit before this one, another dependency, another Bun: all become this one. */
export async function buildPairs(folder: string): Promise<BuildPair[]> {
  const to = await buildTree(folder, { name: "this", commit: "HEAD" });
  const before = await buildTree(folder, { name: "before", commit: "HEAD~1" });
  const { name, version } = dependency;
  const changed = await buildTree(folder, {
    ...{ name: "dependency", commit: "HEAD" },
    prepare: (tree) => changeDependency(tree, `${name}@${version}`),
  });
  const runtime = await buildTree(folder, {
    ...{ name: "bun", commit: "HEAD", bun: ["npx", "--yes", `bun@${otherBun}`] },
    prepare: (tree) => pinBun(tree, otherBun),
  });
  return [
    { what: "the commit before", from: before, to },
    { what: `${name} ${version}`, from: changed, to },
    { what: `Bun ${otherBun}`, from: runtime, to },
  ];
}

interface Tree {
  readonly name: string;
  readonly commit: string;
  /** Words that start the Bun that builds it. */
  readonly bun?: readonly string[];
  readonly prepare?: (tree: string) => Promise<void>;
}

/** @returns the compiled file */
async function buildTree(
  folder: string,
  { name, commit, bun = [bunExecutable], prepare }: Tree,
): Promise<string> {
  const tree = join(folder, name);
  mkdirSync(tree);
  // Of git's own: a worktree would have to be taken back from a repository that others use.
  const archive = join(folder, `${name}.tar`);
  await runCommand(["git", "-C", repositoryRoot, "archive", "--output", archive, commit]);
  await runCommand(["tar", "-xf", archive, "-C", tree]);
  await runCommand(["cp", "-a", join(repositoryRoot, "node_modules"), tree]);
  await prepare?.(tree);
  await runCommand([...bun, "scripts/build.ts"], { workingDirectory: tree });
  return join(tree, "dist", "hostler");
}

/** From the registry; where it has it not, the present one with other words in it. */
async function changeDependency(tree: string, wanted: string): Promise<void> {
  const words = [bunExecutable, "add", "--exact", wanted];
  const { exitCode } = await tryCommand(words, { workingDirectory: tree });
  if (exitCode === 0) return;
  const place = join(tree, "node_modules", dependency.name, "dist");
  for (const file of ["index.js", "index.mjs"].map((one) => join(place, one))) {
    if (!existsSync(file)) continue;
    writeFileSync(file, readFileSync(file, "utf8").replaceAll("Invalid ", "No valid "));
  }
}

async function pinBun(tree: string, version: string): Promise<void> {
  const path = join(tree, "package.json");
  const { packageManager } = readPackage();
  const text = readFileSync(path, "utf8").replace(packageManager, `bun@${version}`);
  writeFileSync(path, text);
}
