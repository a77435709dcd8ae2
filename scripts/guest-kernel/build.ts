/** Builds the kernel of the test guests from Debian's source package. */
import { createHash } from "node:crypto";
import {
  copyFileSync,
  createReadStream,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { runCommand } from "../command.ts";
import { cacheFolder, ensureSystemPackages, repositoryRoot } from "../setup.ts";
import { ScriptError, withStep } from "../terminal.ts";
import { openDebianArchive } from "./debian-archive.ts";
import { parseFragment, unfulfilled } from "./fragment.ts";
import { type GuestKernel, parseOptions, readNamedKernel } from "./kernel-image.ts";

/** No kernel that Debian has built has live update turned on; this is the source of one. */
const source = {
  package: "linux-source-7.3",
  version: "7.3.4-1~bpo13+1",
  suite: "trixie-backports",
  sha256: "703e369ddd4cce971452f5a593ee55df3a5c10c83caf0fa0df039633ed181ee3",
} as const;
/** Who a kernel says that it was built by and when: the same for everybody. */
const signature = {
  KBUILD_BUILD_TIMESTAMP: "2026-01-01",
  KBUILD_BUILD_USER: "hostler",
  KBUILD_BUILD_HOST: "hostler",
} as const;
const usualObjects = 2340;

const fragmentPath = join(repositoryRoot, "images/test-guest/kernel.config");

export function readFragment(): string {
  return readFileSync(fragmentPath, "utf8");
}

/** The kernel in .cache, if this source was built with this fragment before. */
export function findBuiltKernel(): GuestKernel | undefined {
  const path = builtPath();
  return existsSync(path) ? readNamedKernel(path) : undefined;
}

function builtPath(): string {
  const identity = JSON.stringify([source, signature, readFragment()]);
  const hash = createHash("sha256").update(identity).digest("hex").slice(0, 16);
  return join(repositoryRoot, ".cache", `guest-kernel-${hash}`, "bzImage");
}

/**
 * Six to ten minutes of two processors, 4 GB of disk while it works, 170 MB from a mirror.
 * @throws ScriptError (100) when packages are missing, (1) when a step fails or a wish is dropped
 */
export async function buildKernel(): Promise<GuestKernel> {
  if (process.arch !== "x64") {
    throw new ScriptError("The kernel of the test guests is built on x86-64 alone.", {
      exitCode: 100,
    });
  }
  await ensureSystemPackages(["kernel"], "the kernel of the test guests");
  const work = cacheFolder("guest-kernel-work");
  const tree = join(work, "tree");
  await withStep(`${source.package} ${source.version}`, async ({ say }) => {
    const file = await fetchSource(say);
    say("unpacking");
    await unpackSource(file, work, tree);
  });
  const build = join(work, "build");
  const make = ["make", "-C", tree, `O=${build}`, "ARCH=x86_64"];
  await withStep("the guests' kernel: configuration", () => configure(make, build));
  await withStep("the guests' kernel", async ({ say }) => {
    let done = 0;
    await runCommand([...make, `-j${navigator.hardwareConcurrency}`, "bzImage"], {
      environment: signature,
      onLine: (line) => {
        if (!/^ {2}(CC|AS|AR|LD) /.test(line)) return;
        done += 1;
        say(`${done} of about ${usualObjects} objects`);
      },
    });
  });
  keep(join(build, "arch/x86/boot/bzImage"), builtPath());
  rmSync(work, { recursive: true });
  return readNamedKernel(builtPath());
}

/** Kept in .cache, because the next fragment needs it again. @returns the package's path */
async function fetchSource(say: (detail: string) => void): Promise<string> {
  const folder = cacheFolder(`${source.package}-${source.version}`);
  const kept = join(folder, "source.deb");
  if (existsSync(kept) && (await sha256Of(kept)) === source.sha256) return kept;
  rmSync(folder, { recursive: true });
  mkdirSync(folder, { recursive: true });
  say("lists of packages");
  const archive = await openDebianArchive(source.suite, join(folder, "apt"));
  say("download, 170 MB");
  const [file = ""] = await archive
    .download([`${source.package}=${source.version}`], folder)
    .catch((cause: unknown) => {
      throw new ScriptError(
        `Debian's ${source.suite} does not give ${source.package} ${source.version}; a newer one ` +
          `has to be named, with its SHA-256, in ${import.meta.path}.\n${messageOf(cause)}`,
        { exitCode: 1, cause },
      );
    });
  const hash = await sha256Of(file);
  if (hash !== source.sha256) {
    throw new ScriptError(`${file} has SHA-256 ${hash}, and not ${source.sha256}.`, {
      exitCode: 1,
    });
  }
  rmSync(join(folder, "apt"), { recursive: true });
  renameSync(file, kept);
  return kept;
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const bytes of createReadStream(path)) hash.update(bytes);
  return hash.digest("hex");
}

/** The package has an archive within it; neither is unpacked as a whole before the other. */
async function unpackSource(file: string, work: string, tree: string): Promise<void> {
  rmSync(work, { recursive: true, force: true });
  mkdirSync(tree, { recursive: true });
  const inner = `./usr/src/${source.package}.tar.xz`;
  const unpack = [
    'dpkg-deb --fsys-tarfile "$1" | tar -x --to-stdout "$2"',
    'tar -x --xz --strip-components=1 -C "$3"',
  ].join(" | ");
  await runCommand(["bash", "-e", "-o", "pipefail", "-c", unpack, "unpack", file, inner, tree]);
}

/** @throws ScriptError (1) with every wish that Kconfig dropped */
async function configure(make: readonly string[], build: string): Promise<void> {
  mkdirSync(build, { recursive: true });
  await runCommand([...make, "allnoconfig"], {
    environment: { KCONFIG_ALLCONFIG: fragmentPath },
  });
  const configured = parseOptions(readFileSync(join(build, ".config"), "utf8"));
  const dropped = unfulfilled(parseFragment(readFragment()).wishes, configured);
  if (dropped.length === 0) return;
  throw new ScriptError(`Kconfig did not keep, of ${fragmentPath}: ${dropped.join(", ")}`, {
    exitCode: 1,
  });
}

/** Whoever finds the file finds all of it. */
function keep(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, `${to}.new`);
  renameSync(`${to}.new`, to);
}
