/**
 * `run release`: dist/release with one file for each system, each also as a zstd archive, and the
 * SHA-256 of all of them. The same source gives the same bytes on every machine.
 *
 *   run release [--level N] [x64 | arm64 | x64-musl | arm64-musl …]
 */
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeArchive } from "./archive.ts";
import { build, readCommit } from "./build.ts";
import { bunExecutable, runCommand } from "./command.ts";
import { ensureDependencies, readPackage, repositoryRoot } from "./setup.ts";
import {
  formatMebibytes,
  formatTable,
  readWords,
  runScript,
  ScriptError,
  withStep,
} from "./terminal.ts";

interface Target {
  /** Bun's name for it, and the beginning of the runtime's name in Bun's cache. */
  readonly bunTarget: string;
  readonly cacheName: string;
  /** SHA-256 of the runtime of the pinned Bun: what is downloaded goes into a root daemon. */
  readonly runtimeSha256: string;
}

export const targets = {
  x64: {
    bunTarget: "bun-linux-x64",
    cacheName: "bun-linux-x64",
    runtimeSha256: "f05d28a3862f4b84395c7fa32480b835dd47482e80b7e7a49a115227f0c06083",
  },
  arm64: {
    bunTarget: "bun-linux-arm64",
    cacheName: "bun-linux-aarch64",
    runtimeSha256: "04778f1f42399a69d086853e9c7af4acf574b2f21a43d0dc673853d8b84a2923",
  },
  "x64-musl": {
    bunTarget: "bun-linux-x64-musl",
    cacheName: "bun-linux-x64-musl",
    runtimeSha256: "cf5d285ddbe256785a5121a3c113191a6b577504976374c7cfd5aedca609b720",
  },
  "arm64-musl": {
    bunTarget: "bun-linux-arm64-musl",
    cacheName: "bun-linux-aarch64-musl",
    runtimeSha256: "9c48986093073afec8b76a3e285303598dd2462f52748aecb65e4d94866e1ea3",
  },
} as const satisfies Record<string, Target>;

export type TargetName = keyof typeof targets;

/** The highest level without extra memory for whoever unpacks it. */
const releaseLevel = 19;

const targetsFolder = join(repositoryRoot, "dist", "targets");
const releaseFolder = join(repositoryRoot, "dist", "release");

/**
 * Builds src/main.ts, or another entry, for one system.
 * @param options.entry from the repository's root; its file is named after it
 * @returns the file's path
 */
export async function buildForTarget(
  name: TargetName,
  options: { readonly entry?: string } = {},
): Promise<string> {
  const target = targets[name];
  const runtime = await ensureRuntime(target);
  const prefix = options.entry === undefined ? "hostler" : options.entry.replaceAll("/", "-");
  const result = await build({
    folder: targetsFolder,
    name: `${prefix}-${name}`,
    faults: false,
    target: { name: target.bunTarget, runtime },
    ...(options.entry !== undefined && { entry: options.entry }),
  });
  return result.path;
}

/** @returns the path of the target's runtime, once its bytes are those that are pinned */
async function ensureRuntime(target: Target): Promise<string> {
  if (sha256Of(bunExecutable) === target.runtimeSha256) return bunExecutable;
  const cache = (await runCommand([bunExecutable, "pm", "cache"])).trim();
  const path = join(cache, `${target.cacheName}-v${Bun.version}`);
  if (!existsSync(path)) await withStep(`runtime of ${target.bunTarget}`, () => download(target));
  const found = sha256Of(path);
  if (found === target.runtimeSha256) return path;
  throw new ScriptError(
    `${path} has the SHA-256 ${found}, and the pinned one is ${target.runtimeSha256}. ` +
      "Remove the file and try again; if the same comes back, do not release it.",
    { exitCode: 1 },
  );
}

/** Bun gets a runtime when it first builds for it, through the package registry. */
async function download(target: Target): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), "hostler-runtime-"));
  try {
    const entry = join(scratch, "empty.ts");
    writeFileSync(entry, "");
    const output = `--outfile=${join(scratch, "empty")}`;
    await runCommand([
      bunExecutable,
      "build",
      "--compile",
      `--target=${target.bunTarget}`,
      output,
      entry,
    ]);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

interface Released {
  readonly name: string;
  readonly bytes: number;
  readonly archiveBytes: number;
  readonly sha256: string;
}

async function releaseTarget(target: TargetName, level: number): Promise<Released> {
  const name = `hostler-${readPackage().version}-linux-${target}`;
  const path = join(releaseFolder, name);
  copyFileSync(await buildForTarget(target), path);
  const content = readFileSync(path);
  const archive = makeArchive([
    { path: `${name}/hostler`, mode: 0o755, content },
    { path: `${name}/LICENSE`, mode: 0o644, content: readFileSync(inRoot("LICENSE")) },
    { path: `${name}/README.md`, mode: 0o644, content: readFileSync(inRoot("README.md")) },
  ]);
  const compressed = await Bun.zstdCompress(archive, { level });
  writeFileSync(`${path}.tar.zst`, compressed);
  const archiveSha256 = createHash("sha256").update(compressed).digest("hex");
  const sha256 = createHash("sha256").update(content).digest("hex");
  writeFileSync(`${path}.sha256`, `${sha256}  ${name}\n${archiveSha256}  ${name}.tar.zst\n`);
  return { name, bytes: content.length, archiveBytes: compressed.length, sha256 };
}

function inRoot(name: string): string {
  return join(repositoryRoot, name);
}

function sha256Of(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

const usage = `Usage: run release [--level 1…22] [${Object.keys(targets).join(" | ")} …]`;

function readOptions(): { level: number; names: TargetName[] } {
  const { values, positionals } = readWords(usage, {
    allowPositionals: true,
    options: { level: { type: "string", default: String(releaseLevel) } },
  });
  const level = Number(values.level);
  const known = Object.keys(targets) as TargetName[];
  const unknown = positionals.filter((word) => !known.some((name) => name === word));
  if (unknown.length > 0) {
    throw new ScriptError(`Unknown: ${unknown.join(" ")}\n${usage}`, { exitCode: 100 });
  }
  if (!Number.isInteger(level) || level < 1 || level > 22) {
    throw new ScriptError(`--level ${values.level}: not from 1 to 22\n${usage}`, { exitCode: 100 });
  }
  const names =
    positionals.length === 0 ? known : known.filter((name) => positionals.includes(name));
  return { level, names };
}

async function main(): Promise<number> {
  const { level, names } = readOptions();
  await ensureDependencies();
  if ((await readCommit()).endsWith("+dirty")) {
    console.log("The tree has changes that are in no commit: this is no release for others.");
  }
  rmSync(releaseFolder, { recursive: true, force: true });
  mkdirSync(releaseFolder, { recursive: true });
  const released: Released[] = [];
  for (const name of names) {
    released.push(await withStep(`linux-${name}`, () => releaseTarget(name, level)));
  }
  const sums = released.map(({ name }) => readFileSync(join(releaseFolder, `${name}.sha256`)));
  writeFileSync(join(releaseFolder, "SHA256SUMS"), Buffer.concat(sums));
  const rows = released.map(({ name, bytes, archiveBytes, sha256 }) => [
    name,
    formatMebibytes(bytes),
    formatMebibytes(archiveBytes),
    sha256,
  ]);
  console.log(formatTable([["file", "size", ".tar.zst", "SHA-256"], ...rows]));
  return 0;
}

if (import.meta.main) await runScript(main);
