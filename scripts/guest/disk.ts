/** Disks of guests: ext4 file systems, made from files of this machine without root or a mount. */
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { librariesOf } from "./programs.ts";

export interface DiskContent {
  readonly folders?: readonly string[];
  /** Paths in the guest → programs of this machine; the libraries that they need come along. */
  readonly programs?: Readonly<Record<string, string>>;
  /** Paths in the guest → text or bytes; executable, so that a script needs no more. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  /** Paths in the guest → files and folders of this machine, with their modes. */
  readonly trees?: Readonly<Record<string, string>>;
  /** Paths in the guest → where they point; what is there already stays. */
  readonly links?: Readonly<Record<string, string>>;
}

const mebibyte = 2 ** 20;
const everybodyMayRun = 0o755;

/** @param spareMebibytes room for what the guest writes */
export function writeDisk(path: string, content: DiskContent, spareMebibytes: number): void {
  const root = mkdtempSync(join(tmpdir(), "hostler-disk-"));
  try {
    chmodSync(root, everybodyMayRun);
    fill(root, content);
    makeFileSystem(path, root, spareMebibytes);
  } finally {
    rmSync(root, { recursive: true });
  }
}

function makeFileSystem(path: string, root: string, spareMebibytes: number): void {
  // A tenth more for inodes and tables.
  const size = Math.ceil((sizeOf(root) * 1.1) / mebibyte) + spareMebibytes;
  rmSync(path, { force: true });
  writeFileSync(path, "");
  truncateSync(path, size * mebibyte);
  const options = "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1";
  runTool(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-E", options, "-d", root, path]);
  if (process.getuid?.() !== 0) giveToRoot(path, root);
}

/** A guest's programs that look at owners must not see whoever made the disk. */
function giveToRoot(path: string, root: string): void {
  const names = readdirSync(root, { recursive: true, encoding: "utf8" });
  const commands = names.flatMap((name) =>
    ["uid", "gid"].map((field) => `set_inode_field "/${name}" ${field} 0`),
  );
  runTool(["/sbin/debugfs", "-w", "-f", "-", path], `${commands.join("\n")}\n`);
}

function runTool([program = "", ...words]: readonly string[], input = ""): void {
  const { status, stderr } = spawnSync(program, words, { encoding: "utf8", input });
  if (status !== 0)
    throw new Error(`${program} ${words.join(" ")}: exit code ${status}\n${stderr}`);
}

function fill(root: string, content: DiskContent): void {
  for (const folder of content.folders ?? []) mkdirSync(join(root, folder), { recursive: true });
  for (const [place, source] of Object.entries(content.trees ?? {})) {
    put(realpathSync(source), join(root, place));
  }
  for (const [place, source] of Object.entries(content.programs ?? {})) {
    put(realpathSync(source), join(root, place));
    for (const library of librariesOf(source)) put(realpathSync(library), join(root, library));
  }
  for (const [place, bytes] of Object.entries(content.files ?? {})) {
    mkdirSync(dirname(join(root, place)), { recursive: true });
    // What was linked to there belongs to this machine.
    rmSync(join(root, place), { force: true });
    writeFileSync(join(root, place), bytes);
    chmodSync(join(root, place), everybodyMayRun);
  }
  for (const [place, target] of Object.entries(content.links ?? {})) {
    mkdirSync(dirname(join(root, place)), { recursive: true });
    const taken = lstatSync(join(root, place), { throwIfNoEntry: false }) !== undefined;
    if (!taken) symlinkSync(target, join(root, place));
  }
}

/** A file, or a folder with all that is in it; links in it stay links. */
function put(source: string, place: string): void {
  mkdirSync(dirname(place), { recursive: true });
  if (!statSync(source).isDirectory()) {
    linkOrCopy(source, place);
    return;
  }
  mkdirSync(place, { recursive: true });
  for (const entry of readdirSync(source, { withFileTypes: true })) {
    const path = join(source, entry.name);
    if (entry.isDirectory() || entry.isFile()) put(path, join(place, entry.name));
    else if (entry.isSymbolicLink()) symlinkSync(readlinkSync(path), join(place, entry.name));
  }
}

/** The staging folder may be on another file system than what goes in. */
function linkOrCopy(source: string, place: string): void {
  rmSync(place, { force: true });
  try {
    linkSync(source, place);
  } catch {
    copyFileSync(source, place);
  }
}

function sizeOf(folder: string): number {
  const blockBytes = 4096;
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => Math.ceil(lstatSync(join(folder, name)).size / blockBytes) + 1)
    .reduce((sum, blocks) => sum + blocks * blockBytes, 0);
}
