/** Programs out of an unpacked tree of Debian, with the libraries that they load from it. */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import type { ArchiveEntry } from "../guest/initramfs.ts";
import { ScriptError } from "../terminal.ts";

/** Where Debian 12's packages still have what its installed system has in usr. */
const merged = /^(bin|sbin|lib|lib64)\//;
/** One package has a folder of its own for what its programs share. */
const libraryFolders = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].flatMap((folder) => [
  folder,
  `${folder}/ceph`,
]);
const loader = "lib64/ld-linux-x86-64.so.2";
const executable = 0o755;

/** A path of the tree as the image has it. */
export function placeInImage(path: string): string {
  return merged.test(path) ? `usr/${path}` : path;
}

export interface ProgramSource {
  /** Of the image: "usr/bin/hostler". */
  readonly place: string;
  /** Of this machine. */
  readonly path: string;
}

/**
 * @param tree has usr and etc, as fetchDebianTree gives it
 * @returns programs, the libraries that they are linked with, and the loader
 * @throws ScriptError (1) when the tree has not what one of them needs
 */
export function programEntries(tree: string, programs: readonly ProgramSource[]): ArchiveEntry[] {
  const entries = new Map<string, ArchiveEntry>();
  const add = (place: string, path: string) => {
    const content = readFileSync(path);
    entries.set(place, { kind: "file", path: place, content, mode: executable });
  };
  for (const { place, path } of programs) {
    add(place, path);
    for (const library of librariesOf(tree, path)) {
      // By the name that it is loaded by; links to it are not needed.
      const name = relative(tree, library);
      add(placeInImage(name), realpathSync(library));
    }
  }
  return [...entries.values()].toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

/** What the tree's own loader would load; this machine's libraries have no part in it. */
function librariesOf(tree: string, program: string): string[] {
  if (!isLinked(program)) return [];
  const folders = libraryFolders.map((folder) => join(tree, folder)).join(":");
  const argv = [join(tree, loader), "--library-path", folders, "--list", program];
  const { success, stdout, stderr } = Bun.spawnSync(argv);
  const said = stdout.toString();
  if (!success || said.includes("not found")) {
    throw new ScriptError(`${program} lacks libraries in ${tree}: ${said}${stderr.toString()}`, {
      exitCode: 1,
    });
  }
  const found = [...said.matchAll(/=> (\/\S+) \(0x/g)].map(([, path = ""]) => path);
  const strange = found.filter((path) => !path.startsWith(tree) && !path.includes("/ld-linux"));
  if (strange.length > 0) throw new Error(`Bug: ${program} would load ${strange.join(", ")}`);
  return [...found.filter((path) => path.startsWith(tree)), join(tree, loader)];
}

/** Has a loader named in it: PT_INTERP, 3, among its program headers. elf(5). */
function isLinked(path: string): boolean {
  const bytes = readFileSync(path);
  if (bytes.toString("latin1", 0, 4) !== "\u007fELF") return false;
  const begin = Number(bytes.readBigUInt64LE(32));
  const [size, count] = [bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  for (let index = 0; index < count; index++) {
    if (bytes.readUInt32LE(begin + index * size) === 3) return true;
  }
  return false;
}

/** @throws ScriptError (1) when no folder of programs in the tree has it */
export function programIn(tree: string, name: string): ProgramSource {
  for (const folder of ["bin", "sbin", "usr/bin", "usr/sbin"]) {
    const path = join(tree, folder, name);
    if (existsSync(path)) return { place: placeInImage(`${folder}/${name}`), path };
  }
  throw new ScriptError(`There is no program ${name} in ${tree}`, { exitCode: 1 });
}

/** A folder of this machine, such as of firmware, with all that is in it. */
export function folderEntries(source: string, place: string): ArchiveEntry[] {
  const names = readdirSync(source, { recursive: true, encoding: "utf8" }).toSorted();
  return names
    .filter((name) => statSync(join(source, name)).isFile())
    .map((name) => ({
      kind: "file",
      path: `${place}/${name}`,
      content: readFileSync(join(source, name)),
      mode: (statSync(join(source, name)).mode & 0o111) === 0 ? 0o644 : executable,
    }));
}

/** Links to a program that is many. */
export function linksTo(program: string, names: readonly string[]): ArchiveEntry[] {
  return names.map((name) => {
    return { kind: "link", path: `${dirname(program)}/${name}`, target: basename(program) };
  });
}
