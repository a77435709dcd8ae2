/**
 * Kernels for guests of the machine suite: Debian 12's own, fetched by apt as whoever runs this;
 * one with live update, built from Debian's source or named by a person.
 *
 *   bun scripts/guest-kernel.ts      builds the latter, unless it is there
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "./command.ts";
import { buildKernel, findBuiltKernel, readFragment } from "./guest-kernel/build.ts";
import { openDebianArchive } from "./guest-kernel/debian-archive.ts";
import { parseFragment, unfulfilled } from "./guest-kernel/fragment.ts";
import { type GuestKernel, parseOptions, readNamedKernel } from "./guest-kernel/kernel-image.ts";
import { cacheFolder } from "./setup.ts";
import { runScript, ScriptError, withStep } from "./terminal.ts";

/** Its variable names a ready-made kernel with live update. */
const variable = "HOSTLER_GUEST_KERNEL";

/**
 * The kernel with live update, if one can be had without building it: the one that
 * HOSTLER_GUEST_KERNEL names, or the one that was built before.
 * @throws ScriptError (100) when the named one is none, or lacks a line of the fragment
 */
export function findLiveUpdateKernel(): GuestKernel | undefined {
  const named = process.env[variable] ?? "";
  return named === "" ? findBuiltKernel() : readSufficientKernel(named);
}

/** @throws ScriptError (100) when the named one is refused, or packages are missing; (1) */
export async function makeLiveUpdateKernel(): Promise<GuestKernel> {
  return findLiveUpdateKernel() ?? (await buildKernel());
}

/** @throws ScriptError (100) naming what it lacks of the fragment */
export function readSufficientKernel(path: string): GuestKernel {
  const kernel = readNamedKernel(path);
  if (kernel.options === undefined) {
    throw new ScriptError(
      `${path} does not tell what it was configured with: it was built without CONFIG_IKCONFIG, ` +
        "or this machine lacks the program that unpacks it (gzip, xz, zstd).",
      { exitCode: 100 },
    );
  }
  const missing = unfulfilled(parseFragment(readFragment()).requirements, kernel.options);
  if (missing.length === 0) return kernel;
  throw new ScriptError(
    `${path} lacks of images/test-guest/kernel.config: ${missing.join(", ")}. ` +
      `Without ${variable} a kernel is built.`,
    { exitCode: 100 },
  );
}

const suite = "bookworm";

/**
 * Debian 12's kernel of the newest point release; of the package only the kernel itself is used,
 * no module. Fetched once into .cache/; delete the folder to fetch a newer one. Neither root nor a
 * Debian of that release is needed, only a Debian mirror among the machine's own package sources.
 * @throws ScriptError (100) without such a mirror, (1) when apt fails
 */
export async function fetchDebianKernel(): Promise<GuestKernel> {
  const folder = cacheFolder(`guest-kernel-${suite}`);
  const stamp = join(folder, "release");
  if (!existsSync(stamp)) {
    await withStep(`kernel of Debian ${suite}`, async (step) => {
      writeFileSync(`${stamp}.new`, await download(folder, step.say));
      renameSync(`${stamp}.new`, stamp);
    });
  }
  return {
    path: join(folder, "vmlinuz"),
    release: readFileSync(stamp, "utf8"),
    options: parseOptions(readFileSync(join(folder, "config"), "utf8")),
  };
}

/** @returns the release of the kernel, whose vmlinuz and config then lie in the folder */
async function download(folder: string, say: (detail: string) => void): Promise<string> {
  say("lists of packages");
  const archive = await openDebianArchive(suite, join(folder, "apt"));
  const shown = await archive.query(["show", "linux-image-amd64"]);
  const [, release] = /^Depends:.*\blinux-image-(6\.1\.[^\s,]+)/m.exec(shown) ?? [];
  if (release === undefined) {
    throw new ScriptError(`linux-image-amd64 of ${suite} names no kernel 6.1:\n${shown}`, {
      exitCode: 1,
    });
  }
  say(`linux-image-${release}`);
  const [file = ""] = await archive.download([`linux-image-${release}`], folder);
  const unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --wildcards "./boot/*"';
  await runCommand(["sh", "-e", "-c", unpack, "unpack", file, folder]);
  renameSync(join(folder, "boot", `vmlinuz-${release}`), join(folder, "vmlinuz"));
  renameSync(join(folder, "boot", `config-${release}`), join(folder, "config"));
  await runCommand(["rm", "-r", "apt", "boot", file], { workingDirectory: folder });
  return release;
}

async function main(): Promise<number> {
  const { path, release } = await makeLiveUpdateKernel();
  console.log(`${release}: ${path}`);
  return 0;
}

if (import.meta.main) await runScript(main);
