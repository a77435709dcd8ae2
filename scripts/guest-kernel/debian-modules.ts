/** A kernel of Debian with all its modules, unpacked and not installed, and what modules say. */
import { existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runCommand } from "../command.ts";
import { cacheFolder } from "../setup.ts";
import { ScriptError, withStep } from "../terminal.ts";
import { openDebianArchive } from "./debian-archive.ts";

export interface KernelWithModules {
  readonly kernel: string;
  /** As uname -r says in it. */
  readonly release: string;
  /** The folder that is /lib/modules/RELEASE. */
  readonly modules: string;
}

/**
 * That of the newest point release. Fetched once into .cache/, by anybody; delete the folder there
 * to fetch a newer one.
 * @param options.flavour as in Debian's linux-image-FLAVOUR: "amd64", "cloud-amd64"
 * @throws ScriptError (100) without a mirror of Debian, (1) when apt fails
 */
export async function fetchKernelWithModules(options: {
  readonly suite: string;
  readonly flavour: string;
}): Promise<KernelWithModules> {
  const { suite, flavour } = options;
  const folder = cacheFolder(`kernel-${suite}-${flavour}`);
  const stamp = join(folder, "release");
  if (!existsSync(stamp)) {
    await withStep(`${flavour} kernel of Debian ${suite}, with modules`, async ({ say }) => {
      say("lists of packages");
      const archive = await openDebianArchive(suite, join(folder, "apt"));
      const shown = await archive.query(["show", `linux-image-${flavour}`]);
      const pattern = new RegExp(`^Depends:.*\\blinux-image-(\\d[^\\s,]*-${flavour})`, "m");
      const [, release] = pattern.exec(shown) ?? [];
      if (release === undefined) {
        throw new ScriptError(`linux-image-${flavour} of ${suite} names no kernel:\n${shown}`, {
          exitCode: 1,
        });
      }
      say(`linux-image-${release}`);
      const [file = ""] = await archive.download([`linux-image-${release}`], folder);
      await runCommand(["dpkg-deb", "-x", file, join(folder, "tree")]);
      renameSync(join(folder, "tree", "boot", `vmlinuz-${release}`), join(folder, "vmlinuz"));
      renameSync(join(folder, "tree", "lib", "modules", release), join(folder, "modules"));
      await runCommand(["rm", "-r", "apt", "tree", file], { workingDirectory: folder });
      writeFileSync(`${stamp}.new`, release);
      renameSync(`${stamp}.new`, stamp);
    });
  }
  return {
    kernel: join(folder, "vmlinuz"),
    release: readFileSync(stamp, "utf8"),
    modules: join(folder, "modules"),
  };
}

/** Modules by name, with "_" for "-", as the kernel has them. */
export type ModulePaths = ReadonlyMap<string, string>;

/** @param modules the folder of a kernel; what is in "kernel" there, packed or not */
export function findModules(modules: string): ModulePaths {
  const found = new Map<string, string>();
  const root = join(modules, "kernel");
  for (const name of readdirSync(root, { recursive: true, encoding: "utf8" }).toSorted()) {
    const [, module] = /([^/]+)\.ko(?:\.xz)?$/.exec(name) ?? [];
    if (module !== undefined) found.set(module.replaceAll("-", "_"), join(root, name));
  }
  return found;
}

/** @returns the module as the kernel takes it. @throws ScriptError (1) when xz cannot unpack it */
export function readModule(path: string): Uint8Array {
  if (!path.endsWith(".xz")) return readFileSync(path);
  const { success, stdout, stderr } = Bun.spawnSync(["xz", "-dc", path]);
  if (success) return stdout;
  throw new ScriptError(`xz -dc ${path}: ${stderr.toString().trim()}`, { exitCode: 1 });
}

/** What a module says of itself: "depends", "alias", "firmware" and others, each often. */
export type ModuleFacts = ReadonlyMap<string, readonly string[]>;

/** The section .modinfo: KEY=VALUE, each ended by a zero byte. modinfo(8). */
export function factsOf(module: Uint8Array): ModuleFacts {
  const facts = new Map<string, string[]>();
  const text = Buffer.from(module.buffer, module.byteOffset, module.byteLength).toString("latin1");
  for (const key of ["depends", "alias", "softdep", "firmware"]) {
    const mark = `\0${key}=`;
    for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, at + 1)) {
      const value = text.slice(at + mark.length, text.indexOf("\0", at + mark.length));
      facts.set(key, [...(facts.get(key) ?? []), value]);
    }
  }
  return facts;
}

/** The modules that this one needs, by the names that the kernel has for them. */
export function dependenciesOf(module: Uint8Array): string[] {
  const names = (factsOf(module).get("depends") ?? []).flatMap((value) => value.split(","));
  return names.filter((name) => name !== "").map((name) => name.replaceAll("-", "_"));
}
