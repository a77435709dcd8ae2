/**
 * `run build`: src/main.ts becomes dist/hostler, and dist/hostler-faults with its kill points.
 *
 * Reproducible: built from the repository's root, always under the output name "hostler" (the
 * name is part of the bytes), then renamed. Cheap when nothing changed, and safe when several
 * processes ask at once.
 */
import { Database } from "bun:sqlite";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { bunExecutable, runCommand, tryCommand } from "./command.ts";
import { ensureDependencies, hashOfFiles, readPackage, repositoryRoot } from "./setup.ts";
import { formatMebibytes, formatSeconds, readWords, runScript } from "./terminal.ts";

const distFolder = join(repositoryRoot, "dist");
/** Longest wait for another process that builds the same. */
const lockMilliseconds = 120_000;

export interface BuildRequest {
  /** A folder in dist/, made when it is not there. */
  readonly folder: string;
  /** The file's name in it. */
  readonly name: string;
  /** true: the kill points are in it. */
  readonly faults: boolean;
  /** Bun's name for the system it is for, and the runtime that goes into it. */
  readonly target?: { readonly name: string; readonly runtime: string };
  /** Instead of src/main.ts, relative to the root: for entries that only tests have. */
  readonly entry?: string;
  /** Another version than package.json says: a release to come, for tests and the demo. */
  readonly version?: string;
}

export interface BuildResult {
  readonly path: string;
  readonly bytes: number;
  readonly milliseconds: number;
  /** false: nothing had changed since the last time. */
  readonly built: boolean;
}

/** Both files that the tests use. */
export async function buildAll(): Promise<BuildResult[]> {
  return [
    await build({ folder: distFolder, name: "hostler", faults: false }),
    await build({ folder: distFolder, name: "hostler-faults", faults: true }),
  ];
}

/**
 * Builds one file, unless the same inputs have given it already.
 * @throws ScriptError (1) with Bun's own words when the source does not build.
 */
export async function build(request: BuildRequest): Promise<BuildResult> {
  const begin = performance.now();
  mkdirSync(request.folder, { recursive: true });
  using _lock = lockFolder(request.folder);
  const words = await buildWords(request);
  const inputs = hashOfInputs(request, words);
  const path = join(request.folder, request.name);
  const stamp = `${path}.inputs`;
  const isFresh = existsSync(path) && existsSync(stamp) && readFileSync(stamp, "utf8") === inputs;
  if (!isFresh) {
    await compile(request, words);
    writeFileSync(stamp, inputs);
  }
  return {
    path,
    bytes: statSync(path).size,
    milliseconds: performance.now() - begin,
    built: !isFresh,
  };
}

async function compile(request: BuildRequest, words: readonly string[]): Promise<void> {
  const scratch = mkdtempSync(join(request.folder, ".building-"));
  try {
    const output = join(scratch, "hostler");
    await runCommand([bunExecutable, "build", ...words, `--outfile=${output}`], {
      workingDirectory: repositoryRoot,
    });
    renameSync(output, join(request.folder, request.name));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** All that decides the bytes but the source; what a privileged file must not read is off. */
async function buildWords(request: BuildRequest): Promise<string[]> {
  const definitions = {
    HOSTLER_FAULTS: String(request.faults),
    HOSTLER_VERSION: JSON.stringify(request.version ?? readPackage().version),
    HOSTLER_COMMIT: JSON.stringify(await readCommit()),
  };
  return [
    "--compile",
    // Start to exit of --version: 9 ms instead of 23, for 3 MB; the launcher gains as much.
    "--bytecode",
    "--format=esm",
    "--minify-syntax",
    // A role loads its own chunks alone: start to exit of --version takes 8 ms instead of 15.
    "--splitting",
    "--reject-unresolved",
    "--no-compile-autoload-dotenv",
    "--no-compile-autoload-bunfig",
    "--no-compile-autoload-tsconfig",
    "--no-compile-autoload-package-json",
    ...Object.entries(definitions).map(([name, value]) => `--define=${name}=${value}`),
    ...(request.target === undefined
      ? []
      : [`--target=${request.target.name}`, `--compile-executable-path=${request.target.runtime}`]),
    request.entry ?? "src/main.ts",
  ];
}

/** @returns the commit, with "+dirty" when files differ from it, or "unknown" outside git. */
export async function readCommit(): Promise<string> {
  const git = ["git", "-C", repositoryRoot];
  // A copy of the source inside somebody else's repository must not take that one's commit.
  if (!existsSync(join(repositoryRoot, ".git")) || Bun.which("git") === null) return "unknown";
  const head = await tryCommand([...git, "rev-parse", "HEAD"]);
  if (head.exitCode !== 0) return "unknown";
  const changes = await tryCommand([...git, "status", "--porcelain", "--untracked-files=no"]);
  return head.output.trim() + (changes.output.trim() === "" ? "" : "+dirty");
}

function hashOfInputs(request: BuildRequest, words: readonly string[]): string {
  const files = ["package.json", "bun.lock", "tsconfig.json", "scripts/build.ts"];
  const folders = ["src", "ffi", "images/systemd"];
  if (request.entry !== undefined) folders.push(dirname(request.entry));
  for (const folder of folders) files.push(...listSource(folder));
  return createHash("sha256")
    .update(JSON.stringify([Bun.version, Bun.revision, words]))
    .update(hashOfFiles(files.toSorted()))
    .digest("hex");
}

function listSource(folder: string): string[] {
  const absolute = join(repositoryRoot, folder);
  if (!existsSync(absolute)) return [];
  return readdirSync(absolute, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(repositoryRoot.length + 1));
}

/**
 * One builder at a time per folder. SQLite's lock is a lock of the kernel on a file: it waits
 * without a race, and it is gone when its holder dies.
 */
function lockFolder(folder: string): Disposable {
  const database = new Database(join(folder, ".lock"));
  database.run(`PRAGMA busy_timeout = ${lockMilliseconds}`);
  database.run("BEGIN EXCLUSIVE");
  return { [Symbol.dispose]: () => database.close() };
}

async function main(): Promise<number> {
  readWords("Usage: run build", {});
  await ensureDependencies();
  for (const result of await buildAll()) {
    const shown = result.path.slice(repositoryRoot.length + 1);
    const how = result.built ? `built in ${formatSeconds(result.milliseconds)}` : "unchanged";
    console.log(`${shown}  ${formatMebibytes(result.bytes)}  ${how}`);
  }
  return 0;
}

if (import.meta.main) await runScript(main);
